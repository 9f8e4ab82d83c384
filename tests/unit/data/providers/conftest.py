"""A small source for tests of providers: it answers each call by a function and keeps what it was asked."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import ParseDict
from google.transit.gtfs_realtime_pb2 import FeedMessage

from forecastle.data.archive import Archive
from forecastle.data.ingestion import Batch, fetch
from forecastle.http import Client
from forecastle.settings import Settings
from forecastle.task import Task

Reply = Callable[[httpx.Request], Any]


class Source(httpx.BaseTransport):
    """Answer by a function of the request: a JSON value, bytes as they are, or a whole response."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.reply(request)
        if isinstance(reply, httpx.Response):
            return reply
        return httpx.Response(200, content=reply if isinstance(reply, bytes) else json.dumps(reply).encode())


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., tuple[Batch, Source]]:
    """Fetch a task from a source that answers so, archive in tmp_path; return the batch and the source."""

    def collect(
        task: Task, reply: Reply, start: datetime, now: datetime, live: bool = False, **settings: Any
    ) -> tuple[Batch, Source]:
        source = Source(reply)
        chosen = Settings(http_attempts=1, _env_file=None, **settings)  # type: ignore[call-arg]
        with Client(chosen, source) as client:
            return fetch(task, chosen, client, Archive(tmp_path / "archive"), start, now, now, live), source

    return collect


@pytest.fixture
def trip_updates() -> Callable[..., bytes]:
    """Write a GTFS-realtime feed: trips are (descriptor, stops), a stop is the fields of a StopTimeUpdate."""

    def write(at: float | None, *trips: tuple[dict[str, Any], list[dict[str, Any]]], **header: Any) -> bytes:
        said = [{"trip": trip, "stop_time_update": stops} for trip, stops in trips]
        stamp = {} if at is None else {"timestamp": int(at)}
        feed = {
            "header": {"gtfs_realtime_version": "2.0", **stamp, **header},
            "entity": [{"id": str(number), "trip_update": update} for number, update in enumerate(said)],
        }
        return ParseDict(feed, FeedMessage()).SerializeToString()

    return write


@pytest.fixture
def gtfs_zip() -> Callable[..., bytes]:
    """Write a static timetable: calls are (trip, route, stop, sequence, arrival, departure)."""

    def write(*calls: tuple[str, str, str, int, str, str], zone: str = "America/New_York", **tables: str) -> bytes:
        trips = dict.fromkeys((trip, route) for trip, route, *_ in calls)
        files = {
            "agency": f"agency_id,agency_name,agency_timezone\n1,The Agency,{zone}\n",
            "trips": "route_id,service_id,trip_id\n" + "".join(f"{route},all,{trip}\n" for trip, route in trips),
            "stop_times": "trip_id,arrival_time,departure_time,stop_id,stop_sequence\n"
            + "".join(f"{trip},{came},{left},{stop},{place}\n" for trip, _, stop, place, came, left in calls),
        } | tables
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as folder:
            for name, text in files.items():
                folder.writestr(zipfile.ZipInfo(f"{name}.txt"), text)
        return packed.getvalue()

    return write
