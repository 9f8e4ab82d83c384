"""What a table of one's own is like is said before anything is computed from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from forecastle.data.first_look import ended, short, spacing, span, unused, zoneless

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def rows(*minutes: float, series: str = "a") -> pl.DataFrame:
    times = [BEGIN + timedelta(minutes=one) for one in minutes]
    return pl.DataFrame(
        {"series_id": series, "timestamp": times}, schema_overrides={"timestamp": pl.Datetime("us", "UTC")}
    )


def test_a_table_on_its_grid_has_nothing_to_be_said_of(small_task) -> None:
    table = pl.concat([rows(0, 60, 120), rows(60, 120, 180, series="b")])
    assert list(spacing(small_task(), table)) == []
    assert span(table) == "6 rows of 2 series, 2024-01-01T00:00:00Z to 2024-01-01T03:00:00Z"
    columns = {"series_id": pl.String(), "timestamp": pl.String(), "y": pl.Float64(), "x": pl.Int64()}
    assert unused(small_task(), columns) is None


@pytest.mark.parametrize(
    ("minutes", "frequency", "said"),
    [
        (
            (0, 30, 60, 90),
            "1h",
            "mostly lie 30m apart (100%), not 1h: of each step only the last row counts; --frequency 30m",
        ),
        (
            (0, 60, 120, 180),
            "30m",
            "mostly lie 1h apart (100%), not 30m: most steps are missing values; --frequency 1h",
        ),
        ((0, 7, 14, 21), "1h", "mostly lie 7m apart (100%), not 1h: of each step only the last row counts."),
        ((0, 60, 120, 420), "1h", "1 of 3 neighbouring rows lie further apart, up to 5h (a from 2024-01-01T02:00:00Z)"),
        (
            (0, 60, 127, 180, 240),
            "1h",
            "1 of 5 rows lie between whole steps of 1h, such as a's of 2024-01-01T02:07:00Z",
        ),
    ],
)
def test_rows_that_do_not_lie_on_the_grid_are_told(small_task, minutes, frequency: str, said: str) -> None:
    found = list(spacing(small_task(frequency=frequency), rows(*minutes)))
    assert any(said in one for one in found), found


def test_on_an_observed_grid_there_are_no_holes(small_task) -> None:
    assert list(spacing(small_task(grid="observed"), rows(0, 60, 120, 1440, 1500))) == []


def test_a_table_too_short_to_train_on_is_told_with_what_a_training_wants(small_task) -> None:
    said = short(small_task(), rows(0, 60, 600))
    assert said is not None and "spans 0 days; a training wants" in said and "min_history" in said
    assert short(small_task(training={"min_history": "5h"}), rows(0, 60, 600)) is None


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["2024-01-01T00:00", "2024-01-01T01:00"], True),
        (["2024-01-01", "2024-01-02"], True),
        (["2024-01-01T00:00Z", "2024-01-01T02:00+01:00"], False),
        ([datetime(2024, 1, 1)], True),
        ([BEGIN], False),
    ],
)
def test_times_without_a_zone_are_told_where_the_task_names_another_than_utc(small_task, times, told: bool) -> None:
    said = zoneless(small_task(timezone="Europe/Berlin"), pl.Series(times))
    assert (said is not None) is told
    assert said is None or "count as UTC, not as Europe/Berlin" in said
    assert zoneless(small_task(timezone="UTC"), pl.Series(times)) is None


def test_a_table_is_told_to_have_ended_only_where_the_gate_would_refuse_it(small_task) -> None:
    task = small_task()
    last = BEGIN + task.knowable_after + task.gate.max_age
    assert ended(task, BEGIN, last) is None
    said = ended(task, BEGIN, last + timedelta(days=3))
    assert said is not None and "ended 3 days ago, at 2024-01-01T00:00:00Z" in said
    assert "add --now 2024-01-01T01:00:00Z to the commands" in said
