"""Durations as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forecastle.duration import age_text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(minutes=42, seconds=59), "42 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(hours=4, minutes=12), "4 h 12 min"),
        (timedelta(days=2, hours=5, minutes=1), "2 d 5 h"),
        (timedelta(days=3), "3 d"),
    ],
)
def test_an_age_is_written_in_its_two_largest_units(age: timedelta, text: str) -> None:
    assert age_text(age) == text
