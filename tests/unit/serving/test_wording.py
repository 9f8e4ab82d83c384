"""How numbers, times and durations are written for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forecastle.serving import wording
from forecastle.task import Task


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (1.25, 1, "1.2"),
        (-3.0, 1, "−3.0"),
        (-0.04, 1, "0.0"),
        (12345.6, 0, "12,346"),
        (None, 2, "–"),
        (float("nan"), 2, "–"),
    ],
)
def test_a_number_has_its_decimals_a_real_minus_and_no_negative_zero(
    value: float | None, decimals: int, text: str
) -> None:
    assert wording.number(value, decimals) == text


def test_a_signed_share_says_plus_and_a_missing_one_is_a_dash() -> None:
    assert wording.percent(0.2214, 1, signed=True) == "+22.1 %"
    assert wording.percent(-0.05, 0, signed=True) == "−5 %"
    assert wording.percent(None) == "–"


def test_a_time_is_written_in_the_zone_of_the_task(task: Task) -> None:
    assert wording.clock(datetime(2013, 7, 1, 2, tzinfo=UTC), task) == "Sun 30 Jun, 22:00"
    assert wording.day(datetime(2013, 7, 1, 2, tzinfo=UTC), task) == "30 Jun 2013"


def test_a_time_of_another_year_is_written_with_it(task: Task) -> None:
    moment = datetime(2013, 7, 1, 2, tzinfo=UTC)
    assert wording.clock(moment, task, moment + timedelta(days=299)) == "Sun 30 Jun, 22:00"
    assert wording.clock(moment, task, moment + timedelta(days=900)) == "Sun 30 Jun 2013, 22:00"


def test_where_a_step_is_a_day_a_time_is_written_as_its_day(task: Task) -> None:
    daily = task.model_copy(update={"frequency": timedelta(days=1)})
    assert wording.clock(datetime(2013, 7, 1, 12, tzinfo=UTC), daily) == "Mon 1 Jul"


def test_durations_are_spoken_in_the_singular_and_the_plural() -> None:
    assert wording.spoken(timedelta(hours=1)) == "1 hour"
    assert wording.spoken(timedelta(minutes=10)) == "10 minutes"


def test_an_interval_without_an_end_is_a_dash() -> None:
    assert wording.interval(-1.0, 2.0, 1) == "−1.0 to 2.0"
    assert wording.interval(None, 2.0, 1) == "–"
