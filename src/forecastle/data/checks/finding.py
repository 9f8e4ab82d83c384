"""What every check gets and gives: the rows and their Window in, a Finding out.

The rows are the batch as an observation table (see ``frame``), by series and timestamp, with two columns more that no
report shows: ARRIVAL, the place a row had in the answer, and RUN, the number of its series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Literal

import polars as pl

from forecastle.frame import EPOCH, SERIES, TIMESTAMP, iso, observation_schema
from forecastle.task import Task

Verdict = Literal["pass", "warn", "mask", "fail"]
Scope = Literal["batch", "series"]

ARRIVAL, RUN = "__arrival", "__run"
MOST_ROWS = 50
MOST_NAMES = 10
NOTHING = pl.DataFrame()
MICROSECOND = timedelta(microseconds=1)
SAME_SERIES = pl.col(RUN) == pl.col(RUN).shift(1)
"""Whether the row before is of the same series; null in the first row."""


@dataclass(frozen=True)
class Window:
    """What was asked for and what is known around it: the context in which rows are judged.

    ``start`` (inclusive) to ``end`` (exclusive) as of ``now``; ``arrived`` are the types that came, ``series`` each
    series of the rows with its first and last timestamp and number of rows, ``recent`` the observations known before
    the batch came (see ``frame``; empty where nothing is).
    """

    start: datetime
    end: datetime
    now: datetime
    arrived: Mapping[str, pl.DataType]
    series: pl.DataFrame
    recent: pl.DataFrame

    @cached_property
    def names(self) -> frozenset[str]:
        """The series that have rows."""
        return frozenset(self.series[SERIES].drop_nulls())


@dataclass(frozen=True)
class Finding:
    """What one check expected and found, with the offending rows (at most 50).

    A check says ``fail`` where the batch as such fails, and names in ``failing`` the series that fail by themselves;
    what these come to is settled by its scope (``quality_check.judge``), which then fills in the check's name, its
    scope, and the series it ``withholds``. ``masks`` tell of each row whether a column's value becomes null.
    """

    expected: str
    found: str
    rows: pl.DataFrame
    verdict: Verdict = "pass"
    failing: frozenset[str] = frozenset()
    masks: Mapping[str, pl.Expr] = field(default_factory=dict)
    check: str = ""
    scope: Scope = "batch"
    withholds: tuple[str, ...] = ()


def passed(expected: str, found: str = "as expected") -> Finding:
    """Return the finding of a check that met nothing."""
    return Finding(expected, found, NOTHING)


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the first rows as a report shows them."""
    return rows.head(MOST_ROWS).select(name for name in rows.columns if not name.startswith("__"))


def listed(parts: Iterable[str], separator: str = "; ") -> str:
    """Return the first parts of a list, and how many there are more."""
    every = list(parts)
    more = len(every) - MOST_NAMES
    return separator.join([*every[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])])


def when(moment: datetime | None) -> str:
    """Return a time as text; it may be missing where the check of it failed."""
    return "an unknown time" if moment is None else iso(moment)


def counts(rows: pl.DataFrame) -> dict[str, int]:
    """Return how many of these rows each series has."""
    return {name: count for name, count in rows.group_by(SERIES).len().iter_rows() if name is not None}


def too_many(bad: pl.DataFrame, rows: pl.DataFrame, window: Window, limit: float) -> tuple[frozenset[str], bool]:
    """Where a batch has more bad rows than a share of it: the series to blame, and whether the rest has too many too.

    To blame is a series with more of them than that share of its own rows. A single bad row is never too many.
    """
    if bad.height <= max(1.0, limit * rows.height):
        return frozenset(), False
    found, have = counts(bad), dict(window.series.select(SERIES, "rows").iter_rows())
    blamed = over_share(found, window, limit)
    left = bad.height - sum(found[name] for name in blamed)
    of = rows.height - sum(have[name] for name in blamed)
    return blamed, left > max(1.0, limit * of)


def over_share(found: Mapping[str, int], window: Window, limit: float) -> frozenset[str]:
    """Return the series of which more than a share of the rows, and more than one, was found."""
    have = dict(window.series.select(SERIES, "rows").iter_rows())
    return frozenset(name for name, count in found.items() if count > max(1.0, limit * have[name]))


