"""GTFS-realtime: how late a transit agency's vehicles pass their stops, from its TripUpdates (https://gtfs.org).

A series is a route at a stop, ``source_id = "Orange/70026"``. The feed is protobuf and gives the present alone, as
predictions; what was observed follows from one answer after the other (``gtfs_passings``), and the archive holds them
all: each collection reads the recent ones back, so that nothing else has to be remembered and a restart, a crash or a
second collector changes nothing. A row is a slot of the source's step: the mean delay (seconds) of the vehicles that
passed in it.

A delay is the one the update says, else its time less the time it says was scheduled, else less the time of the static
timetable, which is asked for once a day and archived like every answer. The arrival counts, or where there is none the
departure. Reference: https://gtfs.org/documentation/realtime/reference/#message-tripupdate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import polars as pl

from forecastle.data.archive import Archive
from forecastle.data.providers.gtfs_feed import Pairs, read_feed, read_poll, says
from forecastle.data.providers.gtfs_passings import LAST_SEEN, Passing, Poll, passings
from forecastle.data.providers.gtfs_timetable import Timetable, read_timetable
from forecastle.errors import AnswerChanged, SourceUnavailable, TaskError
from forecastle.frame import SERIES, TIME, TIMESTAMP, iso
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import DAY, Task, nearest

DELAY = "delay"

REACH = DAY
"""How far back answers are read again; a longer gap leaves what came before it as it was."""

TIMETABLE_AGE = DAY
TIMETABLE_BEHIND = timedelta(hours=1)
TIMETABLE_LIFE = timedelta(days=7)
"""A timetable is asked for again after a day, or after an hour if it is broken or the feed goes by another; while that
fails it is tried once an hour, and the one there is serves for a week."""

_GOOD = frozenset({200, 304})  # of one that is not modified the archive holds the body there was
_HOUR = timedelta(hours=1)
_MARGIN = timedelta(minutes=5)  # by so much a feed's own time may lie before its collection


class _Note(NamedTuple):
    """What the archive says of one collection."""

    name: str
    url: str
    status: int
    collected_at: datetime


def gives_present_only(task: Task) -> bool:
    """Tell that the feed holds no past."""
    return True


def gives_events(task: Task) -> bool:
    """Tell that there is a row only where something happened: a slot without one is no gap."""
    return True


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return the calls for the feed and, where the task names one, the timetable; the feed comes first.

    Raises TaskError for a column the feed does not have or a series that names no route and stop; SettingsError where a
    key is needed and not set.
    """
    if strange := [f"{name!r}{nearest(name, (DELAY,))}" for name in task.columns if name != DELAY]:
        raise TaskError(f"{DELAY}, the column of gtfs-realtime", ", ".join(strange), "Mend [columns] of the task.")
    if strange := [one.asked for one in task.series if "/" not in one.asked]:
        raise TaskError(
            "a route and a stop as source_id of each [[series]], such as 'Orange/70026'",
            ", ".join(strange),
            "Name both.",
        )
    return tuple(_request(task, settings, url) for url in (task.source.url, task.source.timetable) if url)


