"""GTFS-realtime as a source: collection after collection, read back from the archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest

from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.ingestion import load_batch, save_batch
from forecastle.data.providers import gtfs_realtime
from forecastle.data.providers.gtfs_realtime import parse, requests
from forecastle.data.quality_check import judge
from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable, TaskError
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, make_task

MINUTE = timedelta(minutes=1)
START = datetime(2026, 7, 1, 12, tzinfo=UTC)  # 08:00 in New York
FEED, ZIP = "https://agency.example/rt/TripUpdates.pb", "https://files.example/gtfs.zip"
STOPS = ("70022", "70024", "70026")


def make(**source: Any) -> Task:
    data: dict[str, Any] = {
        "name": "trains",
        "domain": "logistics",
        "frequency": "10m",
        "horizon": "30m",
        "target": "mean_delay",
        "source": {"provider": "gtfs-realtime", "url": FEED, "timetable": ZIP, "step": "1m", "every": "2m"} | source,
        "columns": {"mean_delay": {"derived": "mean", "inputs": ["delay"], "min_share": 0.01}, "delay": {"unit": "s"}},
        "series": [
            {"id": "north-station", "source_id": "Orange/70026"},
            {"id": "haymarket", "source_id": "Orange/70024"},
        ],
    }
    return make_task(data)


TASK = make()


@pytest.fixture(autouse=True)
def _a_process_of_its_own() -> None:
    restart()


def restart() -> None:
    """Forget what a process remembers of the archive."""
    for remembered in (gtfs_realtime._note, gtfs_realtime._poll, gtfs_realtime._timetable):
        remembered.cache_clear()


class City:
    """A line with a train every five minutes, each later than the one before; its feed drops what is passed."""

    def __init__(self, trip_updates: Callable[..., bytes], gtfs_zip: Callable[..., bytes]) -> None:
        self.trip_updates, self.now = trip_updates, START
        self.gtfs_zip = gtfs_zip
        self.static: Any = self.timetable()
        self.answer: Any = None
        self.said: dict[str, Any] = {}
        self.zips = 0

    def __call__(self, request: httpx.Request) -> Any:
        if str(request.url) == ZIP:
            self.zips += 1
            return self.static
        return self.answer if self.answer is not None else self.feed()

    def timetable(self, version: str = "", minutes: int = 0) -> bytes:
        calls = (
            (f"t{trip}", "Orange", stop, place, *[clock(8 * 60 + 5 * trip + 3 * place + minutes)] * 2)
            for trip in range(24)
            for place, stop in enumerate(STOPS)
        )
        return self.gtfs_zip(*calls, **({"feed_info": f"feed_version\n{version}\n"} if version else {}))

    def feed(self) -> bytes:
        trips = []
        for trip in range(24):
            ahead = []
            for place, stop in enumerate(STOPS):
                at = START + timedelta(minutes=5 * trip + 3 * place, seconds=self.late(trip))
                wobble = timedelta(seconds=round((at - self.now).total_seconds()) // 10)  # told better when nearer
                if at > self.now:
                    ahead.append({"stop_sequence": place, "stop_id": stop, "arrival": {"time": stamp(at + wobble)}})
            if ahead and START + timedelta(minutes=5 * trip - 20) < self.now:
                trips.append(({"trip_id": f"t{trip}", "route_id": "Orange", "start_date": "20260701"}, ahead))
        return self.trip_updates(stamp(self.now), *trips, **self.said)

    @staticmethod
    def late(trip: int) -> int:
        return 20 * trip


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}:00"


def stamp(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.fixture
def city(trip_updates, gtfs_zip) -> City:
    return City(trip_updates, gtfs_zip)


@pytest.fixture
def ride(collect, city) -> Callable[..., Any]:
    """Collect so often, two minutes apart, and return the last batch and source."""

    def ride(times: int = 1, task: Task = TASK, start: datetime | None = None, between: Any = None) -> Any:
        batch = source = None
        for _ in range(times):
            city.now += 2 * MINUTE
            try:
                batch, source = collect(task, city, start or city.now - 60 * MINUTE, city.now, True)
            except SourceUnavailable:
                if times == 1:
                    raise
            if between:
                between(batch)
        return batch, source

    return ride


def values(batch: Any) -> list[tuple[Any, ...]]:
    return batch.rows.select("series_id", "timestamp", "delay").rows()


def test_each_train_is_observed_once_as_late_as_it_was_when_last_seen(ride):
    batch, _ = ride(15)  # until 12:30
    north = [(at, late) for series, at, late in values(batch) if series == "north-station"]
    assert len(north) == 5  # trains due at 12:06, 12:11, … 12:26
    for number, (at, late) in enumerate(north):
        passed = START + timedelta(minutes=5 * number + 6, seconds=City.late(number))
        assert abs(at - passed) <= MINUTE
        assert 0 <= late - City.late(number) <= 12  # seen at most two minutes before, told a tenth too late


def test_nothing_is_observed_before_a_stop_is_passed_and_the_answer_is_kept(ride, tmp_path):
    with pytest.raises(SourceUnavailable, match="none in 1 answers; in the last one .. stops lie ahead"):
        ride()
    assert len(Archive(tmp_path / "archive").names(START, START + 60 * MINUTE)) == 2  # the feed and the timetable


def test_a_batch_names_the_earlier_answers_it_was_read_back_from_but_none_that_was_refused(ride, city, tmp_path):
    ride(6)
    city.answer = b"<html>"
    with pytest.raises(AnswerChanged):
        ride()
    city.answer = None
    batch, _ = ride()
    archive = Archive(tmp_path / "archive")
    refused = {name for name in archive.names(START, city.now) if archive.read(name) == b"<html>"}
    assert len(refused) == 1
    assert {*batch.recalled, *batch.archived} == {*archive.names(START, city.now)} - refused
    assert set(batch.recalled).isdisjoint(batch.archived) and len(batch.recalled) == 7  # six polls and the timetable
    later, _ = ride(start=city.now - 2 * MINUTE)
    reach = city.now - 2 * MINUTE - timedelta(seconds=gtfs_realtime.LAST_SEEN) - 5 * MINUTE
    assert set(later.recalled) >= {name for name in archive.names(reach, city.now - MINUTE)} - refused
    assert load_batch(save_batch(tmp_path / "batch", batch)).recalled == batch.recalled


def test_a_restart_between_any_two_collections_changes_nothing(ride, city, tmp_path):
    def history(name: str, between: Any) -> pl.DataFrame:
        city.now = START
        shutil.rmtree(tmp_path / "archive", ignore_errors=True)
        restart()
        kept = History(tmp_path / name, ("delay",))
        ride(20, between=lambda batch: (batch and kept.append(batch.rows), between()))
        return kept.versions()

    one, other = history("one process", lambda: None), history("a process each", restart)
    assert one.height >= 12
    assert other.equals(one)


def test_what_a_collection_lost_in_a_crash_is_found_by_the_next(ride, city, tmp_path):
    kept = [row for batch in (ride(8)[0], ride(8)[0]) for row in values(batch)]
    assert {row for row in values(ride(1, start=START)[0]) if row[1] < city.now - 4 * MINUTE} <= set(kept)
    assert set(kept) <= set(values(ride(1, start=START)[0]))


def test_two_collectors_at_once_observe_what_one_does(ride, city, collect):
    alone = ride(15)[0]
    again = collect(TASK, city, city.now - 60 * MINUTE, city.now, True)[0]
    assert values(again) == values(alone)
    city.now += timedelta(seconds=1)
    late = collect(TASK, city, city.now - 60 * MINUTE, city.now, True)[0]
    assert values(late) == values(alone)


def test_an_observation_is_known_from_its_collection_whatever_flow_collects(ride, city, collect):
    ride(14)
    city.now += 2 * MINUTE
    for live in (True, False):
        batch = collect(TASK, city, city.now - 60 * MINUTE, city.now, live)[0]
        assert batch.rows["available_at"].unique().to_list() == [city.now]


def test_the_mean_of_a_slot_is_of_the_trains_that_passed_in_it(collect, city):
    def trains(*seconds: int) -> bytes:
        return city.trip_updates(
            stamp(START + 2 * MINUTE),
            *(
                (
                    {"trip_id": f"x{late}", "route_id": "Orange"},
                    [{"stop_id": "70026", "arrival": {"time": stamp(START) + late, "delay": late}}],
                )
                for late in seconds
            ),
        )

    city.answer = trains(10, 50, 61)
    batch = collect(make(timetable=None), city, START, START + 2 * MINUTE + timedelta(seconds=30), True)[0]
    assert values(batch) == [("north-station", START, 30.0), ("north-station", START + MINUTE, 61.0)]


def test_a_slot_that_began_before_the_window_is_left_alone(collect, city):
    passed = (
        {"trip_id": "x", "route_id": "Orange"},
        [{"stop_id": "70026", "arrival": {"time": stamp(START) + 50, "delay": 9}}],
    )
    city.answer = city.trip_updates(stamp(START + MINUTE), passed)
    task, now = make(timetable=None), START + 2 * MINUTE
    assert len(values(collect(task, city, START, now, True)[0])) == 1
    with pytest.raises(SourceUnavailable):
        collect(task, city, START + timedelta(seconds=30), now, True)


def test_what_was_last_seen_before_the_window_is_observed_in_it(collect, city):
    coming = (
        {"trip_id": "x", "route_id": "Orange"},
        [{"stop_id": "70026", "arrival": {"time": stamp(START) + 300, "delay": 9}}],
    )
    other = ({"trip_id": "y", "route_id": "Blue"}, [])
    city.answer = city.trip_updates(stamp(START), coming)
    task = make(timetable=None)
    with pytest.raises(SourceUnavailable):
        collect(task, city, START, START, True)
    city.answer = city.trip_updates(stamp(START + 8 * MINUTE), other)
    batch, _ = collect(task, city, START + 5 * MINUTE, START + 8 * MINUTE, True)
    assert values(batch) == [("north-station", START + 5 * MINUTE, 9.0)]


def test_an_answer_with_an_error_status_is_no_poll_whatever_it_holds(collect, city, ride):
    ride(4)
    passed = (
        {"trip_id": "x", "route_id": "Orange"},
        [{"stop_id": "70026", "arrival": {"time": stamp(city.now), "delay": 999}}],
    )
    city.answer = httpx.Response(404, content=city.trip_updates(stamp(city.now) + 1, passed))
    with pytest.raises(AnswerChanged, match="HTTP 404"):
        ride(1)
    city.answer = None
    assert 999 not in [late for _, _, late in values(ride(4)[0])]


def test_a_new_timetable_changes_nothing_of_what_was_observed_before_it(ride, city):
    city.static, city.said = city.timetable("spring"), {"feed_version": "spring"}
    before = values(ride(15)[0])
    city.static, city.said = city.timetable("summer", minutes=1), {"feed_version": "summer"}
    city.now = START + 64 * MINUTE
    found = values(ride(3, start=START)[0])
    assert city.zips == 2
    assert [row for row in found if row[1] < START + 30 * MINUTE] == before
    recent = [late for _, at, late in found if at > START + 64 * MINUTE]
    assert recent
    assert min(recent) < 200  # a minute less late than by the old one


def test_a_collection_passes_the_gate_though_no_train_passes_in_most_minutes(ride, city):
    batch, _ = ride(15)
    report, _ = judge(TASK, batch.rows, batch.start, batch.end, city.now)
    assert report.verdict == "pass", [one for one in report.findings if one.verdict != "pass"]


def test_a_feed_that_has_stopped_is_caught_as_stale_by_the_gate(ride, city):
    ride(15)
    city.answer = city.feed()
    city.now += timedelta(hours=7)
    batch, _ = ride(1, start=START)
    report, _ = judge(TASK, batch.rows, batch.start, batch.end, city.now)
    assert [one.check for one in report.failures] == ["freshness"]


def test_an_answer_that_was_refused_is_passed_over_by_the_next_collection(ride, city):
    ride(10)
    city.answer = b"<html>502</html>"
    with pytest.raises(AnswerChanged, match="HTML"):
        ride(1)
    city.answer = None
    batch, _ = ride(4)
    assert len([row for row in values(batch) if row[0] == "north-station"]) == 5


@pytest.fixture
def quiet(city, collect) -> Callable[[timedelta], int]:
    """Collect at a time when no train passes; return how often the timetable has been asked for by then."""

    def quiet(after: timedelta) -> int:
        city.now = START + after
        coming = {"stop_id": "70026", "arrival": {"time": stamp(city.now) + 3600, "delay": 0}}
        city.answer = city.trip_updates(
            stamp(city.now), ({"trip_id": "x", "route_id": "Orange"}, [coming]), **city.said
        )
        with suppress(SourceUnavailable):
            collect(TASK, city, city.now, city.now, True)
        return city.zips

    return quiet


def test_the_timetable_is_asked_for_once_a_day(quiet):
    hour = timedelta(hours=1)
    counts = [quiet(after) for after in (2 * MINUTE, 4 * MINUTE, 23 * hour, 25 * hour, 25 * hour + 2 * MINUTE)]
    assert counts == [1, 1, 1, 2, 2]


def test_a_timetable_the_feed_goes_by_no_more_is_asked_for_again_once_an_hour(quiet, city, gtfs_zip):
    hour = timedelta(hours=1)
    calls = [("t", "Orange", "70026", 1, "08:00:00", "08:00:00")]
    city.static = gtfs_zip(*calls, feed_info="feed_publisher_name,feed_version\nThe Agency,spring\n")
    city.said = {"feed_version": "spring"}
    assert [quiet(after) for after in (2 * MINUTE, 2 * hour)] == [1, 1]
    city.said = {"feed_version": "summer"}
    later = (2 * hour + 2 * MINUTE, 3 * hour, 3 * hour + 2 * MINUTE, 4 * hour)
    assert [quiet(after) for after in later] == [2, 2, 3, 3]


def test_while_a_timetable_cannot_be_had_the_one_of_the_day_before_serves(ride, city, quiet, collect):
    ride(10)
    city.static = httpx.Response(503)
    assert quiet(timedelta(hours=24, minutes=5)) == 2
    city.now = START + timedelta(hours=24, minutes=12)
    trip = {"trip_id": "t1", "route_id": "Orange", "start_date": "20260702"}
    passed = {"stop_sequence": 2, "arrival": {"time": stamp(START + timedelta(hours=24, minutes=11, seconds=33))}}
    city.answer = city.trip_updates(stamp(city.now), (trip, [passed]))
    batch, _ = collect(TASK, city, city.now - 5 * MINUTE, city.now, True)
    assert [row[2] for row in values(batch)] == [33.0]
    assert city.zips == 2


def test_a_broken_timetable_is_refused_and_once_it_is_mended_nothing_is_lost(ride, city):
    good, city.static = city.static, b"<html>busy</html>"
    for _ in range(5):
        with pytest.raises(AnswerChanged, match="a zip of GTFS tables"):
            ride(1)
    assert city.zips == 1
    ride_on = START + timedelta(minutes=62)
    while city.now < ride_on:
        with pytest.raises(AnswerChanged):
            ride(1)
    city.static = good
    city.now = START + timedelta(hours=2, minutes=2)
    with suppress(SourceUnavailable):
        ride(1)
    assert city.zips == 3  # the first, one an hour later that was as bad, and the good one
    found = ride(1, start=START)[0]
    assert found.rows.filter(series_id="north-station").height > 10


def test_the_key_goes_to_the_feeds_host_alone_and_is_never_kept(collect, city, tmp_path):
    task = make(key_param="api_key")
    with pytest.raises(SettingsError, match="FORECASTLE_GTFS_REALTIME_KEY"):
        requests(task.measured, Settings(), START, START, START)
    asked = []

    def reply(request: httpx.Request) -> Any:
        asked.append(str(request.url))
        return city(httpx.Request("GET", request.url.copy_remove_param("api_key")))

    for _ in range(8):
        city.now += 2 * MINUTE
        with suppress(SourceUnavailable):
            batch, _ = collect(task, reply, START, city.now, True, gtfs_realtime_key="SECRET-1")
    assert batch.rows.height > 1
    assert {url.partition("?")[2] for url in asked if url.startswith(FEED)} == {"api_key=SECRET-1"}
    assert [url for url in asked if not url.startswith(FEED)] == [ZIP]
    assert b"SECRET-1" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_without_a_timetable_a_feed_must_say_routes_and_delays(trip_updates):
    task = make(timetable=None)
    said = {"stop_id": "70026", "arrival": {"time": 1, "delay": 5}}
    parse(task, Request(FEED), trip_updates(1, ({"trip_id": "a", "route_id": "Orange"}, [said])))
    parse(task, Request(FEED), trip_updates(1, ({"trip_id": "a", "route_id": "Blue"}, [said])))
    with pytest.raises(AnswerChanged, match="route_id in the trips .* as timetable in"):
        parse(task, Request(FEED), trip_updates(1, ({"trip_id": "a"}, [said])))
    with pytest.raises(AnswerChanged, match="found times alone. Name .* as timetable in"):
        parse(
            task,
            Request(FEED),
            trip_updates(1, ({"trip_id": "a", "route_id": "Orange"}, [said | {"arrival": {"time": 1}}])),
        )


def test_mistakes_of_the_task_are_named():
    def ask(task: Task) -> None:
        requests(task.measured, Settings(), START, START, START)

    ask(TASK)
    with pytest.raises(TaskError, match="'delays'; did you mean 'delay'"):
        data = TASK.model_dump(mode="json") | {"columns": {"delays": {}}, "target": "delays"}
        ask(make_task(data))
    with pytest.raises(TaskError, match="a route and a stop .* found 70026"):
        ask(make_task(TASK.model_dump(mode="json") | {"series": [{"id": "70026"}]}))
    with pytest.raises(TaskError, match="asked at least every 10m"):
        make_task(
            TASK.model_dump(mode="json") | {"frequency": "30m", "source": {"provider": "gtfs-realtime", "url": FEED}}
        )
    ask(make(every=None))  # every ten minutes, as the task's frequency says
    with pytest.raises(TaskError, match="every: '3m' does not divide the frequency"):
        make(every="3m")
    with pytest.raises(TaskError, match="provider 'gtfs-realtime' needs url"):
        make(url=None)
    with pytest.raises(TaskError, match="belong to provider 'gtfs-realtime'"):
        make_task(TASK.model_dump(mode="json") | {"source": {"provider": "binance", "timetable": ZIP}})
