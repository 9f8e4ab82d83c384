"""The fault matrix: every fault of an answer is caught by the check, or the error, that FAULTS names.

Removing a check must be noticed. The rule: without the check that a fault names, something else becomes of the batch
(whether it is refused, which series are withheld, how many values are masked, how grave the report's verdict is).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from forecastle.data.archive import Archive
from forecastle.data.faults import FAULTS
from forecastle.data.ingestion import Batch, fetch
from forecastle.data.providers import PROVIDERS
from forecastle.data.quality_check import CHECKS, QualityReport, judge
from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.errors import AnswerChanged, ForecastleError, SourceUnavailable
from forecastle.http import Client, Request, asgi_transport
from forecastle.settings import Settings
from forecastle.task import Task, make_task

HOUR = timedelta(hours=1)
NOW = datetime(2013, 1, 25, 12, tzinfo=UTC)
START = NOW - 48 * HOUR
ANSWERS = [name for name, one in FAULTS.items() if one.becomes.startswith("exit")]
VALUES = [name for name in FAULTS if name not in ANSWERS]
GRAVEST = {"warn": "warn", "mask": "mask", "withhold": "fail", "fail": "fail"}
Collect = Callable[..., Batch]

weather = cache(load_nyc_weather)


@pytest.fixture
def watched(task: Task) -> Task:
    """The shipped task, with a limit on how long a thermometer may stand still."""
    return task.model_copy(update={"gate": task.gate.model_copy(update={"flatline": 12 * HOUR})})


@pytest.fixture
def collect(watched: Task, tmp_path: Path) -> Collect:
    """Collect from the replayed source as of a moment, with a fault or none."""

    def collect(fault: str | None = None, now: datetime = NOW, start: datetime = START) -> Batch:
        app = replay_app(weather(), lambda: now, faults=lambda: fault)
        settings = Settings(http_attempts=1)
        with Client(settings, asgi_transport(app)) as client:
            return fetch(watched, settings, client, Archive(tmp_path / "archive"), start, now, now, live=True)

    return collect


@pytest.fixture
def judged(watched: Task, collect: Collect) -> Callable[..., QualityReport]:
    """Judge what was collected with a fault, without one of the checks or with all, and with nine days known before."""

    def judged(fault: str | None = None, without: str | None = None) -> QualityReport:
        known = collect(now=NOW - HOUR, start=NOW - timedelta(days=9)).rows
        checks = {name: check for name, check in CHECKS.items() if name != without}
        return judge(watched, collect(fault).rows, START, NOW, NOW, known, checks=checks)[0]

    return judged


def becomes(report: QualityReport) -> tuple[Any, ...]:
    """What becomes of a batch."""
    return report.refused, sorted(report.withheld), report.masked, report.verdict


def test_the_healthy_answer_passes_every_check(judged):
    report = judged()
    assert {one.check: one.verdict for one in report.findings} == dict.fromkeys(CHECKS, "pass")


def test_there_are_enough_faults_and_every_check_that_an_answer_can_fail_has_one():
    assert len(VALUES) >= 25 and len(ANSWERS) >= 15
    beyond_any_answer = {"schema", "keys", "unknown-series", "times"}  # see test_quality_check: providers refuse those
    assert {FAULTS[name].caught for name in VALUES} == set(CHECKS) - beyond_any_answer


@pytest.mark.parametrize("fault", ANSWERS)
def test_an_answer_that_is_not_as_agreed_is_refused(collect, fault):
    with pytest.raises(ForecastleError) as refused:
        collect(fault)
    assert type(refused.value).__name__ == FAULTS[fault].caught
    assert f"exit {refused.value.exit_code}" == FAULTS[fault].becomes


@pytest.mark.parametrize("fault", VALUES)
def test_the_check_that_should_catch_a_fault_catches_it(judged, fault):
    report, expected = judged(fault), FAULTS[fault]
    finding = next(one for one in report.findings if one.check == expected.caught)
    assert finding.verdict == GRAVEST[expected.becomes], finding
    assert report.refused == (expected.becomes == "fail")
    assert bool(report.withheld) == (expected.becomes == "withhold")
    assert bool(report.masked) >= (expected.becomes == "mask")
    graver = [one for one in report.findings if one.verdict == "fail" and one.check != expected.caught]
    assert graver == []
    assert finding.rows.height or expected.caught == "volume"


@pytest.mark.parametrize("fault", VALUES)
def test_without_its_check_something_else_becomes_of_a_fault(judged, fault):
    assert becomes(judged(fault)) != becomes(judged(fault, without=FAULTS[fault].caught))


@pytest.mark.parametrize("fault", [name for name in VALUES if FAULTS[name].becomes == "withhold"])
def test_what_one_place_does_stops_no_other(watched, collect, judged, fault):
    known = collect(now=NOW - HOUR, start=NOW - timedelta(days=9)).rows
    batch = collect(fault)
    report, passed = judge(watched, batch.rows, START, NOW, NOW, known)
    assert list(report.withheld) == ["EWR"] and report.withheld["EWR"] == (FAULTS[fault].caught,)
    assert passed.select("series_id", "timestamp").rows() == [
        (name, START + at * HOUR) for name in ("JFK", "LGA") for at in range(49)
    ]


CANDLES = {
    "name": "candles",
    "domain": "financial",
    "frequency": "5m",
    "horizon": "1h",
    "target": "close",
    "series": [{"id": "IBM"}],
    "columns": {"open": {}, "close": {}},
}
BIKES = {**CANDLES, "target": "bikes", "columns": {"bikes": {}}}
AIR = {**CANDLES, "frequency": "1h", "target": "temperature", "columns": {"temperature": {"unit": "°C"}}}
PAGE = b"<html><body>502 Bad Gateway</body></html>"
SPENT = {"Information": "Our standard API rate limit is 25 requests per day. Please subscribe."}
OTHERS: dict[str, tuple[dict[str, Any], str, Any, type[ForecastleError]]] = {
    "alpha-vantage: the limit, with status 200": (CANDLES, "alpha-vantage", SPENT, SourceUnavailable),
    "alpha-vantage: an error, with status 200": (
        CANDLES,
        "alpha-vantage",
        {"Error Message": "Invalid API call. Please retry or visit the documentation."},
        AnswerChanged,
    ),
    "alpha-vantage: a page": (CANDLES, "alpha-vantage", PAGE, AnswerChanged),
    "twelve-data: the limit, with status 200": (
        CANDLES,
        "twelve-data",
        {"code": 429, "message": "You have run out of API credits for the current minute.", "status": "error"},
        SourceUnavailable,
    ),
    "twelve-data: JSON that ends in the middle": (
        CANDLES,
        "twelve-data",
        b'{"meta": {"symbol": "IBM"}, "values": [{"datetime": "2013-03-05 12:0',
        AnswerChanged,
    ),
    "binance: a page": (CANDLES, "binance", PAGE, AnswerChanged),
    "binance: an object for the list": (CANDLES, "binance", {"candles": 1}, AnswerChanged),
    "openweathermap: a key that is none": (
        AIR,
        "openweathermap",
        {"cod": 401, "message": "Invalid API key."},
        AnswerChanged,
    ),
    "gbfs: a feed without stations": (BIKES, "gbfs", {"last_updated": 1362484800, "ttl": 60}, AnswerChanged),
    "gbfs: nothing": (BIKES, "gbfs", b"", SourceUnavailable),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_other_providers_send_instead_of_data_is_refused(what):
    described, provider, body, error = OTHERS[what]
    source = {"provider": provider} | ({"url": "https://bikes.example/{feed}.json"} if provider == "gbfs" else {})
    task = make_task({**described, "source": source})
    keys = dict.fromkeys(("alpha_vantage_key", "twelve_data_key", "openweathermap_key"), "a-key")
    request = PROVIDERS[provider].requests(task, Settings(**keys), START, NOW, NOW)[0]
    assert isinstance(request, Request)
    with pytest.raises(error) as refused:
        PROVIDERS[provider].parse(task, request, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert "a-key" not in str(refused.value)


def test_a_source_that_does_not_answer_at_all_is_unavailable(watched, tmp_path):
    def dead(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    settings = Settings(http_attempts=1)
    with Client(settings, httpx.MockTransport(dead)) as client, pytest.raises(SourceUnavailable):
        fetch(watched, settings, client, Archive(tmp_path), START, NOW, NOW, live=True)


def test_faults_leave_the_recorded_weather_as_it_is():
    before = weather().clone()
    assert before.equals(load_nyc_weather()) and isinstance(before, pl.DataFrame)
