"""The gate over a batch of 5 M rows: null share, schema, types, volume and duplicates, and the same by Pandera.

Both are given the same Polars table in the history's order; both find nothing in a good batch and, in batches with one
fault each, that fault. Types are part of the schema, on both sides. All of the gate's checks together are held to three
times Pandera's five.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.race import Bar, Race, Side, Work
from benchmarks.tables import HOUR, START, hourly, hourly_task
from forecastle.data.quality_check import CHECKS, judge
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIME, TIMESTAMP

HOURS = 500
FEW = 1_000
FIVE = ("schema", "volume", "null-share", "duplicates")
NULL_SHARE = 0.01
MISSING_SHARE = 0.2

RACES = (
    Race(
        "gate-5m",
        "The gate over 5 M rows",
        "gate",
        5_000_000,
        50_000,
        ("forecastle", "forecastle-all", "pandera"),
        (
            Bar("seconds", 1.0, "pandera"),
            Bar("seconds", 3.0, "pandera", "forecastle-all"),
        ),
        gib=6,
    ),
)


def prepare(folder: Path, size: int) -> None:
    """Write the batch: series of 500 hours, one value in a thousand missing."""
    _table(size).write_parquet(folder / "batch.parquet", compression="uncompressed")


def check(folder: Path, size: int) -> None:
    """Let both judge a good batch, and one with each fault, and compare which checks failed."""
    good = _table(size)
    unknown = pl.int_range(pl.len()) % 40 == 0
    faults = {
        "": good,
        "schema": good.with_columns(pl.col("y").cast(pl.String)),
        "volume": good.filter(pl.int_range(pl.len()).over(SERIES) < HOURS // 2),
        "null-share": good.with_columns(pl.when(~unknown).then("y").alias("y")),
        "duplicates": pl.concat([good, good.head(3).with_columns(pl.col("y") + 1)]).sort(SERIES, TIMESTAMP),
    }
    for fault, table in faults.items():
        expected = {fault} if fault else set()
        own, other = _forecastle(table, FIVE), _pandera(table)
        assert own >= expected and (own or not fault) and (fault or not own), (fault, own)
        assert other >= expected and (fault or not other), (fault, other)


def _table(size: int) -> pl.DataFrame:
    table = hourly(size // HOURS, HOURS)
    return table.with_columns(pl.when(pl.int_range(pl.len()) % 1000 != 7).then("y").alias("y")).rechunk()


def _load(work: Any) -> Side:
    def load(folder: Path, size: int) -> Work:
        table = pl.read_parquet(folder / "batch.parquet").rechunk()
        work(table.head(FEW))
        return lambda: work(table)

    return load


def _window() -> tuple[datetime, datetime, datetime]:
    end = START + HOURS * HOUR
    return START, end, end + HOUR


def _forecastle(table: pl.DataFrame, names: Iterable[str]) -> set[str]:
    """Return the names of the checks that had something to say."""
    task = hourly_task(gate={"max_null_share": NULL_SHARE, "max_missing_share": MISSING_SHARE})
    report, _ = judge(task, table, *_window(), checks={name: CHECKS[name] for name in names})
    return {one.check for one in report.findings if one.verdict != "pass"}


def _all(table: pl.DataFrame) -> set[str]:
    report, _ = judge(hourly_task(), table, *_window())
    return {one.check for one in report.failures}


def _pandera(table: pl.DataFrame) -> set[str]:
    """Return the names of the checks that failed, all of them run."""
    import pandera.polars as pa

    def share(data: Any) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_null().mean() <= NULL_SHARE)

    def volume(data: Any) -> pl.LazyFrame:
        rows = data.lazyframe.group_by(SERIES).len()
        return rows.select((pl.col("len") >= (1 - MISSING_SHARE) * HOURS).all())

    times = {name: pa.Column(TIME) for name in (TIMESTAMP, AVAILABLE_AT, COLLECTED_AT)}
    schema = pa.DataFrameSchema(
        {
            SERIES: pa.Column(pl.String),
            **times,
            "y": pa.Column(pl.Float64, pa.Check(share, name="null-share", ignore_na=False), nullable=True),
        },
        checks=pa.Check(volume, name="volume"),
        unique=[SERIES, TIMESTAMP],
        strict=True,
    )
    try:
        schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        found = {str(one.check) if isinstance(one.check, str) else one.check.name for one in errors.schema_errors}
        return {_named(one) for one in found}
    return set()


def _named(check: str | None) -> str:
    known = {"multiple_fields_uniqueness": "duplicates"}
    return known.get(str(check), "schema" if str(check).startswith("dtype") else str(check))


SIDES: dict[str, Side] = {
    "forecastle": _load(lambda table: _forecastle(table, FIVE)),
    "forecastle-all": _load(_all),
    "pandera": _load(_pandera),
}
