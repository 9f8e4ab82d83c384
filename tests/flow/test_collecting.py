"""Collecting by the command line from a source of its own: backfills that are killed, budgets, moments, schedules."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from forecastle.data.budget import open_ledger
from forecastle.data.derivation import open_history
from forecastle.frame import iso
from forecastle.settings import Settings
from forecastle.task import load_task

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PRESENT = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
START = PRESENT - 100 * DAY

TASK = """
name = "hours"
domain = "financial"
frequency = "1h"
horizon = "3h"
target = "y"
[source]
provider = "http-json"
start = {start}
[source.http_json]
url = "{address}/hours"
params = {{ from = "{{start_s}}", to = "{{end_s}}" }}
rows = "@"
time = "at"
values = {{ y = "value" }}
{budget}
[columns]
y = {{}}
[[series]]
id = "a"
[gate]
max_age = "1d"
"""


@dataclass
class Market:
    """A real source on loopback: hourly rows of any past, asked windows remembered, each answer a little slow."""

    address: str = ""
    asked: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0
    status: int = 200

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(handler.path).query).items()}
        self.asked.append((asked["from"], asked["to"]))
        time.sleep(self.seconds)
        first = -(-asked["from"] // 3600) * 3600
        hours = [datetime.fromtimestamp(one, UTC) for one in range(first, asked["to"] + 1, 3600)]
        body = json.dumps([{"at": iso(one), "value": one.hour + one.day / 100} for one in hours]).encode()
        handler.send_response(self.status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def market() -> Iterator[Market]:
    found = Market()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                found.answer(self)
            except OSError:
                pass  # who asked was killed

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.address = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Desk:
    """A folder with a task file, in which commands run."""

    folder: Path
    file: Path

    @property
    def settings(self) -> Settings:
        return Settings(home=self.folder / "data", _env_file=None)  # type: ignore[call-arg]

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = os.environ | {"FORECASTLE_HTTP_ATTEMPTS": "1"}
        command = [sys.executable, "-m", "forecastle", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, text=True, stdout=pipe, stderr=pipe)

    def call(self, *words: str) -> tuple[int, str, str]:
        """Run a command on the task; return its exit code and what it printed."""
        running = self.start(*words, "--task", str(self.file))
        out, err = running.communicate(timeout=120)
        assert "Traceback" not in err
        return running.returncode, out, err

    def rows(self) -> int:
        task = load_task(self.file)
        return open_history(task, self.settings.task_folder(task.name) / "history").read().height


@pytest.fixture
def desk(tmp_path: Path, market: Market) -> Desk:
    return made(tmp_path, market)


def made(folder: Path, market: Market, budget: str = "") -> Desk:
    file = folder / "hours.toml"
    file.write_text(TASK.format(start=START.date(), address=market.address, budget=budget), encoding="utf-8")
    return Desk(folder, file)


def test_a_backfill_brings_a_past_and_says_what_it_did(desk, market):
    code, out, _ = desk.call("backfill", "--to", iso(PRESENT - 5 * DAY))
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(market.asked) + 1
    assert all("rows" in line and "✓" in line for line in lines[:-1])
    hours = (PRESENT - 5 * DAY - datetime(START.year, START.month, START.day, tzinfo=UTC)) // HOUR
    assert desk.rows() == hours
    assert f"{hours} rows, {hours} of them new" in lines[-1]
    again = desk.call("backfill", "--to", iso(PRESENT - 5 * DAY))
    assert (again[0], again[1]) == (0, "Nothing to ask for: all of it is there already.\n")
    assert len(market.asked) == len(lines) - 1


def test_a_backfill_speaks_json(desk):
    code, out, _ = desk.call("backfill", "--from", iso(PRESENT - 60 * DAY), "--to", iso(PRESENT - 5 * DAY), "--json")
    said = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and all(one["ok"] for one in said[:-1])
    assert said[-1]["done"] == said[-1]["pieces"] == len(said) - 1 and said[-1]["left"] == 0
    assert sum(one["rows"] for one in said[:-1]) == said[-1]["rows"] == 55 * 24


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_backfill_that_is_killed_goes_on_where_it_was(desk, market, end):
    market.seconds = 0.3
    running = desk.start("backfill", "--task", str(desk.file), "--to", iso(PRESENT - 5 * DAY))
    while len(market.asked) < 3:
        time.sleep(0.01)
        assert running.poll() is None
    running.send_signal(end)
    running.communicate(timeout=60)
    asked = list(market.asked)
    market.seconds = 0
    assert desk.call("backfill", "--to", iso(PRESENT - 5 * DAY))[0] == 0
    twice = [window for window in set(market.asked) if market.asked.count(window) > 1]
    assert set(twice) <= {asked[-1]}  # the one that was under way
    assert desk.rows() == (PRESENT - 5 * DAY - datetime(START.year, START.month, START.day, tzinfo=UTC)) // HOUR


def test_a_backfill_up_to_now_saves_the_training_from_asking_for_it_again(desk, market):
    assert desk.call("backfill")[0] == 0
    asked = len(market.asked)
    code, _, err = desk.call("ingest", "--flow", "train")
    assert code == 0, err
    (window,) = market.asked[asked:]
    assert window[0] >= (PRESENT - 3 * DAY).timestamp()


def test_a_spent_budget_ends_a_backfill_with_4_and_says_when_to_go_on(tmp_path, market):
    desk = made(tmp_path, market, "budget = { per_day = 30 }")
    task = load_task(desk.file)
    with open_ledger(desk.settings).transaction() as db:
        db.execute("INSERT INTO calls VALUES (?, ?, 28)", (f"http-json at {market.address[7:]}", time.time() - 3600))
    code, out, err = desk.call("backfill")
    assert code == 4 and len(market.asked) == 2
    assert "2 of" in out.splitlines()[-1] and "the same command goes on" in out
    assert "30 of 30 calls a day are used" in err and "It can be asked again at" in err
    assert desk.rows() > 0 and task.name == "hours"


def test_a_budget_outlives_processes(tmp_path, market):
    desk = made(tmp_path, market, "budget = { per_hour = 2 }")
    assert [desk.call("ingest", "--flow", "live")[0] for _ in range(3)] == [0, 0, 4]
    assert len(market.asked) == 2


def test_a_task_whose_schedule_exceeds_its_budget_is_refused_when_it_is_loaded(tmp_path, market):
    desk = made(tmp_path, market, "budget = { per_day = 23 }")
    for words in (["run", "live"], ["live", "--passes", "1"], ["ingest"], ["backfill"]):
        code, _, err = desk.call(*words)
        assert code == 2
        assert "at most 23 calls a day" in err and "24 calls a day by 'hours' every 1h" in err
    assert market.asked == []


def test_a_past_moment_is_not_believed_of_a_live_source(desk, market):
    code, _, err = desk.call("ingest", "--flow", "live", "--now", iso(PRESENT - 30 * DAY))
    assert code == 2
    assert "a live source says what it knows now" in err and "forecastle replay" in err


def test_a_source_that_stays_down_is_left_alone_by_the_next_processes(desk, market):
    market.status = 500
    for _ in range(5):
        assert desk.call("ingest", "--flow", "live")[0] == 4
    code, _, err = desk.call("ingest", "--flow", "live")
    assert code == 4 and len(market.asked) == 5
    assert "5 failures in a row" in err and "left alone until" in err


def test_a_source_of_the_present_has_no_past_to_backfill(tmp_path, root, market):
    desk = Desk(tmp_path, root / "tasks" / "bike-availability.toml")
    code, _, err = desk.call("backfill", "--from", "2026-01-01")
    assert code == 2 and "the present alone" in err
