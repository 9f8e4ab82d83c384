"""A comparison of challenger and champion as Markdown for a pull request: the decision, its reasons, the figures.

Everything is computed from the same rows the decision was made on. Charts are Mermaid, which a comment can hold;
pictures lie as PNG files beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.frame import write_text
from forecastle.models.evaluation import scores, scores_by_series
from forecastle.models.promotion import CHALLENGER, CHAMPION, NAIVE, Decision, same_rows
from forecastle.reporting.figures import save_figures
from forecastle.task import Task

COLOURS = {CHALLENGER: ("blue", "#1f6feb"), CHAMPION: ("orange", "#d4760a"), "persistence": ("grey", "#6e7781")}
COLOURS |= {"seasonal_naive": ("green", "#2da44e"), "truth": ("grey", "#6e7781")}
POINTS = 48  # of a drawn line
MOST_SERIES, MOST_STEPS = 20, 24  # rows of a table: a comment on GitHub holds 65 536 characters


@dataclass(frozen=True)
class Comparison:
    """A decision with the rows it rests on: ``rows`` of the challenger, ``champion`` where there was one."""

    task: Task
    challenger_version: str
    champion_version: str | None
    decision: Decision
    rows: pl.DataFrame
    champion: pl.DataFrame | None
    serves: bool = False  # the challenger has been promoted since
    run: str = ""  # the challenger's, in MLflow
    page: str = ""  # its address, where MLflow is a server


def save(folder: Path, comparison: Comparison) -> Path:
    """Write ``comparison.md`` and the challenger's pictures into a folder; return the Markdown's path."""
    save_figures(folder, comparison.rows, comparison.task)
    return write_text(folder / "comparison.md", markdown(comparison))


def markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    task, decision = comparison.task, comparison.decision
    against = f" against {comparison.champion_version}" if comparison.champion_version else ""
    parts = [f"## {task.name}: model {comparison.challenger_version}{against}", f"**{verdict(comparison)}**"]
    parts.append("\n".join(f"- {reason}" for reason in decision.reasons))
    shared = same_rows(comparison.rows, comparison.champion)
    if not shared.is_empty():
        methods = [CHALLENGER, *([CHAMPION] if CHAMPION in shared.columns else []), *NAIVE]
        figures = {method: scores(_scored(shared, method)) for method in methods}
        parts += [
            f"All on the same {shared.height} rows of {shared['origin'].n_unique()} origins,"
            f" {_moments(shared)};"
            f" RMSE and MAE in {task.unit or 'the unit of the target'}.",
            _pooled(figures),
            _by_horizon(figures),
            _horizon_chart(task, figures),
            _by_series(shared, methods),
            _truth_chart(task, shared),
        ]
    if comparison.run:
        named = f"[`{comparison.run}`]({comparison.page})" if comparison.page else f"`{comparison.run}`"
        parts.append(f"The challenger is run {named} of MLflow.")
    return "\n\n".join(parts) + "\n"


def verdict(comparison: Comparison) -> str:
    """Return the decision in one sentence."""
    decision = comparison.decision
    if comparison.serves:
        return "It serves: this is how it stood against what served before."
    if decision.promote:
        return "The challenger should serve."
    if decision.worse:
        return "The challenger does harm."
    return "The champion stays." if comparison.champion_version else "Nothing serves yet, and this should not."


def _scored(shared: pl.DataFrame, method: str) -> pl.DataFrame:
    """Return a method's rows as ``evaluation`` scores them; only the challenger has intervals here."""
    bounds = [
        (pl.col(name) if method == CHALLENGER and name in shared.columns else pl.lit(None, dtype=pl.Float64)).alias(
            name
        )
        for name in ("lower", "upper")
    ]
    kept = shared.select("series_id", "origin", "horizon", "actual", pl.col("persistence").alias("last"), *bounds)
    return kept.with_columns(value=shared[method])


def _pooled(figures: Mapping[str, Mapping[str, Any]]) -> str:
    names = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "skill": "skill", "coverage": "coverage"}
    rows = [[_said(method), *(_number(one[name]) for name in names)] for method, one in figures.items()]
    return _table(["", *names.values()], rows)


