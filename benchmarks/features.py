"""Features of a long table: 24 lags, 48 and 168 hours back, windows of 3, 6 and 24 hours, and the calendar: 42.

mlforecast's row is the target's time (its lag 1 is the hour before), forecastle's is the origin (its lag 0 is the
origin itself), so forecastle's row of 7:00 with the calendar one step ahead is mlforecast's row of 8:00. Both make the
same 42 columns for every row and end with a long Polars table. forecastle reads what its history gives: Float64, with
the times at which a row was known and collected, and writes Float32. mlforecast keeps the width it is given; it is
given the same Float64 ("mlforecast") or Float32, its leanest ("mlforecast-float32"), both from Polars, where it is
faster than from pandas, and in order already; it runs in one thread, which is its default, as forecastle does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.race import Bar, Race, Side, Work
from benchmarks.tables import hourly, hourly_task
from forecastle.data.panel import build_panel
from forecastle.data.transformation import calendar, compute, lags, make_recipe, rolling
from forecastle.frame import SERIES, TIMESTAMP

WINDOWS = (3, 6, 24)
LAGS = (*range(1, 25), 48, 168)
NAMES = (
    *(f"lag_{lag}" for lag in LAGS),
    *(f"{statistic}_{width}" for width in WINDOWS for statistic in ("mean", "std", "min", "max")),
    *("minute", "weekday", "year_sin", "year_cos"),
)
FEW = 2_000
OTHERS = ("mlforecast", "mlforecast-float32")
DAY = 86_400_000_000


def _race(name: str, title: str, size: int, quick: int, time: float, memory: float, repeats: int, gib: float) -> Race:
    bars = (Bar(figure, most, other) for other in OTHERS for figure, most in (("seconds", time), ("mib", memory)))
    return Race(name, title, "features", size, quick, ("forecastle", *OTHERS), tuple(bars), repeats, gib)


RACES = (
    _race("features-1m", "42 features of 1 M rows", 1_000_000, 50_000, 1.0, 0.9, 7, 3),
    _race("features-20m", "42 features of 20 M rows", 20_000_000, 0, 0.6, 0.7, 3, 12),
)


def prepare(folder: Path, size: int) -> None:
    """Write the table: series of 20 000 hours, or of 500 where there are few."""
    hours = 20_000 if size >= 1_000_000 else 500
    hourly(size // hours, hours).write_parquet(folder / "table.parquet", compression="uncompressed")


def check(folder: Path, size: int) -> None:
    """Compare the features, to Float32's precision, of hours that both have.

    A running sum in Float32 drifts: mlforecast's deviations are then off by some thousandths.
    """
    table = hourly(size // 500, 500)
    own = _forecastle([table]).filter(pl.int_range(pl.len()).over(SERIES).is_between(167, 498))
    for name in OTHERS:
        other = _mlforecast([_input(table, name)])
        other = other.filter(pl.int_range(pl.len()).over(SERIES).is_between(168, 499))
        for feature in NAMES:
            left, right = (one[feature].cast(pl.Float64).to_numpy() for one in (own, other))
            assert len(left) == len(right) > size // 2, (name, feature, len(left), len(right))
            near = 1e-5 if name != "mlforecast-float32" else 1e-2 if feature.startswith("std") else 1e-4
            assert np.allclose(left, right, rtol=near, atol=near), (name, feature, np.abs(left - right).max())


def forecastle(folder: Path, size: int) -> Work:
    """Lay the table on its grid, compute, and name the columns."""
    held = [_read(folder)]
    _forecastle([held[0].head(FEW)])
    return lambda: _forecastle(held)


def _forecastle(held: list[pl.DataFrame]) -> pl.DataFrame:
    table = held.pop()  # nobody else holds it, as where it is read from the history
    task = hourly_task(features={"lags": [lag - 1 for lag in LAGS], "windows": list(WINDOWS)})
    panel = build_panel(table, task)
    recipe = make_recipe(task, panel)
    keys = table.select(SERIES, TIMESTAMP, "y")
    del table
    found = compute((lags, rolling, calendar), recipe, panel, np.arange(panel.size), horizon=1)
    assert panel.size == keys.height and len(found.names) == len(NAMES)
    return keys.with_columns(pl.Series(name, found.matrix[:, place]) for place, name in enumerate(NAMES))


def _other(name: str) -> Side:
    def load(folder: Path, size: int) -> Work:
        table = _read(folder)
        _mlforecast([_input(table.head(FEW), name)])
        held = [_input(table, name)]
        del table
        return lambda: _mlforecast(held)

    return load


SIDES: dict[str, Side] = {"forecastle": forecastle, **{name: _other(name) for name in OTHERS}}


def _mlforecast(held: list[pl.DataFrame]) -> pl.DataFrame:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingMin, RollingStd

    kinds = (RollingMean, RollingStd, RollingMin, RollingMax)
    forecaster = MLForecast(
        models=[],
        freq="1h",
        lags=list(LAGS),
        lag_transforms={1: [kind(window_size=width) for width in WINDOWS for kind in kinds]},
        date_features=list(_calendar()),
    )
    found: Any = forecaster.preprocess(held.pop(), SERIES, TIMESTAMP, "y", static_features=[], dropna=False)
    renamed: pl.DataFrame = found.rename(dict(zip(found.columns[3:], NAMES, strict=True)))
    return renamed


def _read(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "table.parquet").rechunk()


def _input(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return what mlforecast takes: three columns, of the width the side's name says."""
    table = table.select(SERIES, pl.col(TIMESTAMP).dt.replace_time_zone(None), "y")
    return table.with_columns(pl.col("y").cast(pl.Float32)) if name == "mlforecast-float32" else table


def _calendar() -> tuple[Any, ...]:
    """Return forecastle's four calendar features as mlforecast takes them: functions of the times, named."""

    def turn(times: Any) -> Any:
        return (times.dt.epoch("us") // DAY % 365.25) * (2 * np.pi / 365.25)

    def minute(times: Any) -> Any:
        return (times.dt.hour().cast(pl.Float32) * 60 + times.dt.minute()).cast(pl.Float32)

    def weekday(times: Any) -> Any:
        return (times.dt.weekday() - 1).cast(pl.Float32)

    def year_sin(times: Any) -> Any:
        return turn(times).sin().round(6).cast(pl.Float32)

    def year_cos(times: Any) -> Any:
        return turn(times).cos().round(6).cast(pl.Float32)

    return minute, weekday, year_sin, year_cos
