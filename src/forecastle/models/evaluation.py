"""How good forecasts were: one definition for back-test and live scores, always on the same rows for every method.

A scored row has ``actual``, ``value`` (the forecast), ``last`` (what persistence forecasts), and where there is an
interval ``lower`` and ``upper``; a row without actual, value or last is left out for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

DRAWS = 1_000  # of a bootstrap
FEWEST_WEEKS = 8  # it draws from: of fewer an interval would promise more than it keeps
FORECAST_COLUMNS = ("series_id", "origin", "horizon", "timestamp", "value", "lower", "upper", "actual")

_ERROR = pl.col("value") - pl.col("actual")
_NAIVE_ERROR = pl.col("last") - pl.col("actual")

METRICS: dict[str, pl.Expr] = {
    # root of the mean squared error, mean absolute error: in the target's unit
    "rmse": (_ERROR**2).mean().sqrt(),
    "mae": _ERROR.abs().mean(),
    # share of the variance explained: 1 - sum of squared errors / sum of squared deviations from the mean
    "r2": 1 - (_ERROR**2).sum() / ((pl.col("actual") - pl.col("actual").mean()) ** 2).sum(),
    # 1 - RMSE / RMSE of persistence on the same rows
    "skill": 1 - (_ERROR**2).mean().sqrt() / (_NAIVE_ERROR**2).mean().sqrt(),
    # share of the truths inside the interval, its ends included
    "coverage": pl.col("actual").is_between(pl.col("lower"), pl.col("upper")).mean(),
    "n": pl.len(),
}


def scored_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows every method can be scored on: actual, value and last are all there."""
    needed = ("actual", "value", "last")
    numbers = rows.with_columns(pl.col(name).cast(pl.Float64).fill_nan(None) for name in (*needed, "lower", "upper"))
    return numbers.drop_nulls(needed)


def scores(rows: pl.DataFrame) -> dict[str, Any]:
    """Return RMSE, MAE, R², skill, coverage and n, pooled and for each ``horizon`` (in steps).

    A figure that cannot be had (no row, or a truth that never varies) is None.
    """
    table = scored_rows(rows)
    pooled = _finite(table.select(**METRICS).row(0, named=True))
    horizons = table.group_by("horizon").agg(**METRICS).sort("horizon")
    return {**pooled, "horizons": [_finite(row) for row in horizons.iter_rows(named=True)]}


def scores_by_series(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the pooled figures of each series."""
    table = scored_rows(rows).group_by("series_id").agg(**METRICS).sort("series_id")
    return {row.pop("series_id"): _finite(row) for row in table.iter_rows(named=True)}


def skill_interval(rows: pl.DataFrame, level: float = 0.95) -> tuple[float, float] | None:
    """Return the interval in which the pooled skill lies with the given confidence; None for fewer than eight weeks.

    A block bootstrap (Künsch 1989): whole weeks of origins, all series and steps together, are drawn anew, so that
    errors that resemble their neighbours' stay beside them. The seed is fixed: the same rows give the same interval.
    """
    table = scored_rows(rows)
    blocks = (
        table.group_by(pl.col("origin").dt.truncate("1w").alias("block"))
        .agg(own=(_ERROR**2).sum(), naive=(_NAIVE_ERROR**2).sum())
        .sort("block")
    )
    if blocks.height < FEWEST_WEEKS or not blocks["naive"].sum():
        return None
    drawn = np.random.default_rng(0).integers(0, blocks.height, (DRAWS, blocks.height))
    own, naive = (blocks[name].to_numpy()[drawn].sum(axis=1) for name in ("own", "naive"))
    skill = 1 - np.sqrt(own[naive > 0] / naive[naive > 0])
    low, high = np.quantile(skill, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures with what is not a finite number as None."""
    return {
        name: None if isinstance(value, float) and not abs(value) < float("inf") else value
        for name, value in figures.items()
    }