def null_limit(task: Task, name: str) -> float:
    """Return the share of nulls a column may have."""
    own = task.columns[name].max_null_share
    return task.gate.max_null_share if own is None else own


def grid(task: Task, window: Window) -> tuple[datetime, int]:
    """Return the first step of the regular grid in the window, and how many there are that could be known by now."""
    newest = window.now - task.knowable_after - task.source.publication_delay
    first = EPOCH - ((EPOCH - window.start) // task.frequency) * task.frequency
    last = min(window.end - MICROSECOND, newest)
    return first, max((last - first) // task.frequency + 1, 0)


def step_number(task: Task, first: datetime) -> pl.Expr:
    """Return how many steps after ``first`` a row's step begins."""
    return (pl.col(TIMESTAMP).to_physical() - (first - EPOCH) // MICROSECOND) // (task.frequency // MICROSECOND)


def arrange(task: Task, arrived: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what can be read of a batch, in the contract's columns, types and order, and the summary of its series.

    What cannot be read is null. Millions of rows that came in order are not sorted again: the summary tells.
    """
    rows = _readable(task, arrived).with_row_index(ARRIVAL).with_columns(pl.col(SERIES).rle_id().alias(RUN))
    names = rows[SERIES].rle().struct.field("value")
    steady = (pl.col(TIMESTAMP) >= pl.col(TIMESTAMP).shift(1)) | ~SAME_SERIES
    in_time = rows.height > 0 and rows.select((steady.fill_null(pl.col(ARRIVAL) == 0)).all()).item()
    if not in_time or rows[TIMESTAMP].null_count() or names.null_count() or names.n_unique() < len(names):
        rows = _sorted(rows)
    elif not names.is_sorted():
        lengths = rows[RUN].rle().struct.field("len")
        blocks = pl.DataFrame({"name": names, "end": lengths.cum_sum().cast(pl.Int64), "len": lengths}).sort("name")
        order = blocks.select(pl.int_ranges(pl.col("end") - pl.col("len"), "end").explode()).to_series()
        rows = rows[order].with_columns(pl.col(SERIES).rle_id().alias(RUN))
    return rows, _series(rows)


def _readable(task: Task, arrived: pl.DataFrame) -> pl.DataFrame:
    schema = observation_schema(task.columns)
    if arrived.is_empty():
        return pl.DataFrame(schema=schema)
    there = [
        (pl.col(name).cast(dtype, strict=False) if name in arrived.columns else pl.lit(None, dtype=dtype)).alias(name)
        for name, dtype in schema.items()
    ]
    rows = arrived.select(there)
    any_nan = rows.select(pl.any_horizontal(pl.col(name).is_nan().any() for name in task.columns)).item()
    return rows.with_columns(pl.col(name).fill_nan(None) for name in task.columns) if any_nan else rows


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """Sort by series and timestamp, stably, nulls first: by one number, a fifth of the time of a sort by both."""
    ranks = rows[SERIES].drop_nulls().unique().sort()
    rank = pl.col(SERIES).cast(pl.Enum(ranks)).to_physical().cast(pl.Int64)
    at = pl.col(TIMESTAMP).to_physical()
    least, most = rows.select(at.min().alias("least"), at.max().alias("most")).row(0)
    if least is None or (most - least + 2) * (len(ranks) + 1) >= 2**63:
        ordered = rows.sort(rank, at, maintain_order=True)
    else:
        place = (rank + 1).fill_null(0) * (most - least + 2) + (at - least + 1).fill_null(0)
        ordered = rows.sort(place, maintain_order=True)
    return ordered.with_columns(pl.col(SERIES).rle_id().alias(RUN))


def _series(rows: pl.DataFrame) -> pl.DataFrame:
    """Return each series with its first and last timestamp and its number of rows, from where it begins and ends."""
    lengths = rows[RUN].rle().struct.field("len").cast(pl.Int64)
    ends = lengths.cum_sum()
    first, last = rows[TIMESTAMP].gather(ends - lengths), rows[TIMESTAMP].gather(ends - 1)
    return pl.DataFrame(
        [rows[SERIES].gather(ends - 1), first.alias("first"), last.alias("last"), lengths.alias("rows")]
    )
