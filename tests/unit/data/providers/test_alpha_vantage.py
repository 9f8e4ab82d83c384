"""Alpha Vantage: months asked for, New York's time, and errors that come with HTTP 200 and quote the key."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forecastle.data.providers.alpha_vantage import parse, requests
from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable, TaskError
from forecastle.settings import Settings
from forecastle.task import Task, make_task

NOW = datetime(2026, 7, 16, 20, 20, tzinfo=UTC)
SETTINGS = Settings(alpha_vantage_key="SECRETKEY1", _env_file=None)  # type: ignore[call-arg]
HOUR = timedelta(hours=1)


def make(**changes: Any) -> Task:
    data: dict[str, Any] = {
        "name": "shares",
        "domain": "financial",
        "frequency": "5m",
        "horizon": "10m",
        "target": "close",
        "grid": "observed",
        "source": {"provider": "alpha-vantage"},
        "columns": {"open": {}, "close": {}, "volume": {}},
        "series": [{"id": "IBM"}, {"id": "microsoft", "source_id": "MSFT"}],
    }
    return make_task(data | changes)


TASK = make()


def answer(bars: dict[str, str], symbol: str = "IBM", zone: str = "US/Eastern") -> dict[str, Any]:
    """Return a month in the documented layout: local times, and closing prices as text."""
    return {
        "Meta Data": {
            "1. Information": "Intraday (5min) open, high, low, close prices and volume",
            "2. Symbol": symbol,
            "3. Last Refreshed": max(bars, default=""),
            "4. Interval": "5min",
            "5. Output Size": "Full size",
            "6. Time Zone": zone,
        },
        "Time Series (5min)": {
            at: {"1. open": "10.5", "2. high": "12", "3. low": "9", "4. close": close, "5. volume": "300"}
            for at, close in bars.items()
        },
    }


def read(said: Any, task: Task = TASK) -> list[tuple[Any, ...]]:
    return parse(task, requests(task, SETTINGS, NOW - HOUR, NOW, NOW)[0], json.dumps(said).encode()).rows()


def test_the_past_is_asked_for_month_by_month_and_series_by_series():
    calls = requests(TASK, SETTINGS, datetime(2025, 11, 30, 22, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC), NOW)
    asked = [(call.params["symbol"], call.params["month"]) for call in calls]
    assert asked == [("IBM", "2025-11"), ("IBM", "2025-12"), ("MSFT", "2025-11"), ("MSFT", "2025-12")]
    assert calls[0].url == "https://www.alphavantage.co/query"
    assert dict(calls[0].params) == {
        "function": "TIME_SERIES_INTRADAY",
        "interval": "5min",
        "outputsize": "full",
        "adjusted": "false",
        "extended_hours": "false",
        "apikey": "SECRETKEY1",
        "symbol": "IBM",
        "month": "2025-11",
    }
    assert "SECRETKEY1" not in calls[0].address


def test_a_window_over_the_turn_of_a_month_is_one_call_for_the_trailing_thirty_days():
    now = datetime(2026, 7, 1, 15, tzinfo=UTC)
    call, _ = requests(TASK, SETTINGS, now - 48 * HOUR, now, now)
    assert "month" not in call.params and call.params["outputsize"] == "full"
    assert len(requests(TASK, SETTINGS, now - 40 * 24 * HOUR, now, now)) == 2 * 3
    with pytest.raises(AnswerChanged, match="IBM of the last thirty days"):
        parse(TASK, call, json.dumps({"Error Message": "Invalid API call."}).encode())


def test_no_month_is_asked_for_from_before_there_were_bars_or_after_now():
    months = [call.params["month"] for call in requests(TASK, SETTINGS, TASK.start, NOW + 99 * 24 * HOUR, NOW)]
    assert (months[0], max(months)) == ("2000-01", "2026-07")


def test_times_are_new_yorks_in_summer_and_winter():
    rows = read(answer({"2026-07-15 09:30:00": "11.25", "2026-01-15 09:30:00": "12"}))
    assert [row[1] for row in rows] == [
        datetime(2026, 7, 15, 13, 30, tzinfo=UTC),
        datetime(2026, 1, 15, 14, 30, tzinfo=UTC),
    ]
    assert rows[0][2:] == (10.5, 11.25, 300.0)


def test_a_bar_still_open_is_dropped_and_a_batch_is_made(collect):
    def reply(request: Any) -> Any:
        return answer({"2026-07-16 16:15:00": "2", "2026-07-16 16:20:00": "3"}, request.url.params["symbol"])

    batch, source = collect(TASK, reply, NOW - HOUR, NOW, alpha_vantage_key="SECRETKEY1")
    assert len(source.asked) == 2
    assert batch.rows.select("series_id", "timestamp", "close").rows() == [
        ("IBM", NOW - timedelta(minutes=5), 2.0),
        ("microsoft", NOW - timedelta(minutes=5), 2.0),
    ]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"Note": "Our standard API call frequency is 5 calls per minute and 500 calls per day."}, SourceUnavailable),
        ({"Information": "Our standard API rate limit is 25 requests per day."}, SourceUnavailable),
        ({"Information": "Thank you! This is a premium endpoint. 75 requests per minute …"}, AnswerChanged),
        ({"Error Message": "Invalid API call. Please retry or visit the documentation."}, AnswerChanged),
        ({"Error Message": "the parameter apikey is invalid or missing."}, AnswerChanged),
        ({}, SourceUnavailable),
        ([], AnswerChanged),
        ({"Meta Data": {}}, AnswerChanged),
        (answer({}, symbol="MSFT"), AnswerChanged),
        (answer({}, zone="UTC"), AnswerChanged),
        (answer({}) | {"Time Series (5min)": []}, AnswerChanged),
        (answer({}) | {"Time Series (5min)": {"2026-07-15 09:30:00": {"1. open": "1"}}}, AnswerChanged),
        (answer({"yesterday": "1"}), AnswerChanged),
        (answer({"2026-07-15 09:30:00": "None"}), AnswerChanged),
    ],
)
def test_what_is_no_month_of_bars_is_refused_and_what_heals_by_waiting_says_so(said, kind):
    with pytest.raises(kind):
        read(said)


@pytest.mark.parametrize("echoed", ["SECRETKEY1", "secretkey1"])
def test_a_key_that_the_source_quotes_reaches_no_message_and_no_archive(collect, tmp_path, echoed):
    said = {"Information": f"We have detected your API key as {echoed} and our standard API rate limit is 25 per day."}
    with pytest.raises(SourceUnavailable, match=r"API key as \*\*\*") as refused:
        collect(TASK, lambda _: said, NOW - HOUR, NOW, alpha_vantage_key="SECRETKEY1")
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"detected" in kept
    assert "secretkey1" not in str(refused.value).lower() + kept.decode().lower()


def test_without_a_key_or_with_a_column_or_step_it_does_not_have_nothing_is_asked():
    with pytest.raises(SettingsError, match="FORECASTLE_ALPHA_VANTAGE_KEY"):
        requests(TASK, Settings(_env_file=None), NOW, NOW, NOW)  # type: ignore[call-arg]
    with pytest.raises(TaskError, match="column 'closing'; did you mean 'close'"):
        requests(make(columns={"closing": {}}, target="closing"), SETTINGS, NOW, NOW, NOW)
    with pytest.raises(TaskError, match="a step of 10m"):
        requests(make(frequency="10m"), SETTINGS, NOW, NOW, NOW)
