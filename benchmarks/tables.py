"""Made-up observations, the same every time, for all that is measured."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIMESTAMP
from forecastle.task import Task, make_task

HOUR = timedelta(hours=1)
START = datetime(2015, 1, 1, tzinfo=UTC)


def hourly(series: int, hours: int, start: datetime = START, seed: int = 0) -> pl.DataFrame:
    """Return a table of hourly observations of ``y``, a daily course with noise, known at the end of their hour."""
    random = np.random.default_rng(seed)
    times = pl.datetime_range(start, start + (hours - 1) * HOUR, "1h", time_unit="us", eager=True)
    number = pl.Series(np.repeat(np.arange(series, dtype=np.uint32), hours))
    place = pl.Series(np.tile(np.arange(hours, dtype=np.uint32), series))
    course = np.tile(10 * np.sin(np.arange(hours) * (2 * np.pi / 24)), series)
    known = (times + HOUR).gather(place)
    return pl.DataFrame(
        {
            SERIES: pl.Series([f"s{number:05d}" for number in range(series)]).gather(number),
            TIMESTAMP: times.gather(place),
            AVAILABLE_AT: known,
            COLLECTED_AT: known,
            "y": np.round(course + random.normal(size=series * hours), 2),
        }
    ).rechunk()


def hourly_task(**fields: object) -> Task:
    """Return a task for such observations, one step ahead, with these fields besides."""
    data: dict[str, object] = {
        "name": "bench",
        "domain": "environmental",
        "frequency": "1h",
        "horizon": "1h",
        "target": "y",
        "source": {"provider": "file", "path": "table.parquet"},
        "columns": {"y": {"minimum": -1000, "maximum": 1000}},
    }
    return make_task(data | fields)
