"""GBFS: the bikes and docks of a city's stations now, versions 1 to 3 (https://gbfs.org/specification/reference).

``station_status`` says what is there, ``station_information`` how much a station can hold; a row joins both. It is of
the time the feed was updated: what a station last reported holds until it reports again. A station that is not
installed, or has not reported for a day, says nothing and has no row. The feeds give the present alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from forecastle.data.providers.answers import COMPARE, Row, check_member, read_json, read_time, to_table
from forecastle.errors import AnswerChanged, TaskError
from forecastle.frame import SERIES
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, nearest

STATUS, INFORMATION = "station_status", "station_information"
CAPACITY = "capacity"
FIELDS = {
    "bikes": ("num_bikes_available", "num_vehicles_available"),
    "docks": ("num_docks_available",),
    "bikes_disabled": ("num_bikes_disabled", "num_vehicles_disabled"),
    "docks_disabled": ("num_docks_disabled",),
}
"""Where a status holds a column: version 3 says vehicles, the versions before it bikes."""

SILENT = timedelta(days=1)


def gives_present_only(task: Task) -> bool:
    """Tell that the feeds hold no past."""
    return True


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return the calls for the feeds the task's columns need, whatever the window; the status comes first.

    Raises TaskError for a column the feeds do not have.
    """
    columns = (*FIELDS, CAPACITY)
    if strange := [f"{name!r}{nearest(name, columns)}" for name in task.columns if name not in columns]:
        raise TaskError(f"columns of gbfs ({', '.join(columns)})", ", ".join(strange), "Mend [columns] of the task.")
    feeds = (STATUS, INFORMATION) if CAPACITY in task.columns else (STATUS,)
    return tuple(Request(_address(task, feed)) for feed in feeds)


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Return what one feed says of the task's stations; the columns of the other feed are null.

    Raises SourceUnavailable for an empty answer, AnswerChanged for another layout or where none of the task's stations
    is in the feed.
    """
    answer = read_json(request, body)
    updated = _time(request, check_member(answer, "last_updated", "the feed", request))
    stations = check_member(check_member(answer, "data", "the feed", request), "stations", "data", request)
    if not isinstance(stations, list):
        raise AnswerChanged(f"a list of stations from {request.source}", type(stations).__name__, COMPARE)
    found = {str(check_member(one, "station_id", "a station", request)): one for one in stations}
    if strange := [one.asked for one in task.series if one.asked not in found]:
        if len(strange) == len(task.series):
            near = nearest(strange[0], found) or f"; some are {', '.join(map(repr, sorted(found)[:3]))}"
            raise AnswerChanged(
                f"stations of task {task.name!r} in {request.source}",
                f"{len(found)} others, no {strange[0]!r}{near}",
                "Write the feed's station_id as source_id of each [[series]]; "
                f"{_address(task, INFORMATION)} names them.",
            )
    known = [(one.id, found[one.asked]) for one in task.series if one.asked in found]
    if request.url == _address(task, INFORMATION):
        rows: list[Row] = [(series, updated, _values(task, one, {CAPACITY: (CAPACITY,)})) for series, one in known]
    else:
        speaking = [(series, one) for series, one in known if _speaks(request, one, updated)]
        rows = [(series, updated, _values(task, one, FIELDS)) for series, one in speaking]
    return to_table(task, request, rows)


def join(task: Task, tables: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
    """Return the statuses, each with its station's capacity."""
    if len(tables) < 2:
        return tables
    status, information = tables
    capacity = information.select(SERIES, CAPACITY)
    return [status.drop(CAPACITY).join(capacity, on=SERIES, how="left").select(status.columns)]


def _address(task: Task, feed: str) -> str:
    return (task.source.url or "").replace("{feed}", feed)


def _time(request: Request, given: Any) -> datetime:
    """Return a time of version 3 (RFC 3339) or of those before it (seconds since 1970)."""
    return read_time(request, given, "iso" if isinstance(given, str) else "s")


def _speaks(request: Request, station: dict[str, Any], updated: datetime) -> bool:
    reported = station.get("last_reported")
    silent = bool(reported) and updated - _time(request, reported) > SILENT
    return bool(station.get("is_installed", True)) and not silent


def _values(task: Task, station: dict[str, Any], fields: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        name: next((station[field] for field in fields.get(name, ()) if field in station), None)
        for name in task.columns
    }
