"""Open-Meteo: what is asked, and how its documented answers are read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from forecastle.data.providers import PROVIDERS, open_meteo
from forecastle.data.providers.open_meteo import parse, requests
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, make_task

NOW = datetime(2026, 7, 16, 10, 20, tzinfo=UTC)
TWO_DAYS = timedelta(days=2)
SETTINGS = Settings()


def make(**changes: Any) -> Task:
    places = [
        {"id": "ADL", "latitude": -34.76, "longitude": 138.65},
        {"id": "OSL", "latitude": 59.91, "longitude": 10.75},
    ]
    data: dict[str, Any] = {
        "name": "weather",
        "domain": "environmental",
        "frequency": "1h",
        "horizon": "6h",
        "target": "temperature_2m",
        "source": {"provider": "open-meteo", "instantaneous": True},
        "columns": {"temperature_2m": {"unit": "°C"}, "wind_speed_10m": {"unit": "m/s"}},
        "series": places,
    }
    return make_task(data | changes)


TASK = make()
CALL = requests(TASK, SETTINGS, NOW - TWO_DAYS, NOW, NOW)[0]


def block(**changes: Any) -> dict[str, Any]:
    """Return one place's part of an answer, in the documented layout."""
    whole: dict[str, Any] = {
        "latitude": -34.76274,
        "longitude": 138.64557,
        "generationtime_ms": 1.9,
        "utc_offset_seconds": 0,
        "timezone": "GMT",
        "timezone_abbreviation": "GMT",
        "elevation": 12.0,
        "hourly_units": {"time": "iso8601", "temperature_2m": "°C", "wind_speed_10m": "m/s"},
        "hourly": {
            "time": ["2026-07-16T00:00", "2026-07-16T01:00", "2026-07-16T02:00"],
            "temperature_2m": [6.5, None, 7],
            "wind_speed_10m": [2.6, 2.72, None],
        },
    }
    return whole | changes


def hourly(**changes: Any) -> dict[str, Any]:
    return block(hourly=block()["hourly"] | changes)


def body(*blocks: Any) -> bytes:
    return json.dumps(list(blocks) if len(blocks) > 1 else blocks[0], ensure_ascii=False).encode()