def wanted(task: Task, request: Request, archive: Archive, now: datetime) -> bool:
    """Tell whether to ask: the feed always, the timetable only where the one in the archive does no more.

    The feed's answer has been archived before the timetable's turn comes.
    """
    if request.url != task.source.timetable:
        return True
    known = _newest(archive, request.address, now)
    if known is None:
        return True
    age = now - known.collected_at
    if age < TIMETABLE_BEHIND or len(_answers(archive, _address(task), now - age % TIMETABLE_BEHIND, now)) > 1:
        return False  # another collection of this hour has tried
    table = _timetable(archive, known.name, request.address, _pairs(task))
    if age >= TIMETABLE_AGE or isinstance(table, AnswerChanged):
        return True
    version = _version(archive, _address(task), now)
    return bool(version and table.version and version != table.version)


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Check one answer and return no row: a row takes several answers (``recall``).

    Raises SourceUnavailable for an empty feed; AnswerChanged for what is not protobuf (HTML) or not a whole feed of
    TripUpdates, for one whose delays only a timetable tells where the task names none, and for a timetable without any
    of the task's stops.
    """
    if request.url == task.source.timetable:
        read_timetable(request, body, [one.asked for one in task.series])
    else:
        feed = read_feed(request, body)
        if task.source.timetable is None:
            _check_alone(task, request, feed)
    return pl.DataFrame(schema={SERIES: pl.String(), TIMESTAMP: TIME, **dict.fromkeys(task.columns, pl.Float64())})


def recall(task: Task, archive: Archive, start: datetime, now: datetime) -> Sequence[pl.DataFrame]:
    """Return what the answers archived up to ``now`` tell of the time from ``start`` on, at most ``REACH`` ago.

    Raises SourceUnavailable where no vehicle has passed a stop of the task; AnswerChanged where there is no timetable
    that can be read, and the task needs one.
    """
    since = max(start, now - REACH)
    polls = [poll for _, _, poll in _polls(task, archive, start, now)]
    found = [one for one in passings(polls) if _slot(task, one) >= since.timestamp()]  # whole slots alone
    if not found:
        last = max(polls, key=lambda one: one.at, default=None)
        ahead = [stop for stops in (last.trips.values() if last else ()) for stop in stops or () if stop.series]
        raise SourceUnavailable(
            f"vehicles that passed a stop of task {task.name!r} from {iso(since)} to {iso(now)}",
            f"none in {len(polls)} answers; in the last one {len(ahead)} stops lie ahead",
            "Collect again: a prediction becomes an observation once its stop is passed.",
        )
    return [_rows(task, found)]


def recalled(task: Task, archive: Archive, start: datetime, now: datetime) -> tuple[str, ...]:
    """Return the names of the archived answers that ``recall`` reads: timetables and polls, not what was refused."""
    read = list(_polls(task, archive, start, now))
    return tuple(dict.fromkeys([*(table for _, table, _ in read if table), *(name for name, _, _ in read)]))


def _check_alone(task: Task, request: Request, feed: Any) -> None:
    """Refuse a feed whose routes or delays only a timetable would tell."""
    updates = [entity.trip_update for entity in feed.entity if entity.HasField("trip_update")]
    mend = "Name the agency's GTFS zip as timetable in [source]."
    if not any(update.trip.route_id for update in updates):
        raise AnswerChanged(f"route_id in the trips of {request.source}", f"none in {len(updates)} trips", mend)
    mine = [u for u in updates if any(one.asked.startswith(f"{u.trip.route_id}/") for one in task.series)]
    events = [event for u in mine for stop in u.stop_time_update for event in (stop.arrival, stop.departure)]
    if any(map(says, events)) and not any(one.HasField("delay") or one.HasField("scheduled_time") for one in events):
        raise AnswerChanged(f"delays in the updates of {request.source}", "times alone", mend)


def _request(task: Task, settings: Settings, url: str) -> Request:
    """Return the call for an address; the key goes to the feed's host alone."""
    name = _key_param(task, url)
    return Request(url, {name: settings.secret("gtfs_realtime_key")}, frozenset({name})) if name else Request(url)


def _key_param(task: Task, url: str) -> str | None:
    return task.source.key_param if urlsplit(url).netloc == urlsplit(task.source.url or "").netloc else None


def _address(task: Task, url: str | None = None) -> str:
    """Return a call's address as the archive knows it: without the key."""
    url = url or task.source.url or ""
    name = _key_param(task, url)
    return Request(url, {name: "key"} if name else {}, frozenset({name} if name else ())).address


def _pairs(task: Task) -> Pairs:
    return tuple((one.asked, one.id) for one in task.series)


def _rows(task: Task, found: Sequence[Passing]) -> pl.DataFrame:
    """Return the mean of each slot, its passings summed in one fixed order."""
    slots: dict[tuple[str, float], list[float]] = {}
    for one in found:
        slots.setdefault((one.series, _slot(task, one)), []).append(one.delay)
    return pl.DataFrame(
        {
            SERIES: [series for series, _ in slots],
            TIMESTAMP: [datetime.fromtimestamp(at, UTC) for _, at in slots],
            DELAY: [sum(delays) / len(delays) for delays in slots.values()],
        },
        schema={SERIES: pl.String(), TIMESTAMP: TIME, DELAY: pl.Float64()},
    )


