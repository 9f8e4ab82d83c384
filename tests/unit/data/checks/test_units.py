"""Another unit under the same name is told from storms, fronts and revisions by what is known already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from forecastle.data.quality_check import Finding, judge
from forecastle.frame import conform
from forecastle.task import Task

HOUR = timedelta(hours=1)
NOW = datetime(2024, 1, 10, tzinfo=UTC)
Y = pl.col("y")
NEWEST = pl.col("timestamp") == NOW - HOUR


@pytest.fixture
def free(small_task) -> Task:
    """An hourly task that asks a source without saying what range its values have."""
    source = {"provider": "http-json", "http_json": {"url": "https://a.example/{series}", "rows": "r", "time": "t"}}
    return small_task(source=source, series=[{"id": "a"}, {"id": "b"}])


@pytest.fixture
def known(observations) -> pl.DataFrame:
    """Nine days of a daily cycle with noise, up to an hour before now."""
    rows = observations(hours=9 * 24, start=NOW - timedelta(days=9), step=HOUR)
    return conform(rows.with_columns(collected_at=pl.lit(NOW)), ["y", "x"])


def jump(task: Task, known: pl.DataFrame, came: pl.DataFrame, hours: int = 48) -> Finding:
    """Judge the last hours of what came against what was known of them, except of the newest."""
    start = NOW - hours * HOUR
    judged = judge(task, came.filter(pl.col("timestamp") >= start), start, NOW, NOW, known.filter(~NEWEST))[0]
    return next(one for one in judged.findings if one.check == "unit-jump")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Y * 1.8 + 32, "1.8 times +32"),
        (Y + 273.15, "+273"),
        (Y * 3.6, "3.6 times"),
        (Y * 1000, "1e+03 times"),
        (Y / 100, "0.01 times"),
        (-Y, "-1 times"),
        ((Y * 1.8 + 32).round(0), "1.79 times +32"),
    ],
)
def test_another_unit_of_all_series_fails_the_batch_and_is_named(free, known, other, said):
    found = jump(free, known, known.with_columns(other.alias("y")))
    assert (found.verdict, found.scope) == ("fail", "batch") and f"y of a is {said}" in found.found


def test_another_unit_of_one_series_withholds_it(free, known):
    one = known.with_columns(pl.when(pl.col("series_id") == "b").then(Y * 3.6).otherwise(Y))
    found = jump(free, known, one)
    assert (found.verdict, found.withholds) == ("fail", ("b",))


@pytest.mark.parametrize(
    "honest",
    [
        Y,
        pl.when(NEWEST).then(Y + 25).otherwise(Y),
        Y + pl.int_range(pl.len()) % 3 * 0.2,
        pl.when(pl.col("timestamp") > NOW - 24 * HOUR).then(Y + 3).otherwise(Y),
        Y * 1.01 + 0.2,
        pl.when(pl.col("timestamp") > NOW - 10 * HOUR).then(None).otherwise(Y),
        Y.shift(1),
    ],
    ids=["nothing new", "a front", "small revisions", "a revised day", "a better calibration", "nulls", "an hour late"],
)
def test_what_weather_and_revisions_do_is_no_jump(free, known, honest):
    assert jump(free, known, known.with_columns(honest.alias("y"))).verdict in ("pass", "warn")


def test_zeros_that_stay_zeros_hide_no_jump(free, known):
    rain = known.with_columns(pl.when(pl.int_range(pl.len()) % 4 == 0).then(Y.abs() + 1).otherwise(0.0).alias("y"))
    assert jump(free, rain, rain).verdict == "pass"
    assert jump(free, rain, rain.with_columns(Y / 25.4)).verdict == "fail"


def test_hours_that_nobody_knew_are_held_against_the_days_before(free, known):
    before = known.filter(pl.col("timestamp") < NOW - 12 * HOUR)
    came = known.filter(pl.col("timestamp") >= NOW - 12 * HOUR)
    start = NOW - 12 * HOUR

    def found(rows: pl.DataFrame) -> Finding:
        judged = judge(free, rows, start, NOW, NOW, before)[0]
        return next(one for one in judged.findings if one.check == "unit-jump")

    assert found(came).verdict == "pass"
    assert found(came.with_columns(Y + 10)).verdict == "pass"
    assert found(came.with_columns(Y * 1.8 + 32)).verdict == "fail"
    assert found(came.filter(NEWEST).with_columns(Y * 1.8 + 32)).verdict == "warn"  # one hour proves nothing


def test_without_a_past_nothing_is_compared(free, known):
    found = jump(free, known.clear(), known)
    assert found.verdict == "pass" and "nothing is known" in found.expected


def test_a_value_that_is_masked_anyway_moves_nothing(free, known):
    bounded = free.model_copy(
        update={"columns": {**free.columns, "y": free.columns["y"].model_copy(update={"maximum": 30})}}
    )
    one = known.with_columns(pl.when(NEWEST).then(9999.0).otherwise(Y).alias("y"))
    assert jump(bounded, known, one).verdict == "pass"
    assert jump(free, known, one).verdict == "warn"
