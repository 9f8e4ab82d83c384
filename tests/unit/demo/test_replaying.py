"""The clock of a replay."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from forecastle.demo.replaying import running_clock

START = datetime(2013, 12, 1, tzinfo=UTC)


def test_a_clock_of_no_speed_stands() -> None:
    clock = running_clock(START, 0)
    assert clock() == clock() == START


def test_a_fast_clock_runs_ahead_by_its_speed() -> None:
    clock, began = running_clock(START, 3600), time.monotonic()
    time.sleep(0.02)
    passed = clock() - START
    assert timedelta(hours=0.02) <= passed <= timedelta(hours=time.monotonic() - began + 0.01)
