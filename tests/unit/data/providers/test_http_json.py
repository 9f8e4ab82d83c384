"""Any JSON API by declaration: what is asked, page by page, and how rows, times, values, units and errors are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from forecastle.data.providers import PROVIDERS
from forecastle.data.providers.http_json import parse, requests, shipped
from forecastle.declaration import KEY_SETTINGS, PLACES, placeholders
from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable, TaskError
from forecastle.settings import Settings
from forecastle.task import Provider, Task, make_task

NOW = datetime(2026, 7, 16, 10, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
SETTINGS = Settings(_env_file=None)  # type: ignore[call-arg]
API: dict[str, Any] = {
    "url": "https://air.example/v1/{series}",
    "params": {"from": "{start_s}", "to": "{end_s}"},
    "rows": "data.rows",
    "time": "at",
}


def make(columns: dict[str, Any] | None = None, source: dict[str, Any] | None = None, **declared: Any) -> Task:
    return make_task(
        {
            "name": "air",
            "domain": "environmental",
            "frequency": "1h",
            "horizon": "3h",
            "target": "ozone",
            "source": {"provider": "http-json", "http_json": API | declared} | (source or {}),
            "columns": columns or {"ozone": {"unit": "µg/m³"}},
            "series": [{"id": "north", "source_id": "st/1"}, {"id": "south", "source_id": "st2"}],
        }
    )


def rows(*found: tuple[Any, Any]) -> dict[str, Any]:
    return {"data": {"rows": [{"at": at, "ozone": value} for at, value in found]}}


def read(task: Task, answer: bytes, call: int = 0) -> list[tuple[Any, ...]]:
    return parse(task, requests(task, Settings(http_json_key="k3y"), NOW - 2 * HOUR, NOW, NOW)[call], answer).rows()


def refuse(task: Task, answer: bytes, kind: type[Exception] = AnswerChanged) -> str:
    with pytest.raises(kind) as refused:
        read(task, answer)
    return str(refused.value)


def test_every_provider_a_task_may_name_is_there():
    assert set(Provider.__args__) == set(PROVIDERS)  # type: ignore[attr-defined]


def test_every_key_a_declaration_may_name_is_a_secret_setting():
    secrets = {name for name in Settings.model_fields if name.endswith("_key")}
    assert secrets - {"gtfs_realtime_key", "service_key"} == set(KEY_SETTINGS)  # those are of no JSON API


def test_a_call_a_series_is_filled_with_the_window_and_the_sources_own_name():
    calls = requests(make(), SETTINGS, NOW - 2 * HOUR, NOW, NOW)
    assert [call.url for call in calls] == ["https://air.example/v1/st%2F1", "https://air.example/v1/st2"]
    assert calls[0].params == {"from": "1784190000", "to": "1784197200"}
    assert [call.series for call in calls] == [("north",), ("south",)]


def test_one_call_may_ask_for_all_series_and_rows_say_which_they_are_of():
    task = make(url="https://air.example/v1", params={"ids": "{series}"}, calls="all", series="id")
    (call,) = requests(task, SETTINGS, NOW, NOW, NOW)
    assert call.params == {"ids": "st/1,st2"}
    answer = b"""{"data": {"rows": [{"id": "st2", "at": "2026-07-16T08:00Z", "ozone": 3},
        {"id": "st/1", "at": "2026-07-16T08:00Z", "ozone": "4.5"}, {"id": "other", "at": "?", "ozone": 9}]}}"""
    assert parse(task, call, answer).select("series_id", "ozone").rows() == [("south", 3.0), ("north", 4.5)]


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        ({"time_format": "s"}, b"1784188800"),
        ({"time_format": "ms"}, b'"1784188800000"'),
        ({}, b'"2026-07-16T08:00:00Z"'),
        ({}, b'"2026-07-16T10:00+02:00"'),
        ({}, b'"2026-07-16 08:00:00"'),
        ({"zone": "America/New_York"}, b'"2026-07-16 04:00:00"'),
    ],
)
def test_times_are_read_as_declared(declared, given):
    answer = b'{"data": {"rows": [{"at": %s, "ozone": 1}]}}' % given
    assert read(make(**declared), answer) == [("north", NOW.replace(hour=8, minute=0), 1.0)]


@pytest.mark.parametrize("local", ["2025-11-02 01:30:00", "2026-03-08 02:30:00"])
def test_a_local_time_that_exists_twice_or_never_is_refused(local):
    answer = b'{"data": {"rows": [{"at": "%s", "ozone": 1}]}}' % local.encode()
    assert "clocks change in America/New_York; ask for UTC" in refuse(make(zone="America/New_York"), answer)


@pytest.mark.parametrize("wrong", [b'"soon"', b"null", b"true", b"[1]", b"1784188800"])
def test_what_is_no_time_is_refused(wrong):
    assert "a time such as" in refuse(make(), b'{"data": {"rows": [{"at": %s, "ozone": 1}]}}' % wrong)


def test_values_lie_where_the_declaration_says_and_what_is_not_there_is_missing():
    task = make({"ozone": {}, "pm10": {}}, values={"ozone": "all[?k=='o3'].v | [0]", "pm10": "other.pm"})
    answer = b'{"data": {"rows": [{"at": "2026-07-16T08:00Z", "all": [{"k": "no2", "v": 1}, {"k": "o3", "v": 7}]}]}}'
    assert read(task, answer)[0][2:] == (7.0, None)


@pytest.mark.parametrize("wrong", [b'"n/a"', b"true", b"[]"])
def test_a_value_that_is_no_number_is_refused_with_its_place(wrong):
    said = refuse(make(), b'{"data": {"rows": [{"at": "2026-07-16T08:00Z", "ozone": %s}]}}' % wrong)
    assert "numbers in ozone" in said
    assert "series north at 2026-07-16T08:00:00Z" in said


@pytest.mark.parametrize("body", [b"<html>Busy</html>", b'{"data": {}}', b'{"data": {"rows": 3}}', b"[]", b"7"])
def test_an_answer_without_the_declared_rows_is_refused(body):
    refuse(make(), body)


def test_no_body_is_a_source_that_does_not_answer_and_no_rows_are_none():
    refuse(make(), b" ", SourceUnavailable)
    assert read(make(), b'{"data": {"rows": []}}') == []


def test_a_unit_in_the_answer_must_be_the_tasks():
    task = make(unit_paths={"ozone": "units.o3"})
    assert read(task, '{"units": {"o3": "μg/m³"}, "data": {"rows": []}}'.encode()) == []  # the Greek mu
    assert "'ppb'" in refuse(task, b'{"units": {"o3": "ppb"}, "data": {"rows": []}}')
    refuse(task, b'{"data": {"rows": []}}')


def test_columns_and_units_the_declaration_does_not_have_are_mistakes_of_the_task():
    with pytest.raises(TaskError, match="column 'ozone'; did you mean 'ozon'"):
        requests(make(values={"ozon": "o"}), SETTINGS, NOW, NOW, NOW)
    with pytest.raises(TaskError, match="ozone in 'µg/m³', where the source sends 'ppb'"):
        requests(make(units={"ozone": "ppb"}), SETTINGS, NOW, NOW, NOW)


ERROR = {"found": "status == 'error'", "message": "why", "retry": "limit"}


def test_error_bodies_with_http_200_are_told_apart_by_what_heals():
    task = make(error=ERROR)
    assert "no such place" in refuse(task, b'{"status": "error", "why": "no such place"}')
    refuse(task, b'{"status": "error", "why": "Limit reached"}', SourceUnavailable)
    assert r"no \x00such" in refuse(task, rb'{"status": "error", "why": "no \u0000such place"}')
    assert read(task, b'{"status": "ok", "data": {"rows": []}}') == []


def test_the_window_is_cut_so_that_a_call_holds_its_rows_without_a_seam():
    task = make(paging={"rows": 10}, params={"from": "{start_text}", "to": "{end_text}"})
    calls = requests(task, SETTINGS, NOW - 20 * HOUR, NOW, NOW)[:3]
    assert [tuple(call.params.values()) for call in calls] == [
        ("2026-07-15 14:00:00", "2026-07-15 23:59:59"),
        ("2026-07-16 00:00:00", "2026-07-16 09:59:59"),
        ("2026-07-16 10:00:00", "2026-07-16 10:20:00"),
    ]


def test_a_start_before_there_was_anything_is_a_mistake_of_the_task():
    with pytest.raises(TaskError, match="Name a later start"):
        requests(make(paging={"rows": 10}), SETTINGS, datetime(1970, 1, 1, tzinfo=UTC), NOW, NOW)


def test_pages_are_counted_until_one_is_not_full(collect):
    def reply(request: httpx.Request) -> Any:
        page = int(request.url.params["page"])
        return rows(*((f"2026-07-16T0{number}:00Z", number) for number in range(2 * page, min(2 * page + 2, 7))))

    task = make(paging={"rows": 2, "page": "page"})
    batch, source = collect(task, reply, NOW - 24 * HOUR, NOW)
    assert [request.url.params["page"] for request in source.asked] == ["1", "2", "3"] * 2
    assert batch.rows.filter(series_id="north")["ozone"].to_list() == [2, 3, 4, 5, 6]
    assert len(batch.archived) == 6


def test_a_cursor_is_followed_to_its_end_and_one_that_stands_still_is_refused(collect):
    def reply(request: httpx.Request) -> Any:
        cursor = request.url.params.get("after", "0")
        return rows((f"2026-07-16T0{cursor}:00Z", 1)) | {"next": {"0": "1", "1": "2", "2": None}[cursor]}

    task = make(paging={"cursor": "after", "next": "next"})
    batch, source = collect(task, reply, NOW - 24 * HOUR, NOW)
    assert [request.url.params.get("after") for request in source.asked] == [None, "1", "2"] * 2
    assert batch.rows.height == 6
    with pytest.raises(AnswerChanged, match="found the same"):
        collect(task, lambda _: rows(("2026-07-16T00:00Z", 1)) | {"next": "9"}, NOW - HOUR, NOW)


def test_the_key_comes_from_its_setting_and_is_seen_nowhere(collect, tmp_path):
    task = make(secret={"param": "token", "setting": "http_json_key"}, error=ERROR)
    with pytest.raises(SettingsError, match="FORECASTLE_HTTP_JSON_KEY"):
        requests(task, SETTINGS, NOW, NOW, NOW)
    call, _ = requests(task, Settings(http_json_key="k3y"), NOW, NOW, NOW)
    assert call.params["token"] == "k3y"
    assert "k3y" not in call.address + repr(Settings(http_json_key="k3y"))
    said = {"status": "error", "why": "key k3y is unknown"}
    with pytest.raises(AnswerChanged) as refused:
        collect(task, lambda _: said, NOW - HOUR, NOW, http_json_key="k3y")
    assert "key *** is unknown" in str(refused.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"k3y" in path.read_bytes()] == []


def test_a_source_of_the_present_alone_is_judged_by_what_it_gave(collect):
    task = make(present=True, time_format="s", source={"provider": "http-json", "instantaneous": True})
    task = make_task(task.model_dump(mode="json") | {"source": task.source.model_dump(mode="json")})
    answer = rows((int(NOW.timestamp()) + 20, 5))  # made while it was asked for
    batch, source = collect(task, lambda _: answer, datetime(1970, 1, 1, tzinfo=UTC), NOW)
    assert len(source.asked) == 2
    assert batch.rows["timestamp"].unique().to_list() == [NOW] == [batch.start]
    too_late = rows((int(NOW.timestamp()) + 3600, 5))
    with pytest.raises(SourceUnavailable):
        collect(task, lambda _: too_late, NOW - HOUR, NOW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows": "data["}, "source.http_json.rows: expected a JMESPath expression, found 'data['"),
        ({"params": {"x": "{begin}"}}, "{begin} is nothing that can be filled in"),
        ({"url": "https://x.example/{start_s}"}, "url may not hold {start_s}; times belong in params"),
        ({"zone": "America/New_Yrok"}, "source.http_json.zone: there is no time zone 'America/New_Yrok'"),
        ({"calls": "all"}, "calls = 'all' needs series"),
        ({"paging": {"cursor": "after"}}, "cursor (a parameter) and next"),
        ({"paging": {"page": "page"}}, "page needs rows"),
        ({"row": "x"}, "source.http_json.row: there is no such field; did you mean 'rows'?"),
        ({"error": {"found": "x", "retry": "("}}, "source.http_json.error.retry: expected a regular expression"),
        ({"secret": {"param": "k", "setting": "twelve_dat_key"}}, "did you mean 'twelve_data_key'"),
        ({"secret": {"param": "from", "setting": "http_json_key"}}, "leave it out of params"),
    ],
)
def test_a_mistake_in_a_declaration_is_named_with_its_place(wrong, said):
    with pytest.raises(TaskError) as caught:
        make(**wrong)
    assert said in str(caught.value)


def test_a_declaration_belongs_to_http_json_alone():
    for source in ({"provider": "binance"}, {"http_json": None}):
        with pytest.raises(TaskError, match="belong together"):
            make(source=source)
    with pytest.raises(TaskError, match="provider 'binance' needs at least one"):
        make_task(make().model_dump(mode="json") | {"source": {"provider": "binance"}, "series": []})


# What the shipped declarations ask and read.


def market(provider: str, **changes: Any) -> Task:
    return make_task(
        {
            "name": "market",
            "domain": "financial",
            "frequency": "5m",
            "horizon": "10m",
            "target": "close",
            "source": {"provider": provider},
            "columns": {"open": {}, "close": {}, "volume": {}},
            "series": [{"id": "btc", "source_id": "BTCUSDT"}],
        }
        | changes
    )


def candle(at: datetime, close: str) -> list[Any]:
    opened = int(at.timestamp() * 1000)
    return [opened, "1.5", "3", "1", close, "12.5", opened + 299_999, "20", 7, "1", "2", "0"]


def test_binance_candles_are_asked_for_by_the_thousand_and_the_open_one_is_dropped(collect):
    first = NOW - timedelta(minutes=5 * 1500)

    def reply(request: httpx.Request) -> Any:
        begin, end = (int(request.url.params[name]) for name in ("startTime", "endTime"))
        at = [datetime.fromtimestamp(ms / 1000, UTC) for ms in range(-(-begin // 300_000) * 300_000, end + 1, 300_000)]
        assert len(at) <= 1000
        return [candle(one, "2") for one in at]

    batch, source = collect(market("binance"), reply, first, NOW)
    assert {str(request.url.copy_with(query=None)) for request in source.asked} == {
        "https://api.binance.com/api/v3/klines"
    }
    assert [request.url.params["interval"] for request in source.asked] == ["5m", "5m"]
    assert batch.rows["timestamp"].to_list() == [first + timedelta(minutes=5 * n) for n in range(1500)]
    assert batch.after_collection == 1  # the candle opened at NOW
    assert batch.rows.select("open", "close", "volume").row(0) == (1.5, 2.0, 12.5)
    assert batch.rows["available_at"].equals(batch.rows["timestamp"] + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, {"code": -1121, "msg": "Invalid symbol."}, AnswerChanged, "Invalid symbol"),
        (418, {"code": -1003, "msg": "Way too much request weight used; IP banned."}, SourceUnavailable, "HTTP 418"),
        (429, {"code": -1003, "msg": "Too much request weight used."}, SourceUnavailable, "HTTP 429"),
        (200, {"code": -1003, "msg": "Too much request weight used."}, SourceUnavailable, "Too much"),
    ],
)
def test_binances_refusals_are_told_apart(collect, status, body, kind, said):
    with pytest.raises(kind, match=said):
        collect(market("binance"), lambda _: httpx.Response(status, json=body), NOW - HOUR, NOW)


def test_twelve_data_is_asked_in_utc_and_its_text_is_read_as_numbers(collect):
    def reply(request: httpx.Request) -> Any:
        asked = dict(request.url.params)
        assert asked.pop("apikey") == "k3y"
        assert asked == {
            "symbol": "BTCUSDT",
            "interval": "5min",
            "start_date": "2026-07-16 09:20:00",
            "end_date": "2026-07-16 10:20:00",
            "timezone": "UTC",
            "order": "ASC",
            "outputsize": "5000",
            "format": "JSON",
        }
        value = {"datetime": "2026-07-16 09:20:00", "open": "1.25", "high": "2", "low": "1", "close": "1.5"}
        return {"meta": {"symbol": "BTCUSDT", "exchange_timezone": "America/New_York"}, "values": [value]}

    batch, _ = collect(market("twelve-data"), reply, NOW - HOUR, NOW, twelve_data_key="k3y")
    assert batch.rows.select("timestamp", "open", "close", "volume").rows() == [(NOW - HOUR, 1.25, 1.5, None)]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("You have run out of API credits for the current minute.", SourceUnavailable),
        ("**symbol** not found: FAKE.", AnswerChanged),
    ],
)
def test_twelve_datas_error_bodies_with_http_200_are_told_apart(collect, message, kind):
    body = {"code": 400, "message": message, "status": "error"}
    with pytest.raises(kind):
        collect(market("twelve-data"), lambda _: body, NOW - HOUR, NOW, twelve_data_key="k3y")


def test_a_step_the_source_has_no_candles_of_is_a_mistake_of_the_task():
    with pytest.raises(TaskError, match="a step of 10m; there are 1s, 1m, 5m"):
        requests(market("binance", frequency="10m"), SETTINGS, NOW, NOW, NOW)


CITY = {
    "coord": {"lon": -0.1257, "lat": 51.5085},
    "main": {"temp": 15.3, "pressure": 1022, "humidity": 75},
    "wind": {"speed": 1.54, "deg": 31},
    "rain": {"1h": 0.3},
    "dt": int((NOW - timedelta(minutes=8)).timestamp()),
    "name": "London",
    "cod": 200,
}


def test_openweathermap_gives_the_reading_of_now(collect):
    task = market(
        "openweathermap",
        frequency="1h",
        horizon="3h",
        target="temperature",
        columns={"temperature": {"unit": "°C"}, "rain": {"unit": "mm"}, "cloud_cover": {"unit": "%"}},
        source={"provider": "openweathermap", "instantaneous": True},
        series=[{"id": "london", "source_id": "London,GB"}],
    )
    batch, source = collect(task, lambda _: CITY, NOW - 48 * HOUR, NOW, True, openweathermap_key="k3y")
    assert dict(source.asked[0].url.params) == {"q": "London,GB", "units": "metric", "mode": "json", "appid": "k3y"}
    assert batch.rows.select("series_id", "timestamp", "temperature", "rain", "cloud_cover").rows() == [
        ("london", NOW - timedelta(minutes=8), 15.3, 0.3, None)
    ]
    for body, kind in (
        ({"cod": "404", "message": "city not found"}, AnswerChanged),
        ({"cod": 429, "message": "blocked due to exceeding of requests limitation"}, SourceUnavailable),
    ):
        with pytest.raises(kind):
            collect(task, lambda _, body=body: body, NOW - HOUR, NOW, openweathermap_key="k3y")


def test_shipped_declarations_have_values_for_their_units_and_addresses_that_are_settings():
    for name, provider in PROVIDERS.items():
        if provider.parse is parse and name != "http-json":
            declared = shipped(name)
            assert {*declared.units} <= {*declared.values}
            assert placeholders(declared.url) <= {*Settings.model_fields} | PLACES


def test_a_row_may_say_since_when_it_was_known():
    task = make(available_at="seen")
    answer = b"""{"data": {"rows": [{"at": "2026-07-16T08:00Z", "ozone": 3, "seen": "2026-07-16T09:17Z"},
        {"at": "2026-07-16T09:00Z", "ozone": 4}]}}"""
    call = requests(task, SETTINGS, NOW, NOW, NOW)[0]
    assert parse(task, call, answer)["available_at"].to_list() == [datetime(2026, 7, 16, 9, 17, tzinfo=UTC), None]
    bad = answer.replace(b"2026-07-16T09:17Z", b"soon")
    with pytest.raises(AnswerChanged, match="'soon'"):
        parse(task, call, bad)