def _by_horizon(figures: Mapping[str, Mapping[str, Any]]) -> str:
    steps = _spread([one["horizon"] for one in figures[CHALLENGER]["horizons"]], MOST_STEPS)
    by_step = {method: {one["horizon"]: one["rmse"] for one in all_["horizons"]} for method, all_ in figures.items()}
    rows = [[str(step), *(_number(by_step[method].get(step)) for method in figures)] for step in steps]
    return _table(["RMSE, steps ahead", *map(_said, figures)], rows)


def _by_series(shared: pl.DataFrame, methods: Sequence[str]) -> str:
    by_series = {method: scores_by_series(_scored(shared, method)) for method in methods}
    rmse = {method: {name: one["rmse"] for name, one in figures.items()} for method, figures in by_series.items()}
    own, other = rmse[CHALLENGER], rmse[methods[1]]
    names = sorted(own, key=lambda name: (-own[name] / other[name] if other[name] else 0.0, name))
    rows = [[_escaped(name), *(_number(rmse[method][name]) for method in methods)] for name in names[:MOST_SERIES]]
    table = _table(["RMSE, series", *map(_said, methods)], rows)
    more = len(names) - len(rows)
    said = f"The {len(rows)} series where it stands worst beside {_said(methods[1])}; {more} more are not shown."
    return f"{table}\n\n{said}" if more else table


def _horizon_chart(task: Task, figures: Mapping[str, Mapping[str, Any]]) -> str:
    steps = _spread([one["horizon"] for one in figures[CHALLENGER]["horizons"]], POINTS)
    lines = {
        method: [one["rmse"] for one in all_["horizons"] if one["horizon"] in steps] for method, all_ in figures.items()
    }
    return _chart(f"RMSE by steps ahead {task.unit}".strip(), "steps ahead", [str(step) for step in steps], lines)


def _truth_chart(task: Task, shared: pl.DataFrame) -> str:
    """Draw the newest forecasts of the first series, as few steps ahead as there are, against what came true."""
    name = str(shared["series_id"].min())
    first = shared.filter(pl.col("series_id") == name)
    step = int(first.select(pl.min("horizon")).item())
    last = first.filter(pl.col("horizon") == step).sort("origin").tail(POINTS)
    drawn = [method for method in (CHAMPION, CHALLENGER) if method in last.columns]
    lines = {"truth": last["actual"].to_list(), **{method: last[method].to_list() for method in drawn}}
    return _chart(
        f"{name}: {step} step{'s' if step != 1 else ''} ahead {task.unit}".strip(),
        "origins, the newest last",
        [str(number) for number in range(1, last.height + 1)],
        lines,
        from_zero=False,
    )


def _chart(
    title: str, along: str, marks: Sequence[str], lines: Mapping[str, Sequence[float]], from_zero: bool = True
) -> str:
    """Return a Mermaid chart of some lines; the key stands below it, since Mermaid draws none."""
    palette = ", ".join(COLOURS[method][1] for method in lines)
    numbers = [value for line in lines.values() for value in line]
    low, high = min(0.0 if from_zero else numbers[0], *numbers), max(numbers)
    high += (high == low) * max(abs(high), 1.0)  # a range needs two ends
    drawn = "\n".join(f"    line [{', '.join(map(_plain, line))}]" for line in lines.values())
    key = ", ".join(f"{COLOURS[method][0]}: {_said(method)}" for method in lines)
    return (
        f'```mermaid\n---\nconfig:\n  themeVariables:\n    xyChart:\n      plotColorPalette: "{palette}"\n---\n'
        f'xychart-beta\n    title "{_quoted(title)}"\n    x-axis "{along}" [{", ".join(marks)}]\n'
        f"    y-axis {_plain(low)} --> {_plain(high)}\n{drawn}\n```\n\n{key}"
    )


def _plain(value: float) -> str:
    """Return a number of seven digits as Mermaid reads it, which knows no exponents."""
    return np.format_float_positional(value, precision=7, fractional=False, trim="-")


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """Return the steps, or where there are more than so many, as many evenly spread, first and last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def _moments(shared: pl.DataFrame) -> str:
    first, last = shared.select(pl.min("origin"), pl.max("origin").alias("last")).row(0)
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _said(method: str) -> str:
    return method.replace("_", " ")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _quoted(text: str) -> str:
    return text.replace('"', "'").replace("\n", " ")
