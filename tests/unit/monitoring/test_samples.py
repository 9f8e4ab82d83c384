"""A rule's number is an aggregation of a metric over a window, as Prometheus would compute it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from forecastle.monitoring.rules import Aggregation, Rule
from forecastle.monitoring.samples import Sample, measure

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def rule(aggregation: Aggregation, minutes: int = 0, comparison: Literal[">", "<"] = ">") -> Rule:
    return Rule("r", "m", aggregation, comparison, 0.0, "warning", "S.", "A.", window=minutes * MINUTE)


def series(*values: float, labels: tuple[tuple[str, str], ...] = (), metric: str = "m") -> list[Sample]:
    """One value a minute, the last of them now."""
    first = NOON - (len(values) - 1) * MINUTE
    return [Sample(metric, labels, first + number * MINUTE, value) for number, value in enumerate(values)]


def number(asked: Rule, *samples: Sample) -> float | None:
    return measure(asked, [one for one in samples if one.at == NOON], [one for one in samples if one.at < NOON], NOON)


def test_the_last_value_is_that_of_now_and_no_older_one() -> None:
    assert number(rule("last"), *series(3, 5)) == 5
    assert number(rule("last"), *series(3, 5)[:1]) is None


def test_least_and_greatest_are_taken_within_the_window() -> None:
    assert number(rule("min", 2), *series(0, 7, 3, 5)) == 3
    assert number(rule("max", 2), *series(9, 7, 3, 5)) == 7


def test_what_a_counter_gained_bridges_its_starting_anew() -> None:
    assert number(rule("increase", 3), *series(10, 12, 2, 5)) == 2 + 2 + 3


def test_what_a_counter_gained_is_not_known_before_a_whole_window_has_passed() -> None:
    assert number(rule("increase", 3), *series(10, 12, 14)) is None


def test_the_least_is_not_known_of_a_series_that_was_not_there_when_the_window_began() -> None:
    assert number(rule("min", 3), *series(1, 1, 1)) is None
    other = series(7, 7, 7, 7, metric="other")  # there was a look then, and it did not see this one
    assert number(rule("min", 3), *other, *series(1, 1, 1)) is None


def test_of_several_series_the_worst_counts() -> None:
    both = [*series(1, labels=(("span", "day"),)), *series(4, labels=(("span", "hour"),))]
    assert number(rule("last"), *both) == 4
    assert number(rule("last", comparison="<"), *both) == 1


@pytest.mark.parametrize(("slow", "p95"), [(0, 0.095), (6, 0.25), (100, 0.975)])
def test_the_percentile_is_spread_evenly_within_its_bucket(slow: int, p95: float) -> None:
    """100 quick ones below 0.1 s, and so many between 0.1 and 1 s of the last minutes; what was before counts not."""
    quick, all_ = 100.0, 100.0 + slow
    gained = {"0.1": quick, "1.0": all_, "+Inf": all_}
    samples = [
        one
        for bound, count in gained.items()
        for one in series(7.0, 7.0 + count, labels=(("le", bound),), metric="m_bucket")
    ]
    found = number(rule("p95", 1), *samples)
    assert found is not None
    expected = 0.1 * 0.95 * all_ / quick if 0.95 * all_ <= quick else 0.1 + 0.9 * (0.95 * all_ - quick) / slow
    assert found == pytest.approx(expected)
    assert slow != 0 or found == pytest.approx(p95)


def test_without_anything_new_there_is_no_percentile() -> None:
    assert number(rule("p95", 1), *series(7.0, 7.0, labels=(("le", "+Inf"),), metric="m_bucket")) is None
