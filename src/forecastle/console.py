"""What a person at a terminal reads: step lines and score tables; without a TTY, no colour and no movement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forecastle.frame import iso

if TYPE_CHECKING:
    from rich.tree import Tree

    from forecastle.lineage import Lineage
    from forecastle.task import Task

MOST_LEAVES = 12  # of a tree
LONG_LINE = 1000
PLAIN_WIDTH = 120  # where nobody looks at a terminal


def make_console(plain: bool = False) -> Console:
    """Return a console: as the terminal is, or without colour and movement."""
    plain = plain or not sys.stdout.isatty()
    return Console(highlight=False, no_color=plain or None, width=PLAIN_WIDTH if plain else None)


OUT = make_console()


def print_outcome(step: str, seconds: float, summary: dict[str, Any], error: Exception | None) -> None:
    """Print how a step ended, in one line: what it found, or that it failed."""
    mark = "[green]✓[/green]" if error is None else "[red]✗[/red]"
    said = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in summary.items())
    OUT.print(f"{mark} [bold]{step:<14}[/bold] {escape(said) or 'failed'} [dim]({seconds:.2f} s)[/dim]", soft_wrap=True)


def score_table(scores: dict[str, Any], task: Task, title: str) -> Table:
    """Return back-test or live scores as a table: one row a horizon, and the pooled figures."""
    unit = f" {task.unit}" if task.unit else ""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name in ("horizon", f"RMSE{unit}", f"MAE{unit}", "R²", "skill", "coverage"):
        table.add_column(name, justify="right")
    for row in scores["horizons"]:
        table.add_row(f"{row['horizon']}", *_figures(row))
    table.add_section()
    table.add_row("pooled", *_figures(scores), style="bold")
    return table


def print_scores(scores: dict[str, Any], task: Task, title: str) -> None:
    """Print back-test or live scores as a table."""
    OUT.print(score_table(scores, task, title))
    if weights := scores.get("weights"):
        members = " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
        OUT.print(f"Forecast by {members}" + (": nothing trained beat it." if "persistence" in weights else "."))
    said = "Skill is 1 - RMSE / RMSE of persistence on the same rows"
    if interval := scores.get("skill_interval"):
        low, high = map(figure, interval)
        said += f"; pooled it lies between {low} and {high} (95 %, weeks drawn anew)"
    OUT.print(f"{said}.", style="dim")


def print_lineage(found: Lineage, task: Task) -> None:
    """Print a lineage as a tree, from the forecast down to the answers."""
    from rich.tree import Tree

    model, data, made = found.model, found.data, found.forecast
    words = (
        [f"model version {model.version}", model.stage, model.estimator] if model else ["model no longer registered"]
    )
    if model is not None:
        words += [f"run {model.run_id}", f"forecastle {model.code or 'unknown'}"]
    said = escape(", ".join(word for word in words if word))
    if made is None:
        root = node = Tree(said)
    else:
        value = f"{figure(made['value'])} {task.unit}".strip()
        root = Tree(
            escape(
                f"forecast {made['forecast_id']}: {made['series_id']} at {iso(made['timestamp'])}, {value}; "
                f"from data up to {iso(made['origin'])}, issued {iso(made['issued_at'])}"
            )
        )
        node = root.add(said)
    known = ", of which this workspace has no record"
    if data is not None:
        moment = f" as known at {iso(data.as_of)}" if data.as_of else ""
        known = f": {data.rows} rows{moment}, by run {data.run}, in {data.remote}"
    node = node.add(escape(f"data version {found.data_version}{known}"))
    if data is not None:
        node.add(f"git commit {data.commit}" if data.commit else "no git commit: its record is in the workspace")
        lost = f", {len(found.missing)} of them no longer in the archive" if found.missing else ""
        node.add(f"made by forecastle {data.code} of {len(found.answers)} archived answers{lost}")
        _add_answers(node.children[-1], found)
    # A tree breaks what is wider than its console, and lines in a file are for searching.
    console = OUT if sys.stdout.isatty() else Console(highlight=False, no_color=True, width=LONG_LINE)
    console.print(root)


def _add_answers(branch: Tree, found: Lineage) -> None:
    """Add the answers as leaves: all, or the first and the last where there are many."""
    names, lost, half = found.answers, set(found.missing), MOST_LEAVES // 2
    many = len(names) > MOST_LEAVES
    for name in names[:half] if many else names:
        branch.add(f"{name}{' (missing)' if name in lost else ''}")
    if many:
        branch.add(f"… {len(names) - 2 * half} more; --json names them all")
        for name in names[-half:]:
            branch.add(f"{name}{' (missing)' if name in lost else ''}")


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits, or a dash where it is not known."""
    return "–" if value is None else f"{value:.{digits}g}"


def _figures(row: dict[str, Any]) -> list[str]:
    return [figure(row.get(name)) for name in ("rmse", "mae", "r2", "skill", "coverage")]


def _short(value: object) -> str:
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return str(value)
