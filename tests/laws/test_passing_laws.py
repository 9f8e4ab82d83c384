"""The laws of passings: what a sequence of polls shows, from vehicles that run late, vanish, skip stops and return."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.data.providers.gtfs_passings import LAST_SEEN, Passing, Poll, Stop, passings

STOPS = 6
QUIRKS = ("drops what is passed", "keeps what is passed", "loses a trip now and then", "skips", "cancels", "detours")


def a_day(seed: int, quirk: str, polls: int = 40) -> tuple[list[Poll], dict[tuple[str, int], float]]:
    """Return the polls of three trips over some hours, and when each stop was really passed."""
    dice = random.Random(seed)
    trips = {f"trip {number}": dice.uniform(0, 3000) for number in range(3)}
    passed = {
        (trip, stop): begin + 400 * stop + 60 * stop * dice.random()
        for trip, begin in trips.items()
        for stop in range(STOPS)
    }
    found, now = [], 0.0
    for _ in range(polls):
        now += dice.choice([60, 120, 120, 120, 300, 1500 if dice.random() < 0.1 else 120])
        said = {}
        for trip in trips:
            if quirk == "loses a trip now and then" and dice.random() < 0.2:
                continue
            gone = quirk == "cancels" and trip == "trip 1" and now > 1500
            said[(trip,)] = None if gone else tuple(listed(dice, passed, trip, now, quirk))
        found.append(Poll(now, {trip: stops for trip, stops in said.items() if stops is None or stops}))
    return found, passed


def listed(dice, passed, trip, now, quirk):
    """Yield what the feed says of a trip: the better, the nearer a stop is; each update can be told by its delay."""
    for stop in range(STOPS):
        really = passed[trip, stop]
        if really <= now and quirk != "keeps what is passed":
            continue
        if quirk == "detours" and stop == 4 and trip == "trip 2" and now > 900:
            continue
        void = quirk == "skips" and stop == 3 and trip == "trip 0" and now > 600
        error = dice.uniform(-0.2, 0.2) * (really - now) if really > now else dice.uniform(-20, 0)
        yield Stop(("", stop), f"stop {stop}", None if void else max(really + error, 0.0), dice.uniform(-60, 600))


days = st.builds(a_day, st.integers(0, 10_000), st.sampled_from(QUIRKS))


@given(days, st.randoms())
@settings(deadline=None, max_examples=60)
def test_the_order_in_which_polls_are_read_changes_nothing(day, dice):
    polls, _ = day
    shuffled = [*polls, *polls[:3]]
    dice.shuffle(shuffled)
    assert passings(shuffled) == passings(polls)


@given(days)
@settings(deadline=None, max_examples=60)
def test_what_was_found_by_a_poll_needs_no_later_one(day):
    polls, _ = day
    for number in range(1, len(polls)):
        known = [one for one in passings(polls) if one.found_at <= polls[number].at]
        assert passings(polls[: number + 1]) == known


@given(days, st.integers(0, 39))
@settings(deadline=None, max_examples=100)
def test_a_shorter_past_finds_the_same_from_its_start_on(day, first):
    polls, _ = day
    start = polls[first].at
    recent = [poll for poll in polls if poll.at >= start - LAST_SEEN]
    assert since(start, passings(recent)) == since(start, passings(polls))


@given(days)
@settings(deadline=None, max_examples=100)
def test_an_observation_is_the_last_update_seen_before_the_feed_knew_of_the_passing(day):
    polls, passed = day
    for one in passings(polls):
        said = {poll.at: stop for poll in polls for stop in poll.trips.get(one.trip) or () if stop.key == one.stop}
        seen = max(at for at, stop in said.items() if stop.delay == one.delay)
        assert one.at - LAST_SEEN <= seen <= one.found_at
        assert not [at for at, stop in said.items() if seen < at < one.found_at and stop.at is not None]
        assert one.at <= one.found_at
        assert abs(one.at - passed[one.trip[0], one.stop[1]]) <= 0.25 * LAST_SEEN + 1500


@given(days)
@settings(deadline=None, max_examples=60)
def test_a_stop_is_passed_once_and_never_where_it_is_skipped_cancelled_or_taken_out(day):
    polls, _ = day
    found = passings(polls)
    for one, next_ in pairwise(sorted(found, key=lambda one: (one.trip, one.stop, one.at))):
        assert (one.trip, one.stop) != (next_.trip, next_.stop)
    for one in found:
        ends = [poll.at for poll in polls if one.trip in poll.trips and poll.trips[one.trip] is None]
        assert not ends or one.at <= min(ends)


def since(start: float, found: list[Passing]) -> list[Passing]:
    return [one for one in found if one.at >= start]


@given(st.integers(0, 10_000), st.sampled_from(QUIRKS[:2]))
@settings(deadline=None, max_examples=60)
def test_where_polls_are_close_every_passing_is_found(seed, quirk):
    polls, passed = a_day(seed, quirk)
    found = {(one.trip[0], one.stop[1]) for one in passings(polls)}
    gaps = [(one.at, next_.at) for one, next_ in pairwise(polls) if next_.at - one.at > LAST_SEEN / 2]
    for (trip, stop), at in passed.items():
        near_a_gap = any(begin - LAST_SEEN <= at <= end + LAST_SEEN for begin, end in gaps)
        if polls[0].at + LAST_SEEN < at < polls[-1].at - LAST_SEEN and not near_a_gap:
            assert (trip, stop) in found
