"""GBFS: stations of versions 1 to 3, status and information joined."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from forecastle.data.providers.gbfs import parse, requests
from forecastle.data.quality_check import judge
from forecastle.errors import AnswerChanged, SourceUnavailable, TaskError
from forecastle.frame import iso
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, make_task

NOW = datetime(2026, 7, 16, 10, 20, tzinfo=UTC)
UPDATED = NOW - timedelta(seconds=40)


def make(**changes: Any) -> Task:
    data: dict[str, Any] = {
        "name": "bikes",
        "domain": "logistics",
        "frequency": "10m",
        "horizon": "1h",
        "target": "bikes",
        "source": {"provider": "gbfs", "url": "https://city.example/{feed}.json", "instantaneous": True},
        "columns": {"bikes": {}, "docks": {}, "capacity": {}},
        "series": [{"id": "market", "source_id": "s-1"}, {"id": "harbour", "source_id": "s-2"}],
    }
    return make_task(data | changes)


TASK = make()


def time(moment: datetime, version: int) -> Any:
    return iso(moment) if version == 3 else int(moment.timestamp())


def station(station_id: str, bikes: int, docks: int, version: int = 2, **changes: Any) -> dict[str, Any]:
    vehicles = "vehicles" if version == 3 else "bikes"
    return {
        "station_id": station_id,
        f"num_{vehicles}_available": bikes,
        f"num_{vehicles}_disabled": 1,
        "num_docks_available": docks,
        "is_installed": 1 if version == 1 else True,
        "is_renting": True,
        "last_reported": time(UPDATED - timedelta(minutes=5), version),
    } | changes


def feed(version: int, *stations: dict[str, Any]) -> dict[str, Any]:
    said = {"last_updated": time(UPDATED, version), "ttl": 60, "data": {"stations": list(stations)}}
    return said if version == 1 else said | {"version": f"{version}.0"}


def city(version: int = 2, *stations: dict[str, Any]) -> Any:
    """Answer as a city's feeds do; station s-2 does not say its capacity."""

    def reply(request: httpx.Request) -> Any:
        if request.url.path == "/station_information.json":
            name = [{"text": "Market", "language": "en"}] if version == 3 else "Market"
            return feed(version, {"station_id": "s-1", "name": name, "capacity": 20}, {"station_id": "s-2"})
        assert request.url.path == "/station_status.json"
        return feed(version, *(stations or (station("s-1", 7, 12, version), station("s-2", 0, 9, version))))

    return reply


@pytest.mark.parametrize("version", [1, 2, 3])
def test_status_and_information_of_every_version_make_one_row_a_station(collect, version):
    batch, source = collect(TASK, city(version), NOW - timedelta(hours=48), NOW, True)
    assert len(source.asked) == 2
    assert batch.rows.select("series_id", "timestamp", "bikes", "docks", "capacity").rows() == [
        ("harbour", UPDATED, 0.0, 9.0, None),
        ("market", UPDATED, 7.0, 12.0, 20.0),
    ]


def test_a_collection_of_the_present_passes_the_gate_though_the_window_before_it_is_empty(collect):
    task = make(columns={"bikes": {}, "docks": {}})
    batch, source = collect(task, city(), NOW - timedelta(hours=48), NOW, True)
    assert len(source.asked) == 1  # no column needs the information
    assert judge(task, batch.rows, batch.start, batch.end, NOW)[0].failures == ()


def test_a_station_that_is_removed_or_silent_for_a_day_has_no_row(collect):
    silent = station("s-1", 7, 12, last_reported=time(UPDATED - timedelta(days=2), 2))
    batch, _ = collect(TASK, city(2, silent, station("s-2", 1, 2)), NOW, NOW, True)
    assert batch.rows["series_id"].to_list() == ["harbour"]
    with pytest.raises(SourceUnavailable):
        collect(TASK, city(2, silent, station("s-2", 1, 2, is_installed=0)), NOW, NOW, True)


def test_one_station_that_is_gone_leaves_the_other_and_none_is_refused_with_the_nearest(collect):
    assert collect(TASK, city(2, station("s-2", 1, 2)), NOW, NOW, True)[0].rows.height == 1
    with pytest.raises(AnswerChanged, match="no 's-1'; did you mean 's-11'"):
        collect(TASK, city(2, station("s-11", 1, 2)), NOW, NOW, True)
    with pytest.raises(
        AnswerChanged, match="some are '11ab', '12ab'. .*https://city.example/station_information.json names"
    ):
        collect(TASK, city(2, station("12ab", 1, 2), station("11ab", 1, 2)), NOW, NOW, True)


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"last_updated": 1, "data": {}}', b'{"last_updated": 1, "data": {"stations": {}}}']
    + [b'{"last_updated": "soon", "data": {"stations": []}}', b'{"last_updated": 1, "data": {"stations": [{}]}}'],
)
def test_another_layout_is_refused(body):
    with pytest.raises(AnswerChanged):
        parse(TASK, Request("https://city.example/station_status.json"), body)


def test_mistakes_of_the_task_are_named():
    with pytest.raises(TaskError, match="'bike'; did you mean 'bikes'"):
        requests(make(columns={"bike": {}}, target="bike"), Settings(), NOW, NOW, NOW)
    with pytest.raises(TaskError, match="provider 'gbfs' needs url"):
        make(source={"provider": "gbfs"})
