"""What one answer of GTFS-realtime says: a feed of TripUpdates, read as a poll (see ``gtfs_passings``).

A delay is the one the update says, else its time less the time it says was scheduled, else less the time of the static
timetable. The arrival counts, or where there is none the departure. A stop is named by ``stop_sequence``, else by
``stop_id``. Reference: https://gtfs.org/documentation/realtime/reference/#message-tripupdate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from forecastle.data.providers.gtfs_passings import Poll, Stop, TripKey
from forecastle.data.providers.gtfs_timetable import Call, Timetable, Trip
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.http import Request, excerpt

COMPARE = "The answer is archived; compare it with https://gtfs.org/documentation/realtime/reference/."
Pairs = tuple[tuple[str, str], ...]  # (route/stop, series id)

_EXTRA = frozenset({"ADDED", "NEW", "UNSCHEDULED", "DUPLICATED", "REPLACEMENT"})  # trips no timetable has
_CANCELLED = frozenset({"CANCELED", "DELETED"})
_WITHOUT = frozenset({"SKIPPED", "NO_DATA"})


def read_feed(request: Request, body: bytes) -> Any:
    """Return the feed a body holds, with at least one trip update.

    Raises SourceUnavailable for an empty body or feed; AnswerChanged for what is not protobuf, for differences to an
    earlier feed, and for a feed of other things.
    """
    from google.protobuf.message import DecodeError
    from google.transit.gtfs_realtime_pb2 import FeedHeader, FeedMessage

    if not body.strip():
        raise SourceUnavailable(f"a feed from {request.source}", "an empty body", "Ask again later.")
    feed = FeedMessage()
    try:
        feed.ParseFromString(body)
        whole = feed.HasField("header") and feed.header.HasField("gtfs_realtime_version")
    except DecodeError:
        whole = False
    if not whole:
        kind = "HTML" if body.lstrip().startswith(b"<") else "something else"
        raise AnswerChanged(f"a GTFS-realtime feed from {request.source}", f"{kind}: {excerpt(body)}", COMPARE)
    if feed.header.incrementality != FeedHeader.FULL_DATASET:
        raise AnswerChanged(
            f"a whole feed (FULL_DATASET) from {request.source}",
            "differences to an earlier one (DIFFERENTIAL)",
            "Ask the agency for the address of its whole feed.",
        )
    if not any(entity.HasField("trip_update") for entity in feed.entity):
        if not feed.entity:
            raise SourceUnavailable(f"trip updates from {request.source}", "an empty feed", "Ask again later.")
        kinds = sorted({one.name for entity in feed.entity for one, _ in entity.ListFields()} - {"id"})
        raise AnswerChanged(
            f"trip updates from {request.source}", f"{', '.join(kinds)}", "Name the feed of TripUpdates as url."
        )
    return feed


def read_poll(feed: Any, pairs: Pairs, collected_at: datetime, timetable: Timetable | None) -> Poll:
    """Return what a feed says of the trips on the routes of ``pairs``.

    Its time is its own, or that of its collection where it has none or one to come. Of a trip that is there twice the
    newer update counts.
    """
    at = min(float(feed.header.timestamp) or float("inf"), collected_at.timestamp())
    series, matters = dict(pairs), dict[str, bool]()
    trips: dict[TripKey, tuple[Stop, ...] | None] = {}
    said_at: dict[TripKey, int] = {}
    for entity in feed.entity:
        if not entity.HasField("trip_update"):
            continue
        update = entity.trip_update
        planned = timetable.trips.get(update.trip.trip_id) if timetable else None
        route = update.trip.route_id or (planned.route_id if planned else "")
        if route not in matters:
            matters[route] = any(asked.startswith(f"{route}/") for asked in series)
        key = _trip_key(update.trip)
        if not matters[route] or update.timestamp < said_at.get(key, 0):
            continue
        said_at[key] = update.timestamp
        reading = _Reading(route, series, at, update.trip, planned, timetable)
        trips[key] = None if reading.relationship in _CANCELLED else reading.stops(update.stop_time_update)
    return Poll(at, trips)


def says(event: Any) -> bool:
    """Tell whether an arrival or departure holds anything to read."""
    return bool(event.HasField("time") or event.HasField("delay"))


class _Reading:
    """Reads the stops of one trip's update."""

    def __init__(
        self, route: str, series: dict[str, str], at: float, trip: Any, planned: Trip | None, table: Timetable | None
    ) -> None:
        kinds = type(trip).ScheduleRelationship
        self.relationship = kinds.Name(trip.schedule_relationship)
        self._route, self._series, self._at = route, series, at
        self._planned, self._table, self._shift = planned, table, 0
        self._day = _day(trip.start_date)
        if self.relationship in _EXTRA or (planned and planned.exact is False):
            self._table = None
        elif planned and planned.exact:
            begins, starts = planned.begins, _seconds(trip.start_time)
            self._shift = starts - begins if begins is not None and starts is not None else 0

    def stops(self, updates: Sequence[Any]) -> tuple[Stop, ...]:
        """Return the stops in the order of the trip."""
        later: dict[str, int] = {}
        found = []
        for update in reversed(updates):
            from_the_end = later.get(update.stop_id, 0)
            later[update.stop_id] = from_the_end + 1
            found.append(self._stop(update, from_the_end))
        return tuple(reversed(found))

    def _stop(self, update: Any, from_the_end: int) -> Stop:
        sequence = update.stop_sequence if update.HasField("stop_sequence") else None
        key = (update.stop_id, from_the_end) if sequence is None else ("", sequence)
        call = self._planned.call(sequence, update.stop_id, from_the_end) if self._planned else None
        names = (update.stop_id, call.stop_id if call else update.stop_id)
        series = next((self._series[name] for one in names if (name := f"{self._route}/{one}") in self._series), None)
        kinds = type(update).ScheduleRelationship
        arrives = update.HasField("arrival") and says(update.arrival)
        event = update.arrival if arrives else update.departure
        if kinds.Name(update.schedule_relationship) in _WITHOUT or not says(event):
            return Stop(key, series, None, None)
        due = self._due(event, call, arrives)
        delay = float(event.delay) if event.HasField("delay") else None
        at = float(event.time) if event.HasField("time") else None
        if at is None and due is not None and delay is not None:
            at = due + delay
        if delay is None and due is not None and at is not None:
            delay = at - due
        return Stop(key, series, at, delay)

    def _due(self, event: Any, call: Call | None, arrives: bool) -> float | None:
        """Return when the trip should be there: as the update says, else as the timetable does."""
        if event.HasField("scheduled_time"):
            return float(event.scheduled_time)
        if self._table is None or call is None:
            return None
        either = (call.arrival, call.departure) if arrives else (call.departure, call.arrival)
        seconds = next((one for one in either if one is not None), None)
        if seconds is None:
            return None
        seconds += self._shift
        near = float(event.time) if event.HasField("time") else self._at
        return self._table.moment(self._day or self._table.nearest_day(seconds, near), seconds)


def _trip_key(trip: Any) -> TripKey:
    """Return what names a trip from poll to poll; a trip that is repeated is named by its start too."""
    line = () if trip.trip_id else (trip.route_id, str(trip.direction_id))
    return (trip.trip_id, trip.start_date, trip.start_time, *line)


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _seconds(text: str) -> int | None:
    try:
        hours, minutes, seconds = map(int, text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
