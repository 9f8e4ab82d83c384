"""The static timetable: service days, times after midnight, and what is no timetable."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, date, datetime
from typing import Any

import pytest

from forecastle.data.providers.gtfs_timetable import Call, read_timetable
from forecastle.errors import AnswerChanged
from forecastle.http import Request

ASKED = Request("https://agency.example/gtfs.zip")
CALLS = [
    ("t1", "Orange", "70026", 10, "05:10:00", "05:11:00"),
    ("t1", "Orange", "70024", 20, " 5:15:00", "5:15:30"),
    ("t2", "Orange", "70026", 10, "25:10:00", "25:10:30"),
    ("t9", "Blue", "70040", 10, "06:00:00", "06:00:00"),
]


def read(body: bytes, *pairs: str) -> Any:
    return read_timetable(ASKED, body, pairs or ("Orange/70026",))


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def test_the_trips_of_the_tasks_routes_are_read_and_no_others(gtfs_zip):
    table = read(gtfs_zip(*CALLS))
    assert sorted(table.trips) == ["t1", "t2"]
    assert table.trips["t1"].calls == {10: Call("70026", 18600, 18660), 20: Call("70024", 18900, 18930)}
    assert (str(table.zone), table.version) == ("America/New_York", "")


def test_a_time_after_midnight_is_of_the_day_after_the_service_day(gtfs_zip):
    table = read(gtfs_zip(*CALLS))
    assert utc(table.moment(date(2026, 7, 1), table.trips["t2"].calls[10].arrival)) == datetime(
        2026, 7, 2, 5, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("day", "eight"),
    [
        (date(2026, 3, 7), datetime(2026, 3, 7, 13, tzinfo=UTC)),
        (date(2026, 3, 8), datetime(2026, 3, 8, 12, tzinfo=UTC)),  # the clocks go forward at two
        (date(2026, 11, 1), datetime(2026, 11, 1, 13, tzinfo=UTC)),  # and back
    ],
)
def test_on_the_days_the_clocks_change_eight_is_eight_by_the_clock(gtfs_zip, day, eight):
    assert utc(read(gtfs_zip(*CALLS)).moment(day, 8 * 3600)) == eight


def test_times_before_the_change_of_the_clocks_count_from_noon_less_twelve_hours(gtfs_zip):
    midnight = utc(read(gtfs_zip(*CALLS)).moment(date(2026, 3, 8), 0))
    assert midnight == datetime(2026, 3, 8, 4, tzinfo=UTC)  # 23:00 of the evening before, New York's time


def test_a_trip_without_a_date_is_of_the_day_that_fits_best(gtfs_zip):
    table = read(gtfs_zip(*CALLS))
    late = datetime(2026, 7, 2, 5, 20, tzinfo=UTC).timestamp()  # 01:20 in New York
    assert table.nearest_day(25 * 3600 + 600, late) == date(2026, 7, 1)
    assert table.nearest_day(3600, late) == date(2026, 7, 2)
    early = datetime(2026, 7, 2, 3, 58, tzinfo=UTC).timestamp()  # 23:58, for a trip due at 00:01
    assert table.nearest_day(60, early) == date(2026, 7, 2)


def test_a_call_is_found_by_its_sequence_else_by_its_stop_from_the_end(gtfs_zip):
    loop = [("t", "R", "x", 1, "08:00:00", "08:00:00"), ("t", "R", "y", 2, "08:10:00", "08:10:00")]
    trip = read(gtfs_zip(*loop, ("t", "R", "x", 3, "08:20:00", "08:20:00")), "R/x").trips["t"]
    assert trip.call(1, "", 0).arrival == 8 * 3600
    assert trip.call(None, "x", 0).arrival == 8 * 3600 + 1200
    assert trip.call(None, "x", 1).arrival == 8 * 3600
    assert trip.call(99, "y", 0).stop_id == "y"  # a feed that numbers stops in its own way
    assert trip.call(None, "x", 2) is None
    assert trip.call(7, "z", 0) is None


def test_the_version_and_what_repeats_are_read_where_they_are_told(gtfs_zip):
    body = gtfs_zip(
        *CALLS,
        feed_info="\ufefffeed_publisher_name, feed_version\nThe Agency,Summer 2026\n",
        frequencies="trip_id,start_time,end_time,headway_secs,exact_times\nt1,05:00:00,09:00:00,600,1\n"
        "t2,1:00:00,2:00:00,60,\n",
    )
    table = read(body)
    assert table.version == "Summer 2026"
    assert (table.trips["t1"].exact, table.trips["t2"].exact) == (True, False)
    assert read(gtfs_zip(*CALLS)).trips["t1"].exact is None


def test_a_time_the_timetable_leaves_open_is_missing(gtfs_zip):
    table = read(gtfs_zip(*CALLS, ("t1", "Orange", "70022", 30, "", "")))
    assert table.trips["t1"].calls[30] == Call("70022", None, None)


def test_none_of_the_tasks_stops_is_refused_with_the_nearest(gtfs_zip):
    with pytest.raises(AnswerChanged, match="did you mean 'Orange/70026'"):
        read(gtfs_zip(*CALLS), "Orange/7002")
    with pytest.raises(AnswerChanged, match="did you mean 'Orange'"):
        read(gtfs_zip(*CALLS), "Oranje/70026")
    assert read(gtfs_zip(*CALLS), "Orange/70026", "Orange/0").trips


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"agency": "agency_id,agency_timezone\n1,Mars/Olympus\n"}, "a time zone in agency.txt"),
        ({"agency": ""}, "a time zone in agency.txt"),
        ({"trips": "route,trip\na,b\n"}, "trip_id in trips.txt"),
        (
            {"stop_times": "trip_id,arrival_time,stop_id,stop_sequence\nt1,soon,70026,1\n"},
            "'soon' in arrival_time of trip 't1'",
        ),
        ({"stop_times": 'trip_id,arrival_time\nt1,"x\n'}, "stop"),
    ],
)
def test_another_layout_is_refused_with_its_place(gtfs_zip, changed, match):
    with pytest.raises(AnswerChanged, match=match):
        read(gtfs_zip(*CALLS, **changed))


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"PK\x03\x04 broken"])
def test_what_is_no_zip_is_refused(body):
    with pytest.raises(AnswerChanged, match="a zip of GTFS tables"):
        read(body)


def test_a_zip_without_stop_times_is_refused_with_what_it_holds(gtfs_zip):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as folder:
        folder.writestr("agency.txt", "agency_timezone\nUTC\n")
        folder.writestr("trips.txt", "trip_id,route_id\nt1,Orange\n")
    with pytest.raises(AnswerChanged, match="stop_times.txt in agency.example/gtfs.zip; found agency.txt, trips.txt"):
        read(packed.getvalue())
