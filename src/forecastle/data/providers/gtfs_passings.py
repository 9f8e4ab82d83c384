"""Which stops were passed, and how late: told by a sequence of polls of one GTFS-realtime feed.

A TripUpdate is a prediction. It becomes an observation once its stop is passed, and then the last update seen at or
before that counts. A stop of a trip is passed

- when a poll lists it with a time that is not after the feed's own time, from that update;
- when it has vanished from its trip, with nothing before it still ahead and something behind it still listed, from the
  update of the poll before; the time of passing is then the predicted one, or the feed's if that comes first;
- when it or its whole trip has vanished and the time last predicted comes to pass, from that last update.

A stop that is skipped, without data, or of a cancelled trip is not passed, and neither is one that is taken out of a
trip which has not got there yet. An update seen more than ``LAST_SEEN`` before the passing is a forecast and observes
nothing. A stop counts once; what the feed says of it afterwards changes nothing, unless it puts it ahead again or
moves its time by more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from forecastle import coherence

LAST_SEEN = coherence.LAST_SEEN.total_seconds()
"""Seconds an update may lie before the passing it observes."""

TripKey = tuple[str, ...]
StopKey = tuple[str, int]


class Stop(NamedTuple):
    """What a poll says of one stop of a trip: when (seconds since 1970; None: nothing) and how late (seconds).

    ``key`` names the stop within its trip from poll to poll; ``series`` is None for a stop that is not the task's.
    """

    key: StopKey
    series: str | None
    at: float | None
    delay: float | None


@dataclass(frozen=True)
class Poll:
    """What one answer says of the trips that matter, each with its stops in order; None: the trip is cancelled."""

    at: float
    trips: Mapping[TripKey, tuple[Stop, ...] | None]


class Passing(NamedTuple):
    """One trip's passing of one stop: when (seconds since 1970), how late (seconds), and which poll showed it."""

    series: str
    at: float
    trip: TripKey
    stop: StopKey
    delay: float
    found_at: float


@dataclass
class _Watch:
    """What is remembered from poll to poll."""

    ahead: dict[tuple[TripKey, StopKey], tuple[float, Stop]] = field(default_factory=dict)  # last seen, and what
    passed: dict[tuple[TripKey, StopKey], float] = field(default_factory=dict)  # when
    before: dict[TripKey, tuple[Stop, ...]] = field(default_factory=dict)
    found: list[Passing] = field(default_factory=list)


def passings(polls: Iterable[Poll]) -> list[Passing]:
    """Return every passing that these polls show, in order of series, time and trip.

    The polls may come in any order; one that is no newer than another adds nothing. A passing without a known delay
    (an extra trip that no timetable has) is left out. What is found of a time t depends on the polls from
    ``LAST_SEEN`` before t alone, so that reading a shorter past finds the same.
    """
    watch, now = _Watch(), float("-inf")
    for poll in sorted(polls, key=lambda one: one.at):
        if poll.at <= now:
            continue
        now = poll.at
        for trip, stops in poll.trips.items():
            _follow(watch, trip, stops, now)
        for (trip, _), (seen, stop) in list(watch.ahead.items()):
            if stop.at is not None and stop.at <= now:
                _pass(watch, trip, stop, stop.at, seen, now)
    return sorted(watch.found)


def _follow(watch: _Watch, trip: TripKey, stops: tuple[Stop, ...] | None, now: float) -> None:
    """Take in what a poll says of one trip."""
    before = watch.before.get(trip, ())
    watch.before[trip] = stops or ()
    if stops is None:
        for place in [place for place in watch.ahead if place[0] == trip]:
            del watch.ahead[place]
        return
    _see_vanished(watch, trip, before, stops, now)
    for stop in stops:
        place = (trip, stop.key)
        if stop.at is None:
            watch.ahead.pop(place, None)
        elif stop.at > now:
            watch.passed.pop(place, None)
            if stop.series is not None:
                watch.ahead[place] = (now, stop)
        elif stop.at - watch.passed.get(place, float("-inf")) > LAST_SEEN:
            _pass(watch, trip, stop, stop.at, now, now)


def _see_vanished(watch: _Watch, trip: TripKey, before: Sequence[Stop], stops: Sequence[Stop], now: float) -> None:
    listed = {stop.key for stop in stops}
    ahead = {stop.key for stop in stops if stop.at is not None and stop.at > now}
    for position, stop in enumerate(before):
        place = (trip, stop.key)
        if stop.key in listed or place not in watch.ahead:
            continue
        seen, last = watch.ahead[place]
        if any(one.key in ahead for one in before[:position]):
            del watch.ahead[place]
        elif any(one.key in listed for one in before[position + 1 :]):
            _pass(watch, trip, last, min(last.at or now, now), seen, now)


def _pass(watch: _Watch, trip: TripKey, stop: Stop, at: float, seen: float, now: float) -> None:
    place = (trip, stop.key)
    watch.ahead.pop(place, None)
    if at - seen > LAST_SEEN:
        return
    watch.passed[place] = at
    if stop.series is not None and stop.delay is not None:
        watch.found.append(Passing(stop.series, at, trip, stop.key, stop.delay, now))
