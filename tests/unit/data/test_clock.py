"""Local clocks and holidays agree with the standard library and the holidays library, time by time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pytest

from forecastle.data.clock import public_holidays, utc_offsets
from forecastle.data.panel import micros

HOUR = timedelta(hours=1)


def offsets_of(times: list[datetime], zone: str) -> list[int]:
    return utc_offsets(np.array([micros(time) for time in times]), zone).tolist()


@pytest.mark.parametrize(
    "zone",
    [
        "UTC",
        "America/New_York",
        "Europe/Oslo",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "America/St_Johns",
        "Africa/Casablanca",
    ],
)
def test_offsets_are_those_of_the_zone_at_every_half_hour_of_two_years(zone):
    times = [datetime(2023, 1, 1, tzinfo=UTC) + number * HOUR / 2 for number in range(2 * 366 * 48)][::7]
    expected = [time.astimezone(ZoneInfo(zone)).utcoffset() // timedelta(microseconds=1) for time in times]
    assert offsets_of(times, zone) == expected


def test_the_clock_changes_at_the_very_hour():
    before, after = datetime(2024, 3, 10, 6, 59, 59, tzinfo=UTC), datetime(2024, 3, 10, 7, tzinfo=UTC)
    assert offsets_of([before, after], "America/New_York") == [-5 * 3_600_000_000, -4 * 3_600_000_000]


def test_times_long_ago_and_far_ahead_have_an_offset_too():
    times = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2099, 7, 1, tzinfo=UTC)]
    expected = [time.astimezone(ZoneInfo("Europe/Oslo")).utcoffset() // timedelta(microseconds=1) for time in times]
    assert offsets_of(times, "Europe/Oslo") == expected


def test_no_times_have_no_offsets():
    assert len(utc_offsets(np.empty(0, dtype=np.int64), "Europe/Oslo")) == 0


@pytest.mark.parametrize("country", ["US", "NO", "DE-BY"])
def test_holidays_are_those_of_the_library(country):
    days = [date(2012, 12, 25) + timedelta(days=number) for number in range(3 * 365)]
    code, _, region = country.partition("-")
    known = holidays.country_holidays(code, subdiv=region or None, years=range(2012, 2017))
    found = public_holidays(np.array([(day - date(1970, 1, 1)).days for day in days]), country)
    assert found.tolist() == [day in known for day in days]


def test_no_days_are_no_holidays():
    assert len(public_holidays(np.empty(0, dtype=np.int64), "US")) == 0
