"""Models for a person to read: the versions of a task, one in full, who decided what, and what moves a forecast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from forecastle.console import OUT, figure, score_table
from forecastle.frame import iso

if TYPE_CHECKING:
    from forecastle.models.explanation import Explanation
    from forecastle.task import Task

MOST_FEATURES = 15
WIDE = 130  # letters of a terminal that shows every column of the versions


def print_versions(versions: Sequence[Mapping[str, Any]], task: Task) -> None:
    """Print the versions of a task's model as a table."""
    if not versions:
        OUT.print(f"No model of task {escape(task.name)} is registered. Train one: forecastle run train --task FILE")
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    unit = f" {task.unit}" if task.unit else ""
    names = ("version", "stage", "estimator", "made", f"RMSE{unit}", "skill", "promoted", "by")
    shown = len(names) if OUT.width >= WIDE else names.index("promoted")
    for name in names[:shown]:
        table.add_column(
            name, justify="right" if name in ("version", f"RMSE{unit}", "skill") else "left", no_wrap=name == "made"
        )
    for one in versions:
        what = [one["version"], _stage(one), one["estimator"], _minute(one["created_at"])]
        what += [figure(one["rmse"]), figure(one["skill"]), _minute(one["promoted_at"]), one["promoted_by"] or "–"]
        table.add_row(*what[:shown])
    OUT.print(table)
    if shown < len(names):
        OUT.print("By whom and when each was promoted: forecastle registry show VERSION --task FILE", style="dim")


def print_version(one: Mapping[str, Any], task: Task) -> None:
    """Print one version: what it is, the scores of every candidate, what it learnt from, and what was decided."""
    OUT.print(f"[bold]{escape(task.name)} version {one['version']}[/bold]  {escape(_stage(one))}", soft_wrap=True)
    weights = " + ".join(f"{weight:.2f} {name}" for name, weight in one["weights"].items())
    told = {
        "forecasts by": weights,
        "made": one["created_at"],
        "data version": one["data_version"],
        "run": one["run_id"],
        "git commit": one["git_commit"],
        "forecastle": one["code"],
        "promoted": one["promoted_at"] and f"{one['promoted_at']} by {one['promoted_by'] or 'unknown'}",
        "because": one["promoted_because"],
    }
    for name, value in told.items():
        if value:
            OUT.print(f"  {name:<13} {escape(str(value))}", soft_wrap=True)
    OUT.print(score_table(dict(one["backtest"]), task, "Its back-test"))
    _print_candidates(one["backtest"].get("candidates", {}), task)
    _print_importance(one["importance"])
    print_events(one["events"])


def print_events(events: Sequence[Mapping[str, Any]]) -> None:
    """Print an audit trail: when, who, what, why."""
    for one in events:
        before = f", where {one['before']} served" if one["before"] else ""
        line = f"{iso(one['at'])}  {one['by']}: {one['action']} version {one['version']}{before}. {one['why']}"
        OUT.print(escape(line), soft_wrap=True)
    if not events:
        OUT.print("Nothing was decided about it yet.", style="dim")


def print_explanation(told: Explanation, task: Task) -> None:
    """Print a forecast as a sum: where it starts from, and the features that add most to it."""
    ahead = f"{told.horizon} {'step' if told.horizon == 1 else 'steps'} ahead of {iso(told.origin)}"
    value = f"{told.value:.4f} {task.unit}".strip()
    line = f"{told.series_id} at {iso(told.timestamp)}, {ahead}: {value}"
    OUT.print(f"[bold]{escape(line)}[/bold]", soft_wrap=True)
    table = Table(header_style="bold")
    table.add_column("part")
    for name in ("its value", "adds"):
        table.add_column(name, justify="right")
    for name, part in told.start.items():
        table.add_row(escape(name), "", f"{part:+.4f}")
    table.add_section()
    for name, part in list(told.features.items())[:MOST_FEATURES]:
        number = told.inputs.get(name)
        missing = "missing" if number is not None and math.isnan(number) else figure(number)
        table.add_row(escape(name), "" if number is None else missing, f"{part:+.4f}")
    if rest := list(told.features.values())[MOST_FEATURES:]:
        table.add_row(f"{len(rest)} more features", "", f"{math.fsum(rest):+.4f}")
    OUT.print(table)


def _minute(moment: str | None) -> str:
    """Return a time as ISO 8601 to the minute, which fits into a table."""
    return f"{moment[:16]}Z" if moment else "–"


def _stage(one: Mapping[str, Any]) -> str:
    """Say a version's stage with its alias, and where the two tell less than the truth, what is true."""
    words = [one["stage"] or "–", *(f"({name})" for name in one["aliases"])]
    words += ["rejected"] if one["rejected"] else []
    if one["serves"] != ("champion" in one["aliases"]):
        words.append("serves" if one["serves"] else "does not serve: forecastle registry sync")
    return " ".join(words)


def _print_candidates(candidates: Mapping[str, Any], task: Task) -> None:
    table = Table(title="Every candidate, pooled", title_justify="left", header_style="bold")
    unit = f" {task.unit}" if task.unit else ""
    table.add_column("candidate")
    for name in (f"RMSE{unit}", f"MAE{unit}", "R²", "skill"):
        table.add_column(name, justify="right")
    for name, scores in candidates.items():
        table.add_row(name, *(figure(scores.get(column)) for column in ("rmse", "mae", "r2", "skill")))
    if candidates:
        OUT.print(table)


def _print_importance(shares: Mapping[str, float]) -> None:
    if not shares:
        OUT.print("It has no trees, so there is no importance of features to tell.", style="dim")
        return
    table = Table(title="What its trees learnt from", title_justify="left", header_style="bold")
    table.add_column("feature")
    table.add_column("share", justify="right")
    for name, share in list(shares.items())[:MOST_FEATURES]:
        table.add_row(escape(name), f"{100 * share:.1f} %")
    if rest := list(shares.values())[MOST_FEATURES:]:
        table.add_row(f"{len(rest)} more", f"{100 * math.fsum(rest):.1f} %")
    OUT.print(table)
