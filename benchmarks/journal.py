"""The journal after a year: three series, forecast 24 steps ahead every hour, 630 000 outcomes of one model.

What every live pass, every scrape and the page ask it. The year is written once, in passes of a month.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.race import Bar, Race, Side, Work
from benchmarks.tables import HOUR, START
from forecastle.frame import TIME
from forecastle.models.intervals import follow, outcome_weight
from forecastle.monitoring import metrics
from forecastle.monitoring.journal import FIGURES, FORECAST, Journal, identified
from forecastle.monitoring.outcomes import live_scores

SERIES, STEPS, MONTH = 3, 24, 730
TASK, MODEL, COVERAGE = "bench", "1", 0.9
SIDES_BARS = {"tally": 2.0, "metrics": 0.5, "scores of 30 days": 0.5}

RACES = (
    Race(
        "journal-year",
        "The journal after a year",
        "journal",
        8760,
        200,
        tuple(SIDES_BARS),
        tuple(Bar("seconds", most, side=side) for side, most in SIDES_BARS.items()),
    ),
)


def prepare(folder: Path, size: int) -> None:
    """Forecast and score so many hours."""
    with _journal(folder) as journal:
        for first in range(0, size, MONTH):
            made = _forecasts(first, min(first + MONTH, size))
            journal.record(made)
            random = np.random.default_rng(first)
            journal.score(
                identified(made).with_columns(
                    pl.Series("actual", random.normal(size=made.height)),
                    (pl.col("timestamp") + HOUR).alias("scored_at"),
                )
            )


def check(folder: Path, size: int) -> None:
    """Compare the tally with one followed by hand from all outcomes."""
    with _journal(folder) as journal:
        now = journal.outcomes(TASK)["scored_at"].max()
        assert isinstance(now, datetime)
        tally = journal.tally(TASK, MODEL, now, COVERAGE)
        rows = journal.outcomes(TASK).with_columns(pl.len().over("series_id", "timestamp").alias("shared"))
        rows = rows.sort("timestamp", "horizon").with_columns(
            weight=pl.col("shared").map_elements(lambda shared: float(outcome_weight(shared)), pl.Float64),
            missed=(pl.col("actual") < pl.col("lower")) | (pl.col("actual") > pl.col("upper")),
        )
        assert len(tally) == SERIES * (STEPS + 1)
        for (series,), own in rows.group_by("series_id"):
            whole, ahead = 0.0, [0.0] * (STEPS + 1)
            for horizon, missed, weight in own.select("horizon", "missed", "weight").iter_rows():
                whole, ahead[horizon] = follow(whole, ahead[horizon], missed, weight, COVERAGE)
            expected = [whole, *ahead[1:]]
            assert np.allclose([tally[str(series), step] for step in range(STEPS + 1)], expected), series


def _journal(folder: Path) -> Journal:
    return Journal(f"sqlite:///{folder / 'journal.db'}")


def _forecasts(first: int, last: int) -> pl.DataFrame:
    origins = pl.datetime_range(START + first * HOUR, START + (last - 1) * HOUR, "1h", time_unit="us", eager=True)
    rows = (
        pl.DataFrame({"origin": origins})
        .join(pl.DataFrame({"series_id": [f"s{number}" for number in range(SERIES)]}), how="cross")
        .join(pl.DataFrame({"horizon": range(1, STEPS + 1)}, schema={"horizon": pl.Int64}), how="cross")
    )
    fixed = {"task": TASK, "model_version": MODEL, "data_version": "d", "estimator": "ridge", "drifted": False}
    numbers = {"value": 0.0, "lower": -1.5, "upper": 1.5, "last": 0.1}
    return rows.with_columns(
        (pl.col("origin") + pl.col("horizon") * timedelta(hours=1)).cast(TIME).alias("timestamp"),
        (pl.col("origin") + HOUR).cast(TIME).alias("issued_at"),
        *(pl.lit(value).alias(name) for name, value in (fixed | numbers).items()),
    ).select(name for name in FORECAST if name != "forecast_id")


def _ask(name: str) -> Side:
    def load(folder: Path, size: int) -> Work:
        journal, now = _journal(folder), START + (size + STEPS + 2) * HOUR
        journal.heartbeats(TASK)
        work: dict[str, Work] = {
            "tally": lambda: journal.tally(TASK, MODEL, now, COVERAGE),
            "metrics": lambda: list(metrics.readings(journal, TASK, now)),
            "scores of 30 days": lambda: live_scores(journal.outcomes(TASK, now - timedelta(days=30), FIGURES)),
        }
        return work[name]

    return load


SIDES: dict[str, Side] = {name: _ask(name) for name in SIDES_BARS}
