"""Laws of collecting: no span sees more calls than its limit, and what is there is never planned again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.data.backfill import _without
from forecastle.data.budget import SPANS, BudgetGuard
from forecastle.data.ledger import Ledger
from forecastle.declaration import Budget
from forecastle.errors import SourceUnavailable
from forecastle.http import Request

START = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = Request("https://api.example/data")
HOUR = timedelta(hours=1)

calls = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 3)), max_size=40)
stretches = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12)


@settings(deadline=None, max_examples=60)
@given(calls, st.integers(3, 9), st.integers(9, 30))
def test_no_minute_and_no_hour_holds_more_than_its_limit_and_a_wait_is_never_longer_than_needed(asked, minute, hour):
    now, cost, made = START, 1, []
    with TemporaryDirectory() as folder:
        budget = Budget(per_minute=minute, per_hour=hour)
        guard = BudgetGuard("api", budget, lambda _: cost, Ledger(Path(folder) / "ledger.db"), lambda: now)
        for gap, cost in asked:
            now += timedelta(seconds=gap)
            try:
                while wait := guard.charge(ASKED):
                    before = [one for at, one in made if at > now - HOUR]
                    last_minute = [one for at, one in made if at > now - SPANS["minute"]]
                    assert sum(before) + cost > hour or sum(last_minute) + cost > minute
                    now += timedelta(seconds=wait)
            except SourceUnavailable:
                assert sum(one for at, one in made if at > now - HOUR) + cost > hour
            else:
                made.append((now, cost))
    for at, _ in made:
        assert sum(one for then, one in made if at - SPANS["minute"] < then <= at) <= minute
        assert sum(one for then, one in made if at - HOUR < then <= at) <= hour


@settings(deadline=None, max_examples=60)
@given(stretches, st.integers(0, 40), st.integers(1, 50))
def test_what_is_planned_and_what_is_there_make_the_whole_without_overlap(brought, first, length):
    whole = (START + first * HOUR, START + (first + length) * HOUR)
    hours: set[datetime] = set()
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        for begin, long in brought:
            ledger.cover("task", "asked", START + begin * HOUR, START + (begin + long) * HOUR)
            hours |= {START + one * HOUR for one in range(begin, begin + long)}
        there = ledger.stretches("task", "asked")
        left = list(_without(whole, there))
    assert all(one[1] < other[0] for one, other in zip(there, there[1:], strict=False))
    planned = {one for start, end in left for one in _hours(start, end)}
    assert planned == set(_hours(*whole)) - hours
    assert len(planned) == sum((end - start) // HOUR for start, end in left)


def _hours(start: datetime, end: datetime) -> list[datetime]:
    return [start + number * HOUR for number in range((end - start) // HOUR)]
