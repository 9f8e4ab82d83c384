"""The history of 10 000 series, an hour of it appended and 200 hours read; and ten years of 100 series as of a time.

The first holds 200 hours, the last of them appended hour by hour as a collector does; every run appends the next hour
to its own copy. The second was collected month by month; one row in fifty was revised a day later, and it is read as of
the middle of its last year.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import polars as pl

from benchmarks.race import Bar, Race, Side, Work
from benchmarks.tables import HOUR, START, hourly
from forecastle.data.history import History
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, TIMESTAMP

HOURS = 200
BY_HOUR = 20
YEARS = 10
COLUMNS = ("y",)

RACES = (
    Race(
        "history-wide",
        "A history of 10 000 series, hourly",
        "history",
        10_000,
        200,
        ("append an hour", "read 200 hours"),
        (Bar("seconds", 1.0, side="append an hour"), Bar("seconds", 2.0, side="read 200 hours")),
    ),
    Race(
        "history-long",
        "Ten years of 100 series, hourly, read as of a time",
        "history",
        100,
        1,
        ("read as of",),
        (Bar("seconds", 2.0, side="read as of"), Bar("mib", 2048.0, side="read as of")),
        gib=4,
    ),
)


def prepare(folder: Path, size: int) -> None:
    """Fill the history: a long one of up to 100 series, or a wide one."""
    if size > 100:
        table = hourly(size, HOURS)
        history = History(folder / "history", COLUMNS)
        since = START + (HOURS - BY_HOUR) * HOUR
        history.append(table.filter(pl.col(TIMESTAMP) < since))
        for hour in range(BY_HOUR):
            history.append(table.filter(pl.col(TIMESTAMP) == since + hour * HOUR))
    else:
        table = hourly(size, YEARS * 8766)
        history = History(folder / "history", COLUMNS)
        revised = table.filter(pl.int_range(pl.len()) % 50 == 0).with_columns(
            pl.col("y") + 1, *(pl.col(name) + timedelta(days=1) for name in (AVAILABLE_AT, COLLECTED_AT))
        )
        for _, month in table.group_by(pl.col(TIMESTAMP).dt.truncate("1mo"), maintain_order=True):
            history.append(month)
        history.append(revised)


def check(folder: Path, size: int) -> None:
    """Compare what is read with what was appended."""
    read = History(folder / "history", COLUMNS).read()
    names = read["series_id"].n_unique()
    table = hourly(names, read.height // names)
    if (folder / "history" / "append").exists() or names > 100:
        assert read.equals(table.select(read.columns)), "what was read is not what was appended"
    else:
        revised = read.join(table, on=["series_id", TIMESTAMP]).filter(pl.col("y") != pl.col("y_right"))
        assert read.height == table.height and 0 < revised.height <= read.height // 50 + names


def _append(folder: Path, size: int) -> Work:
    copy = Path(tempfile.mkdtemp(dir=folder, prefix="append-"))
    shutil.copytree(folder / "history", copy, dirs_exist_ok=True)
    hour = hourly(size, 1, START + HOURS * HOUR, seed=1)
    history = History(copy, COLUMNS)

    def work() -> object:
        found = history.append(hour)
        assert found.new == size
        return found

    return work


def _read(folder: Path, size: int) -> Work:
    history, start = History(folder / "history", COLUMNS), START
    history.read(start=START, end=START + HOUR)

    def work() -> object:
        found = history.read(start=start)
        assert found.height == size * HOURS
        return found

    return work


def _read_as_of(folder: Path, size: int) -> Work:
    history, moment = History(folder / "history", COLUMNS), START + (YEARS * 8766 - 4383) * HOUR
    history.read(as_of=START + HOUR, end=START + HOUR)

    def work() -> object:
        found = history.read(as_of=moment)
        assert found.height == size * (YEARS * 8766 - 4383)
        return found

    return work


SIDES: dict[str, Side] = {"append an hour": _append, "read 200 hours": _read, "read as of": _read_as_of}