def days_asked(calls: tuple[Request, ...], today: date) -> list[date]:
    """Return every day the calls' answers hold, in the order of the calls."""
    days = []
    for call in calls:
        if "past_days" in call.params:
            first, last = today - timedelta(days=int(call.params["past_days"])), today
        else:
            first, last = (date.fromisoformat(call.params[name]) for name in ("start_date", "end_date"))
        days += [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return days


def test_the_recent_past_is_one_call_for_all_places_columns_and_si_units():
    assert len(requests(TASK, SETTINGS, NOW - TWO_DAYS, NOW, NOW)) == 1
    assert CALL.url == "https://api.open-meteo.com/v1/forecast"
    assert CALL.params == {
        "latitude": "-34.76,59.91",
        "longitude": "138.65,10.75",
        "hourly": "temperature_2m,wind_speed_10m",
        "timezone": "GMT",
        "wind_speed_unit": "ms",
        "past_days": "2",
        "forecast_days": "1",
    }


@pytest.mark.parametrize("hours", [0, 1, 11, 48, 24 * 89, 24 * 91, 24 * 400, 24 * 2000])
def test_every_day_of_the_window_is_asked_for_exactly_once(hours):
    start = NOW - timedelta(hours=hours)
    days = days_asked(requests(TASK, SETTINGS, start, NOW, NOW), NOW.date())
    assert days == [start.date() + timedelta(days=number) for number in range((NOW.date() - start.date()).days + 1)]


def test_older_days_come_from_the_archive_a_quarter_a_call():
    calls = requests(TASK, SETTINGS, datetime(2025, 11, 15, tzinfo=UTC), NOW, NOW)
    asked = [(call.params["start_date"], call.params["end_date"]) for call in calls[:-1]]
    assert asked == [("2025-11-15", "2025-12-31"), ("2026-01-01", "2026-03-31"), ("2026-04-01", "2026-04-16")]
    assert {call.url for call in calls[:-1]} == {"https://archive-api.open-meteo.com/v1/archive"}
    assert calls[-1].params["past_days"] == "90"


def test_a_window_that_ended_long_ago_needs_no_forecast_call():
    end = datetime(2020, 2, 1, tzinfo=UTC)
    calls = requests(TASK, SETTINGS, datetime(2020, 1, 5, tzinfo=UTC), end, NOW)
    assert [call.params.get("end_date") for call in calls] == ["2020-02-01"]


def test_days_that_have_not_come_are_not_asked_for():
    assert requests(TASK, SETTINGS, NOW + timedelta(days=1), NOW + timedelta(days=3), NOW) == ()


def test_many_places_are_split_into_calls_and_each_answer_knows_its_own():
    many = [{"id": f"p{n}", "latitude": n / 4 - 60, "longitude": 10.0} for n in range(250)]
    task = make(series=many)
    calls = requests(task, SETTINGS, NOW, NOW, NOW)
    assert [call.params["latitude"].count(",") + 1 for call in calls] == [100, 100, 50]
    found = [
        parse(task, call, body(*[block()] * size))["series_id"].unique() for call, size in zip(calls, (100, 100, 50))
    ]
    assert sorted(pl.concat(found).to_list()) == sorted(task.series_ids)


def test_the_addresses_come_from_the_settings():
    settings = Settings(open_meteo_url="http://127.0.0.1:1", open_meteo_archive_url="http://127.0.0.1:2")
    calls = requests(TASK, settings, NOW - timedelta(days=100), NOW, NOW)
    assert [call.url for call in calls] == ["http://127.0.0.1:2/v1/archive", "http://127.0.0.1:1/v1/forecast"]


def test_each_place_of_a_list_is_a_series_in_the_order_asked():
    table = parse(TASK, CALL, body(block(), block()))
    assert table.schema == {
        "series_id": pl.String,
        "timestamp": pl.Datetime("us", "UTC"),
        "temperature_2m": pl.Float64,
        "wind_speed_10m": pl.Float64,
    }
    assert table.rows()[:3] == [
        ("ADL", datetime(2026, 7, 16, 0, tzinfo=UTC), 6.5, 2.6),
        ("ADL", datetime(2026, 7, 16, 1, tzinfo=UTC), None, 2.72),
        ("ADL", datetime(2026, 7, 16, 2, tzinfo=UTC), 7.0, None),
    ]
    assert table["series_id"].to_list() == ["ADL"] * 3 + ["OSL"] * 3


def test_a_single_place_is_an_object_instead_of_a_list():
    task = make(series=[{"id": "ADL", "latitude": -34.76, "longitude": 138.65}])
    call = requests(task, SETTINGS, NOW, NOW, NOW)[0]
    assert parse(task, call, body(block())).height == 3


def test_times_are_local_to_the_offset_the_answer_names():
    table = parse(TASK, CALL, body(block(utc_offset_seconds=34200), block(utc_offset_seconds=-3600)))
    assert table["timestamp"][0] == datetime(2026, 7, 15, 14, 30, tzinfo=UTC)
    assert table["timestamp"][3] == datetime(2026, 7, 16, 1, tzinfo=UTC)


def test_an_hour_in_which_every_value_is_null_is_no_observation():
    table = parse(TASK, CALL, body(hourly(temperature_2m=[None] * 3, wind_speed_10m=[None, 1.0, None]), block()))
    assert table.filter(series_id="ADL").rows() == [("ADL", datetime(2026, 7, 16, 1, tzinfo=UTC), None, 1.0)]


def test_a_null_of_the_only_column_is_a_missing_value_until_the_hours_that_have_not_come():
    task = make(columns={"temperature_2m": {"unit": "°C"}})
    table = parse(task, CALL, body(hourly(temperature_2m=[6.5, None, 7]), hourly(temperature_2m=[6.5, None, None])))
    assert table.filter(series_id="ADL")["temperature_2m"].to_list() == [6.5, None, 7]
    assert table.filter(series_id="OSL")["temperature_2m"].to_list() == [6.5]
    assert parse(task, CALL, body(*[hourly(temperature_2m=[None] * 3)] * 2)).is_empty()


def test_columns_and_blocks_nobody_asked_for_are_ignored():
    more = block(daily={"time": []}, hourly=block()["hourly"] | {"rain": ["?"]})
    assert parse(TASK, CALL, body(more, block())).equals(parse(TASK, CALL, body(block(), block())))


def test_a_unit_is_the_same_in_either_spelling_of_micro():
    task = make(target="pm2_5", columns={"pm2_5": {"unit": "\N{MICRO SIGN}g/m³"}}, series=[TASK.series[0].model_dump()])
    call = requests(task, SETTINGS, NOW, NOW, NOW)[0]
    units = {"time": "iso8601", "pm2_5": "\N{GREEK SMALL LETTER MU}g/m³"}
    answer = block(hourly_units=units, hourly={"time": ["2026-07-16T00:00"], "pm2_5": [5.8]})
    assert parse(task, call, body(answer))["pm2_5"].to_list() == [5.8]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"<!DOCTYPE html><p>maintenance</p>", ["JSON", "HTML", "maintenance"]),
        (b'{"latitude": ', ["JSON"]),
        (b"[" * 100_000, ["JSON"]),
        (body(block(), {}), ["OSL", "hourly_units", "an empty object"]),
        (body(block(), "text"), ["OSL", "str"]),
        (body(block(), block(utc_offset_seconds=None)), ["OSL", "utc_offset_seconds"]),
        (body(block()), ["2 places (ADL, OSL)", "1 in the answer"]),
        (body(block(), block(), block()), ["2 places", "3 in the answer"]),
        (
            body(hourly(temperature_2m=[6.5, 7.0]), block()),
            ["ADL", "3 times but 2 values of temperature_2m", "2026-07-16T00:00"],
        ),
        (
            body(block(), block(hourly={"time": [], "temperature": [], "wind_speed_10m": []})),
            ["OSL", "did you mean 'temperature'?"],
        ),
        (body(hourly(time=["2026-07-16T00:00", "16.7.2026", "2026-07-16T02:00"]), block()), ["ADL", "'16.7.2026'"]),
        (body(hourly(time=["2026-07-16T00:00", 1752624000, None]), block()), ["ADL", "1752624000"]),
        (
            body(block(), hourly(wind_speed_10m=[1.0, "calm", 2.0])),
            ["wind_speed_10m of series OSL", "'calm' at 2026-07-16T01:00"],
        ),
        (body(hourly(temperature_2m=[True, 1.0, 2.0]), block()), ["temperature_2m", "True"]),
        (body({"error": True, "reason": "Cannot initialize WeatherVariable"}), ["Cannot initialize WeatherVariable"]),
    ],
)
def test_an_answer_that_is_not_the_agreed_layout_is_refused_with_its_place(bad, words):
    with pytest.raises(AnswerChanged) as refused:
        parse(TASK, CALL, bad)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(("unit", "words"), [("°F", "'°F'"), ("°Ré", "a unit it did not have before"), (None, "None")])
