"""The profile of the training data, for people: a page of our own, and a page a series by fg-data-profiling.

    reports/profile.html        every series, column and feature; without scripts; always there
    reports/profile/<n>.html    a series in full, as fg-data-profiling shows it (see ``full_profile``)

The first page holds the same facts as the others, so nothing is lost where they cannot be made; it says why.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.data import full_profile
from forecastle.data.pages import save_page
from forecastle.data.profiling import LEVELS, Reference
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.task import Task

PAGE = "profile.html"
MOST_SERIES = 50  # drawn on the page
WIDTH, HEIGHT, POINTS = 1000, 80, 500  # of a drawn line
SPREAD = {"minimum": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "maximum": 1.0}


def save_profile(path: Path, task: Task, table: pl.DataFrame, reference: Reference, full: bool = False) -> Path:
    """Write the page of a training table (observations, see ``frame``), and with ``full`` the pages of its series.

    The page is one file without scripts. It draws the target of the first 50 series; the tables hold all of them. The
    full pages lie beside it in a folder of its name; where one cannot be made the page says why.
    """
    tables = _by_series(table)
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    made = (
        full_profile.make(folder, task, tables)
        if full
        else full_profile.Made((), "The settings ask for this page only.")
    )
    return save_page(
        path,
        "profile.html",
        task=task,
        rows=table.height,
        series=[_extent(name, rows, task) for name, rows in tables.items()],
        pages={name: f"{folder.name}/{page}" for name, page in made.pages},
        without=made.reason,
        spread=tuple(SPREAD),
        columns=_columns(table, task),
        lines=[(name, _line(rows, task.target)) for name, rows in list(tables.items())[:MOST_SERIES]],
        features=_features(reference),
        most_series=MOST_SERIES,
    )


def _by_series(table: pl.DataFrame) -> dict[str, pl.DataFrame]:
    series = table.partition_by(SERIES, as_dict=True, maintain_order=True, include_key=True)
    return {str(key[0]): rows.sort(TIMESTAMP) for key, rows in sorted(series.items())}


def _extent(name: str, rows: pl.DataFrame, task: Task) -> dict[str, Any]:
    first, last = rows[TIMESTAMP][0], rows[TIMESTAMP][-1]
    expected = int((last - first) / task.frequency) + 1
    gap = rows[TIMESTAMP].unique().sort().diff().max()
    missing = longest = None
    if task.grid == "regular":
        missing = max(0, expected - rows[TIMESTAMP].n_unique())
        longest = 0 if gap is None else max(0, int(gap / task.frequency) - 1)  # type: ignore[operator]
    return {"series": name, "first": first, "last": last, "rows": rows.height, "missing": missing, "longest": longest}


def _columns(table: pl.DataFrame, task: Task) -> list[dict[str, Any]]:
    """Return the facts of every series' columns: by series, then in the task's order."""
    table = table.sort(SERIES, TIMESTAMP)
    facts = []
    for name in task.columns:
        column, target = pl.col(name), pl.col(task.target)
        found = table.group_by(SERIES, maintain_order=True).agg(
            null_share=column.null_count() / pl.len(),
            distinct=column.drop_nulls().n_unique(),
            zeros=(column == 0).sum(),
            negative=(column < 0).sum(),
            mean=column.mean(),
            deviation=column.std(),
            skewness=column.skew(),
            kurtosis=column.kurtosis(),
            before=pl.corr(column, column.shift(1)),
            target=pl.corr(column, target),
            spread=pl.concat_list(column.quantile(level, "linear") for level in SPREAD.values()),
        )
        facts += [{"series": row[SERIES], "name": name, **row} for row in found.iter_rows(named=True)]
    order = {name: number for number, name in enumerate(task.columns)}
    return sorted((_finite(row) for row in facts), key=lambda row: (row["series"], order[row["name"]]))


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with None for what cannot be said (the spread of one value, a column of nulls)."""
    known = {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
    return known | {"spread": list(row["spread"])}


def _features(reference: Reference) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "null_share": float(reference.null_share[number]),
            "spread": [_number(value) for value in _spread(reference, number)],
            "partner": _partner(reference, number),
        }
        for number, name in enumerate(reference.names)
    ]


def _spread(reference: Reference, number: int) -> Sequence[Any]:
    inner = [reference.quantiles[LEVELS.index(level), number] for level in SPREAD.values() if level in LEVELS]
    return [reference.minimum[number], *inner, reference.maximum[number]]


def _partner(reference: Reference, number: int) -> tuple[str, float] | None:
    """Return the other feature that a feature is correlated with most, and how much."""
    own = np.abs(reference.correlations[number])
    own[number] = np.nan
    if np.isnan(own).all():
        return None
    most = int(np.nanargmax(own))
    return reference.names[most], float(reference.correlations[number, most])


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _line(rows: pl.DataFrame, target: str) -> str:
    """Return the target over time as an SVG path of means over equal spans, broken where a span holds no value."""
    first: datetime = rows[TIMESTAMP][0]
    span = max((rows[TIMESTAMP][-1] - first).total_seconds() / POINTS, 1.0)
    places = ((pl.col(TIMESTAMP) - first).dt.total_seconds() / span).floor().cast(pl.Int64)
    means = rows.group_by(places.alias("place")).agg(pl.col(target).mean()).drop_nulls().sort("place")
    if means.is_empty():
        return ""
    low, high = means.select(low=pl.col(target).min(), high=pl.col(target).max()).row(0)
    x = pl.col("place") * (WIDTH / POINTS)
    y = HEIGHT - 4 - (pl.col(target) - low) / ((high - low) or 1.0) * (HEIGHT - 8)
    steps = pl.col("place").diff()
    points = means.select(x.round(1).alias("x"), y.round(1).alias("y"), gap=steps > 1.5 * steps.median())
    return " ".join(f"{'M' if gap is None or gap else 'L'}{x:g} {y:g}" for x, y, gap in points.iter_rows())