def _slot(task: Task, one: Passing) -> float:
    """Return where the slot of a passing starts, in seconds since 1970."""
    return one.at - one.at % task.source_step.total_seconds()


def _polls(task: Task, archive: Archive, start: datetime, now: datetime) -> Iterator[tuple[str, str | None, Poll]]:
    """Yield the names and what they say of the feed's answers that tell of the time from ``start`` on, each read with
    the timetable of its time, whose name comes second. One that was refused when it came is no poll."""
    since = max(start, now - REACH) - timedelta(seconds=LAST_SEEN) - _MARGIN
    feed, static, pairs = _address(task), task.source.timetable, _pairs(task)
    tables = _tables(archive, _address(task, static), since, now) if static else []
    readable = [
        one for one in tables if isinstance(_timetable(archive, one.name, _address(task, static), pairs), Timetable)
    ]
    if static and not readable:
        refused = _timetable(archive, tables[-1].name, _address(task, static), pairs) if tables else None
        raise (
            refused
            if isinstance(refused, AnswerChanged)
            else AnswerChanged(f"a timetable from {static} in the archive", "none of the last days", "Collect again.")
        )
    for answer in _answers(archive, feed, since, now):
        before = [one for one in readable if one.collected_at <= answer.collected_at]
        table = (before or readable[:1])[-1].name if static else None
        poll = _poll(archive, answer.name, answer.collected_at, feed, table, _address(task, static), pairs)
        if poll is not None:
            yield answer.name, table, poll


def _tables(archive: Archive, address: str, since: datetime, now: datetime) -> list[_Note]:
    """Return the timetables from the newest one before ``since`` on, oldest first."""
    old = _newest(archive, address, since)
    new = [one for one in _answers(archive, address, since, now) if old is None or one.name != old.name]
    return [old, *new] if old else new


def _newest(archive: Archive, address: str, until: datetime) -> _Note | None:
    """Return the newest good answer of the last TIMETABLE_LIFE, looking back a day at a time."""
    for back in range(TIMETABLE_LIFE // DAY):
        if there := _answers(archive, address, until - (back + 1) * DAY, until - back * DAY):
            return there[-1]
    return None


def _answers(archive: Archive, address: str, since: datetime, until: datetime) -> list[_Note]:
    """Return the good answers of an address, oldest first."""
    notes = [_note(archive, name) for name in archive.names(since, until)]
    return [one for one in notes if one.url == address and one.status in _GOOD]


def _version(archive: Archive, address: str, now: datetime) -> str:
    """Return the version of the timetable that the feed last said it goes by, or an empty string."""
    answers = _answers(archive, address, now - _HOUR, now)
    try:
        return str(read_feed(Request(address), archive.read(answers[-1].name)).header.feed_version) if answers else ""
    except (AnswerChanged, SourceUnavailable):
        return ""


# What is archived never changes, so a process that lives long reads each answer once.
@lru_cache(maxsize=8192)
def _note(archive: Archive, name: str) -> _Note:
    said = archive.note(name)
    return _Note(name, said["url"], said["status"], datetime.fromisoformat(said["collected_at"]))


@lru_cache(maxsize=1024)
def _poll(
    archive: Archive, name: str, collected_at: datetime, address: str, table: str | None, static: str, pairs: Pairs
) -> Poll | None:
    """Return an archived answer as a poll, None for one that was refused when it came."""
    timetable = _timetable(archive, table, static, pairs) if table else None
    try:
        feed = read_feed(Request(address), archive.read(name))
    except (AnswerChanged, SourceUnavailable):
        return None
    return read_poll(feed, pairs, collected_at, timetable if isinstance(timetable, Timetable) else None)


@lru_cache(maxsize=4)
def _timetable(archive: Archive, name: str, address: str, pairs: Pairs) -> Timetable | AnswerChanged:
    """Return an archived timetable, or why it was refused."""
    try:
        return read_timetable(Request(address), archive.read(name), [asked for asked, _ in pairs])
    except AnswerChanged as refused:
        return refused