def test_another_unit_than_the_task_says_is_refused_by_name(unit, words):
    answer = block(hourly_units={"time": "iso8601", "temperature_2m": unit, "wind_speed_10m": "m/s"})
    with pytest.raises(AnswerChanged, match="temperature_2m of series OSL in '°C'") as refused:
        parse(TASK, CALL, body(block(), answer))
    assert words in refused.value.found


@pytest.mark.parametrize(
    "nothing", [b"", b" \n", b"[]", body(*[hourly(time=[], temperature_2m=[], wind_speed_10m=[])] * 2)]
)
def test_an_empty_answer_means_the_source_is_unavailable(nothing):
    with pytest.raises(SourceUnavailable, match=r"api\.open-meteo\.com"):
        parse(TASK, CALL, nothing)


def test_a_spent_limit_means_the_source_is_unavailable_whatever_the_status_was():
    with pytest.raises(SourceUnavailable, match="Hourly API request limit exceeded"):
        parse(TASK, CALL, body({"error": True, "reason": "Hourly API request limit exceeded."}))


def test_an_answer_for_places_the_task_no_longer_has_is_refused():
    other = make(series=[{"id": "ROM", "latitude": 41.9, "longitude": 12.5}])
    with pytest.raises(AnswerChanged, match="Collect again"):
        parse(other, CALL, body(block(), block()))


def test_the_provider_is_registered_under_its_name():
    assert PROVIDERS["open-meteo"].parse is open_meteo.parse


AIR = make(columns={"pm2_5": {"unit": "μg/m³"}, "us_aqi": {"unit": "USAQI"}}, target="pm2_5")
BOTH = make(columns={"pm2_5": {"unit": "μg/m³"}, "temperature_2m": {"unit": "°C"}}, target="pm2_5")


def air(**values: list[Any]) -> dict[str, Any]:
    units = {"pm2_5": "μg/m³", "us_aqi": "USAQI"}
    times = ["2026-07-16T00:00", "2026-07-16T01:00", "2026-07-16T02:00"]
    return block(
        hourly={"time": times, **values}, hourly_units={"time": "iso8601"} | {name: units[name] for name in values}
    )


