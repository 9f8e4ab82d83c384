"""What the training data looks like: a Reference of numbers, and a page for people.

The Reference is computed once, from the features a model is trained on, and kept with the model: the page shows it, and
drift is measured against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.pages import save_page
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.task import Task

Numbers = npt.NDArray[np.float32]
LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
MOST_SERIES = 50  # shown on the page
WIDTH, HEIGHT, POINTS = 1000, 80, 500  # of a drawn line


@dataclass(frozen=True, eq=False)
class Reference:
    """Numbers about the features of a training table; where a feature was never seen they are NaN.

    ``null_share``, ``minimum`` and ``maximum`` have one number a feature, shape (F,); ``quantiles`` has a row for each
    of LEVELS, shape (L, F).
    """

    names: tuple[str, ...]
    rows: int
    null_share: Numbers
    minimum: Numbers
    maximum: Numbers
    quantiles: Numbers

    def to_dict(self) -> dict[str, Any]:
        """Return the Reference as plain data for JSON; a number that is missing is None."""
        arrays = {name: _plain(getattr(self, name)) for name in ("null_share", "minimum", "maximum", "quantiles")}
        return {"names": list(self.names), "rows": self.rows, "levels": list(LEVELS), **arrays}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reference:
        """Return the Reference that ``to_dict`` wrote, bit for bit."""
        null_share, minimum, maximum, quantiles = (
            np.array(data[name], dtype=np.float32) for name in ("null_share", "minimum", "maximum", "quantiles")
        )
        quantiles = quantiles.reshape(len(LEVELS), len(data["names"]))
        return cls(tuple(data["names"]), int(data["rows"]), null_share, minimum, maximum, quantiles)


def reference(names: Sequence[str], matrix: Numbers) -> Reference:
    """Compute the Reference of a feature matrix: rows x features, float32, NaN where a value is missing."""
    values = np.asarray(matrix, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"expected a matrix of {len(names)} features, found the shape {values.shape}")
    seen = [column[~np.isnan(column)] for column in values.T]
    quantiles = np.full((len(LEVELS), len(names)), np.nan, dtype=np.float32)
    for number, column in enumerate(seen):
        if column.size:
            quantiles[:, number] = np.quantile(column, LEVELS)
    rows = values.shape[0]
    return Reference(
        names=tuple(names),
        rows=rows,
        null_share=_each(1 - column.size / rows if rows else np.nan for column in seen),
        minimum=_each(column.min() if column.size else np.nan for column in seen),
        maximum=_each(column.max() if column.size else np.nan for column in seen),
        quantiles=quantiles,
    )


def save_profile(path: Path, task: Task, table: pl.DataFrame, reference: Reference) -> Path:
    """Write the page of a training table (observations, see ``frame``): each series, each column, each feature.

    The page is one file without scripts. It draws the target of the first 50 series; the tables hold all of them.
    """
    series = table.partition_by(SERIES, as_dict=True, maintain_order=True, include_key=True)
    tables = {str(key[0]): rows.sort(TIMESTAMP) for key, rows in sorted(series.items())}
    return save_page(
        path,
        "profile.html",
        task=task,
        rows=table.height,
        series=[_extent(name, rows, task) for name, rows in tables.items()],
        columns=[_column(name, rows, column) for name, rows in tables.items() for column in task.columns],
        lines=[(name, _line(rows, task.target)) for name, rows in list(tables.items())[:MOST_SERIES]],
        features=_features(reference),
        most_series=MOST_SERIES,
    )


def _extent(name: str, rows: pl.DataFrame, task: Task) -> dict[str, Any]:
    first, last = rows[TIMESTAMP][0], rows[TIMESTAMP][-1]
    expected = int((last - first) / task.frequency) + 1
    missing = None if task.grid == "observed" else max(0, expected - rows[TIMESTAMP].n_unique())
    return {"series": name, "first": first, "last": last, "rows": rows.height, "missing": missing}


def _column(series: str, rows: pl.DataFrame, name: str) -> dict[str, Any]:
    values = rows[name].drop_nulls()
    spread = [values.quantile(level, "linear") for level in (0, 0.05, 0.5, 0.95, 1)]
    null_share = rows[name].null_count() / rows.height
    return {"series": series, "name": name, "null_share": null_share, "mean": values.mean(), "spread": spread}


def _features(reference: Reference) -> list[dict[str, Any]]:
    middle = [LEVELS.index(level) for level in (0.05, 0.5, 0.95)]
    return [
        {
            "name": name,
            "null_share": float(reference.null_share[number]),
            "spread": [
                None if np.isnan(value) else float(value)
                for value in (
                    reference.minimum[number],
                    *reference.quantiles[middle, number],
                    reference.maximum[number],
                )
            ],
        }
        for number, name in enumerate(reference.names)
    ]


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


def _each(numbers: Any) -> Numbers:
    return np.fromiter(numbers, dtype=np.float32)


def _plain(array: Numbers) -> list[Any]:
    return [_plain(item) if item.ndim else None if np.isnan(item) else float(item) for item in array]
