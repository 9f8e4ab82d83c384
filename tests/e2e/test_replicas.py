"""Two services behind a balancer, each in a process and a home of its own, sharing stores, journal and nothing else.

The balancer takes turns, and passes over a replica that does not answer.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import polars as pl
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import asked
from forecastle.settings import Settings
from forecastle.task import Task, load_task

ROOT = Path(__file__).parents[2]
MADE_UP = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "unit" / "serving" / "made_up.py")))
HOUR = timedelta(hours=1)
NOW = MADE_UP.NOW + 2 * HOUR  # so that two hours are missing, which a push brings
TASK = "/v1/tasks/nyc-temperature"
REPLICA = """
import runpy, sys
from datetime import datetime
from forecastle.serving import server
from forecastle.settings import Settings
from forecastle.task import load_task
home, stores, journal, tasks, now = sys.argv[1:]
settings = Settings(home=home, stores=stores, journal=journal, _env_file=None)
app = server.create_app(settings, [load_task(tasks)], lambda: datetime.fromisoformat(now))
with server.listen("127.0.0.1", 0) as (door, address):
    print(address, flush=True)
    server.serve(app, door)
"""


class Replica:
    """A service in a process and a home of its own."""

    def __init__(self, settings: Settings, task_file: Path) -> None:
        words = [str(settings.home), str(settings.stores), settings.journal_url, str(task_file), NOW.isoformat()]
        self.process = subprocess.Popen([sys.executable, "-c", REPLICA, *words], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        _until(lambda: httpx.get(f"{self.address}/ready", timeout=30).status_code == 200)

    @property
    def answered(self) -> int:
        """How many requests for forecasts it has answered itself."""
        lines = httpx.get(f"{self.address}/metrics", timeout=30).text.splitlines()
        wanted = [line for line in lines if line.startswith("forecastle_requests_total") and "forecasts" in line]
        return sum(int(float(line.rpartition(" ")[2])) for line in wanted)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def balancer(replicas: list[Replica]) -> Starlette:
    """Return what stands before the replicas: each request goes to the next one that takes it and answers."""
    turns, client = count(), httpx.AsyncClient(timeout=60)

    async def carry(request: Request) -> Response:
        content = await request.body()
        kind = {name: value for name, value in request.headers.items() if name == "content-type"}
        first = next(turns)
        for number in range(first, first + len(replicas)):
            with suppress(httpx.TransportError):
                place = f"{replicas[number % len(replicas)].address}{request.url.path}"
                answer = await client.request(request.method, place, content=content, headers=kind)
                return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])
        return Response("no replica answers", 502)

    return Starlette(routes=[Route("/{path:path}", carry, methods=["GET", "POST"])])


@pytest.fixture
def task() -> Task:
    return load_task(ROOT / "tasks" / "nyc-temperature.toml")


@pytest.fixture
def trainer(tmp_path: Path, task: Task) -> Settings:
    """The machine that trains: it has filled the stores and published a champion."""
    made = _machine(tmp_path, "trainer")
    MADE_UP.fill(made, task)
    MADE_UP.publish_champion(made, task, "3", member="persistence")
    return made


@pytest.fixture
def replicas(trainer: Settings, tmp_path: Path) -> Iterator[list[Replica]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(Replica(_machine(tmp_path, name), ROOT / "tasks" / "nyc-temperature.toml")))
            for name in ("one", "other")
        ]


def test_replicas_answer_alike_and_what_one_takes_in_all_know(replicas, trainer, task, served, tmp_path) -> None:
    with served(balancer(replicas)) as address:
        before = [_get(f"{address}{TASK}/forecasts") for _ in range(10)]
        assert all(one == before[0] for one in before)
        assert min(one.answered for one in replicas) >= 4, "both have answered"
        assert {one["data_age"] for one in before[0]["series"]} == {2 * 3600 + 600}
        last = NOW.replace(minute=0)
        rows = MADE_UP.observations(task, last - 47 * HOUR, last).with_columns(
            pl.lit(1000.0 if name == "pressure_msl" else 50.0).alias(name) for name in task.covariates
        )
        rows = rows.select("series_id", "timestamp", *task.columns)
        pushed = httpx.post(
            f"{address}{TASK}/observations",
            content=rows.write_csv().encode(),
            headers={"content-type": "text/csv"},
            timeout=60,
        )
        assert pushed.status_code == 200, pushed.text
        assert pushed.json()["new"] == 2 * len(task.series_ids)
        for one in replicas:
            _until(lambda one=one: {600} == {each["data_age"] for each in _get(f"{one.address}/ready")["tasks"]})
    assert not list((tmp_path / "one").rglob("*.parquet")), "what was taken in lies in the stores alone"


def test_no_answer_fails_or_mixes_models_while_champions_change_and_a_replica_is_told_to_stop(
    replicas, trainer, task, served
) -> None:
    last = MADE_UP.NOW.replace(minute=0)
    times = [last - one * HOUR for one in range(30)]
    values = {task.target: [MADE_UP.truth("JFK", at) for at in times]}
    body = {"series": [{"series_id": "JFK", "timestamps": [at.isoformat() for at in times], "values": values}]}
    stop, lost = threading.Event(), []

    def ask(address: str) -> list[dict[str, Any]]:
        found = []
        with httpx.Client(base_url=address, timeout=60) as client:
            while not stop.is_set():
                answer = client.post(f"{TASK}/predict", json=body)
                if answer.status_code != 200:
                    lost.append(answer.text)
                else:
                    found.append(answer.json())
        return found

    with served(balancer(replicas)) as address, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, address) for _ in range(3)]
        try:
            for version, member in (("4", "seasonal_naive"), ("5", "persistence"), ("6", "seasonal_naive")):
                MADE_UP.publish_champion(trainer, task, version, member=member)
                for one in replicas:
                    _until(lambda one=one, version=version: _get(f"{one.address}{TASK}")["model"]["version"] == version)
            os.kill(replicas[0].process.pid, signal.SIGTERM)
            assert replicas[0].process.wait(60) in (0, -signal.SIGTERM)
            time.sleep(1)  # the other one goes on alone
        finally:
            stop.set()
        answers = [one for each in asking for one in each.result()]
    assert lost == []
    assert len(answers) > 100
    by_version: dict[str, set[str]] = {}
    for one in answers:
        by_version.setdefault(one["model_version"], set()).add(json.dumps(one["predictions"][0]["forecasts"]))
    assert set(by_version) == {"3", "4", "5", "6"}
    assert all(len(told) == 1 for told in by_version.values()), "each model says one thing"
    values = {name: [one["value"] for one in json.loads(*told)] for name, told in by_version.items()}
    assert values["3"] == values["5"] != values["4"] == values["6"]
    os.kill(replicas[1].process.pid, signal.SIGTERM)
    replicas[1].process.wait(60)
    with Journal(trainer.journal_url) as journal:
        kept = Counter(one["prediction_id"] for one in asked(journal, task.name, 1_000_000))
    told = [one["predictions"][0]["prediction_id"] for one in answers]
    assert len(set(told)) == len(told) and {kept[one] for one in told} == {1}, "each is in the one journal, once"


def _machine(folder: Path, name: str) -> Settings:
    (folder / "stores").mkdir(exist_ok=True)
    journal = f"sqlite:///{folder / 'stores' / 'journal.db'}"
    stores = str(folder / "stores")
    return Settings(home=folder / name, stores=stores, journal=journal, _env_file=None)  # type: ignore[call-arg]


def _get(address: str) -> Any:
    answer = httpx.get(address, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while True:
        with suppress(httpx.TransportError):
            if holds():
                return
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