def test_air_quality_is_asked_of_its_own_host_for_many_places_and_for_the_past_too():
    old, recent = requests(AIR, SETTINGS, NOW - timedelta(days=100), NOW, NOW)
    assert {call.url for call in (old, recent)} == {"https://air-quality-api.open-meteo.com/v1/air-quality"}
    assert recent.params["hourly"] == "pm2_5,us_aqi"
    assert recent.params["latitude"] == "-34.76,59.91"
    assert (recent.params["past_days"], recent.params["forecast_days"]) == ("90", "1")
    assert (old.params["start_date"], old.params["end_date"]) == ("2026-04-07", "2026-04-16")
    other = Settings(open_meteo_air_quality_url="http://localhost:1")
    assert requests(AIR, other, NOW, NOW, NOW)[0].url == "http://localhost:1/v1/air-quality"


def test_air_quality_alone_is_read_as_weather_is():
    call = requests(AIR, SETTINGS, NOW, NOW, NOW)[0]
    one = air(pm2_5=[5.8, 6, None], us_aqi=[22, 23, None])
    table = parse(AIR, call, body(one, one))
    assert table.filter(series_id="OSL").select("pm2_5", "us_aqi").rows() == [(5.8, 22.0), (6.0, 23.0)]
    assert PROVIDERS["open-meteo"].join(AIR, [table]) == [table]


def test_weather_and_air_quality_are_asked_apart_and_make_one_row_an_hour():
    weather, own = requests(BOTH, SETTINGS, NOW, NOW, NOW)
    assert (weather.params["hourly"], own.params["hourly"]) == ("temperature_2m", "pm2_5")
    sky = block(hourly={"time": block()["hourly"]["time"], "temperature_2m": [6.5, 7.5, 8.5]})
    dust = air(pm2_5=[5.8, None, 6.1])
    (table,) = PROVIDERS["open-meteo"].join(
        BOTH, [parse(BOTH, weather, body(sky, sky)), parse(BOTH, own, body(dust, dust))]
    )
    found = table.filter(series_id="OSL").sort("timestamp").select("pm2_5", "temperature_2m").rows()
    assert found == [(5.8, 6.5), (None, 7.5), (6.1, 8.5)]


def test_an_hour_that_only_one_of_the_two_has_is_a_row_with_the_other_missing():
    weather, own = requests(BOTH, SETTINGS, NOW, NOW, NOW)
    sky = block(hourly={"time": ["2026-07-16T03:00"], "temperature_2m": [6.5]})
    dust = air(pm2_5=[5.8, 5.9, 6.1])
    (table,) = PROVIDERS["open-meteo"].join(
        BOTH, [parse(BOTH, weather, body(sky, sky)), parse(BOTH, own, body(dust, dust))]
    )
    found = table.filter(series_id="OSL").sort("timestamp").select("pm2_5", "temperature_2m").rows()
    assert found == [(5.8, None), (5.9, None), (6.1, None), (None, 6.5)]


def test_air_quality_in_another_unit_is_refused():
    call = requests(AIR, SETTINGS, NOW, NOW, NOW)[0]
    wrong = air(pm2_5=[1], us_aqi=[1]) | {"hourly_units": {"pm2_5": "mg/m³", "us_aqi": "USAQI"}}
    wrong["hourly"]["time"] = ["2026-07-16T00:00"]
    with pytest.raises(AnswerChanged, match="pm2_5 of series ADL in 'μg/m³'"):
        parse(AIR, call, body(wrong, wrong))


def test_as_many_days_are_asked_for_as_forecasts_are_used_of_and_no_more_than_the_api_has():
    def days(horizon: str, **columns: Any) -> list[str]:
        task = make(horizon=horizon, columns={"temperature_2m": {"unit": "°C"}, **columns})
        return [call.params["forecast_days"] for call in requests(task, SETTINGS, NOW - TWO_DAYS, NOW, NOW)]

    wind, ozone = {"unit": "m/s", "ahead": True}, {"unit": "μg/m³", "ahead": True}
    assert days("6h", wind_speed_10m={"unit": "m/s"}) == ["1"]
    assert days("6h", wind_speed_10m=wind) == ["2"] and days("25h", wind_speed_10m=wind) == ["3"]
    assert days("480h", wind_speed_10m=wind) == ["16"]
    assert days("240h", ozone=ozone) == ["1", "7"]  # weather, of which nothing is known ahead, and air quality
