"""One answer of GTFS-realtime, read as a poll."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.transit.gtfs_realtime_pb2 import FeedMessage

from forecastle.data.providers.gtfs_feed import read_feed, read_poll
from forecastle.data.providers.gtfs_passings import Stop
from forecastle.data.providers.gtfs_timetable import read_timetable
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.http import Request

ASKED = Request("https://agency.example/TripUpdates.pb")
NOW = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
AT = NOW.timestamp() - 20
EIGHT = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()  # in New York
PAIRS = (("Orange/70026", "south"), ("Orange/70027", "north"))
CALLS = [
    ("t1", "Orange", "70026", 10, "08:00:00", "08:01:00"),
    ("t1", "Orange", "70024", 20, "08:05:00", "08:05:30"),
    ("t2", "Orange", "70027", 10, "08:00:00", "08:00:00"),
]
T1 = {"trip_id": "t1", "route_id": "Orange", "start_date": "20260701"}
Polled = Callable[..., dict[tuple[str, ...], Any]]


@pytest.fixture
def polled(trip_updates, gtfs_zip) -> Polled:
    """Read trips as a poll with the timetable (static=False: without) and return what it says of each."""

    def polled(*trips: Any, static: bool = True, frequencies: str | None = None) -> dict[tuple[str, ...], Any]:
        tables = {"frequencies": frequencies} if frequencies else {}
        table = read_timetable(ASKED, gtfs_zip(*CALLS, **tables), [asked for asked, _ in PAIRS]) if static else None
        return dict(read_poll(read_feed(ASKED, trip_updates(AT, *trips)), PAIRS, NOW, table).trips)

    return polled


def only(trips: dict[tuple[str, ...], Any]) -> Stop:
    ((stop,),) = trips.values()
    return stop


def stop(sequence: int | None = 10, stop_id: str | None = "70026", **said: Any) -> dict[str, Any]:
    named = {} if sequence is None else {"stop_sequence": sequence}
    return named | ({} if stop_id is None else {"stop_id": stop_id}) | said


def test_a_delay_the_update_says_counts_as_it_is(polled):
    said = stop(arrival={"time": int(EIGHT) + 90, "delay": 75}, departure={"delay": 1})
    assert only(polled((T1, [said]))) == Stop(("", 10), "south", EIGHT + 90, 75.0)


def test_without_one_it_is_the_time_less_that_of_the_timetable(polled):
    assert only(polled((T1, [stop(arrival={"time": int(EIGHT) + 90})]))).delay == 90
    assert only(polled((T1, [stop(departure={"time": int(EIGHT) + 90})]))).delay == 30  # due to leave a minute later
    assert only(polled((T1, [stop(arrival={"time": int(EIGHT) - 15})]))).delay == -15


def test_what_the_update_says_was_scheduled_goes_before_the_timetable(polled):
    said = stop(arrival={"time": int(EIGHT) + 90, "scheduled_time": int(EIGHT) + 60})
    assert only(polled((T1, [said]))).delay == 30
    assert only(polled((T1, [said]), static=False)).delay == 30


def test_a_delay_alone_tells_the_time_by_the_timetable_and_nothing_without_one(polled):
    assert only(polled((T1, [stop(arrival={"delay": 45})])))[2:] == (EIGHT + 45, 45.0)
    assert only(polled((T1, [stop(arrival={"delay": 45})]), static=False))[2:] == (None, 45.0)


def test_a_time_alone_has_no_delay_without_a_timetable(polled):
    assert only(polled((T1, [stop(arrival={"time": int(EIGHT)})]), static=False))[2:] == (EIGHT, None)


def test_a_stop_is_named_by_its_sequence_alone_or_by_its_id_alone(polled):
    said = {"arrival": {"time": int(EIGHT) + 90}}
    assert only(polled((T1, [stop(10, None, **said)]))) == Stop(("", 10), "south", EIGHT + 90, 90.0)
    assert only(polled((T1, [stop(None, **said)]))) == Stop(("70026", 0), "south", EIGHT + 90, 90.0)


def test_a_stop_without_a_sequence_keeps_its_name_while_those_before_it_vanish(polled):
    said = [stop(None, "70026", arrival={"time": int(EIGHT) + later}) for later in (0, 600)]
    first, second = next(iter(polled((T1, said)).values()))
    assert first.key != second.key
    assert only(polled((T1, said[1:]))).key == second.key


def test_another_platform_than_the_timetables_is_still_its_stop(polled):
    assert only(polled((T1, [stop(10, "70026-02", arrival={"time": int(EIGHT)})]))).series == "south"


def test_a_route_the_trip_does_not_name_is_the_timetables(polled):
    assert only(polled(({"trip_id": "t1"}, [stop(arrival={"time": int(EIGHT)})]))).series == "south"


def test_a_trip_without_a_date_is_of_the_day_that_fits_best(polled):
    assert only(polled(({"trip_id": "t1"}, [stop(arrival={"time": int(EIGHT) + 30})]))).delay == 30
    day_before = {**T1, "start_date": "20260630"}
    assert only(polled((day_before, [stop(arrival={"time": int(EIGHT) + 30})]))).delay == 86430


@pytest.mark.parametrize("kind", ["SKIPPED", "NO_DATA"])
def test_a_stop_that_is_skipped_or_without_data_says_nothing(polled, kind):
    said = stop(schedule_relationship=kind, arrival={"time": int(EIGHT)})
    assert only(polled((T1, [said])))[2:] == (None, None)


@pytest.mark.parametrize("kind", ["CANCELED", "DELETED"])
def test_a_cancelled_trip_has_no_stops(polled, kind):
    assert list(polled(({**T1, "schedule_relationship": kind}, [stop(arrival={"time": 1})])).values()) == [None]


@pytest.mark.parametrize("kind", ["ADDED", "NEW", "UNSCHEDULED"])
def test_an_extra_trip_has_the_delay_it_says_and_no_other(polled, kind):
    extra = {**T1, "schedule_relationship": kind}
    assert only(polled((extra, [stop(arrival={"time": int(EIGHT) + 90})]))).delay is None
    assert only(polled((extra, [stop(arrival={"time": int(EIGHT) + 90, "delay": 5})]))).delay == 5


def test_a_trip_that_repeats_is_named_by_its_start_and_late_by_it(polled):
    repeats = "trip_id,start_time,end_time,headway_secs,exact_times\nt1,08:00:00,10:00:00,600,{}\n"
    trips = [({**T1, "start_time": at}, [stop(arrival={"time": int(EIGHT) + 690})]) for at in ("08:01:00", "08:11:00")]
    found = polled(*trips, frequencies=repeats.format(1))
    assert sorted(stops[0].delay for stops in found.values()) == [90, 690]
    found = polled(*trips, frequencies=repeats.format(0))
    assert [stops[0].delay for stops in found.values()] == [None, None]


def test_of_a_trip_that_is_there_twice_the_newer_update_counts(trip_updates):
    old, new = (
        {"trip": T1, "timestamp": at, "stop_time_update": [stop(arrival={"time": int(EIGHT), "delay": late})]}
        for at, late in ((100, 1), (200, 2))
    )
    for updates in ([old, new], [new, old]):
        entities = [{"id": str(number), "trip_update": update} for number, update in enumerate(updates)]
        feed = ParseDict({"header": {"gtfs_realtime_version": "2.0"}, "entity": entities}, FeedMessage())
        assert only(dict(read_poll(feed, PAIRS, NOW, None).trips)).delay == 2


def test_other_routes_are_left_out_and_other_stops_of_a_route_kept_without_a_series(polled):
    said = [stop(arrival={"time": 1}), stop(20, "70024", arrival={"time": int(EIGHT)})]
    found = polled(
        (T1, said), ({"trip_id": "b", "route_id": "Blue"}, said), ({"trip_id": "o", "route_id": "Oran"}, said)
    )
    ((one, other),) = found.values()
    assert (one.series, other.series) == ("south", None)


@pytest.mark.parametrize(("header", "at"), [(AT, AT), (None, NOW.timestamp()), (NOW.timestamp() + 99, NOW.timestamp())])
def test_a_polls_time_is_the_feeds_own_or_its_collections_where_that_is_none_or_to_come(trip_updates, header, at):
    feed = read_feed(ASKED, trip_updates(header, (T1, [stop(arrival={"time": 1})])))
    assert read_poll(feed, PAIRS, NOW, None).at == pytest.approx(at, abs=1)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"<!DOCTYPE html><title>502</title>", "found HTML: <!DOCTYPE"),
        (b'{"header": {}}', "found something else"),
        (b"not a feed at all", "found something else"),
        (b"\x12\x03\n\x01x", "found something else"),  # an entity, and no header
    ],
)
def test_what_is_no_feed_is_refused(body, match):
    with pytest.raises(AnswerChanged, match=match):
        read_feed(ASKED, body)


def test_differences_to_an_earlier_feed_are_refused(trip_updates):
    with pytest.raises(AnswerChanged, match="DIFFERENTIAL"):
        read_feed(ASKED, trip_updates(AT, (T1, []), incrementality="DIFFERENTIAL"))


def test_an_empty_feed_and_an_empty_body_are_unavailable(trip_updates):
    for body in (trip_updates(AT), b"", b"\n"):
        with pytest.raises(SourceUnavailable):
            read_feed(ASKED, body)


def test_a_feed_of_other_things_is_refused_by_its_name():
    feed = FeedMessage()
    feed.header.gtfs_realtime_version = "2.0"
    feed.entity.add(id="1").vehicle.trip.trip_id = "t1"
    with pytest.raises(AnswerChanged, match="found vehicle. Name the feed of TripUpdates"):
        read_feed(ASKED, feed.SerializeToString())
