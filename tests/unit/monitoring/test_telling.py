"""People are told of each incident when it opens and when it ends, once; who cannot be reached is told later."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from forecastle.errors import OutsideError
from forecastle.monitoring import alert_log, telling
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def journal(settings: Settings) -> Journal:
    return Journal(settings.journal_url)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    """A web hook on loopback: its Apprise address, what it was sent, and how it answers the next ones."""
    got: list[dict[str, Any]] = []
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/", got, answers
    server.shutdown()
    server.server_close()


def logged(settings: Settings) -> list[tuple[str, str]]:
    lines = alert_log.place(settings).read_text(encoding="utf-8").splitlines()
    return [(one["event"], one["kind"]) for one in map(json.loads, lines)]


def test_an_incident_is_told_when_it_opens_and_when_it_ends_once(
    journal: Journal, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    journal.open_incident("weather", "data-drift", "Too many have drifted.", NOON)
    assert [telling.tell(journal, settings, "weather", NOON) for _ in range(3)] == [1, 0, 0]
    journal.close_incident("weather", "data-drift", NOON + HOUR, "The measure is back.")
    assert [telling.tell(journal, settings, "weather", NOON + HOUR) for _ in range(2)] == [1, 0]
    assert logged(settings) == [("opened", "data-drift"), ("closed", "data-drift")]
    assert [record.getMessage() for record in caplog.records] == [
        "forecastle: weather: data-drift opened. Too many have drifted. " "What to do: docs/incidents.md#data-drift",
        "forecastle: weather: data-drift closed. The measure is back.",
    ]


def test_addresses_of_the_settings_are_told_and_told_again_where_they_did_not_take_it(
    journal: Journal, settings: Settings, hook: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    address, got, answers = hook
    answers.append(500)
    theirs = settings.model_copy(update={"alert_urls": SecretStr(address)})
    journal.open_incident("weather", "data-drift", "Too many have drifted.", NOON)
    assert telling.tell(journal, theirs, "weather", NOON) == 0
    assert telling.tell(journal, theirs, "weather", NOON + HOUR) == 1
    assert [(one["title"], one["type"]) for one in got] == [("forecastle: weather: data-drift opened", "failure")] * 2
    assert logged(settings) == [("opened", "data-drift")]


def test_who_took_it_is_not_told_again_because_of_another_who_did_not(
    journal: Journal, settings: Settings, hook: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    address, got, _ = hook
    # the second is of a kind that Apprise does not know
    theirs = settings.model_copy(update={"alert_urls": SecretStr(f"{address} hunter2://nobody")})
    journal.open_incident("weather", "data-drift", "r", NOON)
    assert [telling.tell(journal, theirs, "weather", NOON + hour * HOUR) for hour in range(5)] == [0] * 5
    assert len(got) == 1
    (steps,) = journal.incident_steps([1]).values()
    assert "hunter2" not in str(steps) and "127.0.0.1" not in str(steps)
    mended = settings.model_copy(update={"alert_urls": SecretStr(f"{address} {address}other/")})
    assert [telling.tell(journal, mended, "weather", NOON + hour * HOUR) for hour in (6, 7)] == [1, 0]
    assert len(got) == 2, "only the other one"


def test_an_address_that_is_none_is_said_without_showing_it(
    journal: Journal, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = settings.model_copy(update={"alert_urls": SecretStr("nonsense://hunter2")})
    journal.open_incident("weather", "data-drift", "r", NOON)
    assert telling.tell(journal, theirs, "weather", NOON) == 0
    assert "FORECASTLE_ALERT_URLS" in caplog.text
    assert "hunter2" not in "".join(one.getMessage() for one in caplog.records if one.name.startswith("forecastle"))


def test_a_trial_is_taken_by_every_address_or_is_an_error_of_theirs(
    settings: Settings, hook: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    address, got, answers = hook
    theirs = settings.model_copy(update={"alert_urls": SecretStr(address), "runbook_url": "https://example.org/i"})
    assert telling.try_addresses(theirs) == 1
    assert [(one["title"], one["message"].endswith("https://example.org/i#what-to-do")) for one in got] == [
        ("forecastle: a trial", True)
    ]
    answers.append(500)
    with pytest.raises(OutsideError, match="did not"):
        telling.try_addresses(theirs)
