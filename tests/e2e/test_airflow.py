"""The DAGs on a real Airflow of its own environment, over recorded weather: what each flow does there, and by its API.

Real are Airflow's parser, task runner, database (SQLite), scheduler and API server, and every step's own process; the
weather is recorded. One home and one database serve all tests of this file; each lives an hour of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from forecastle.data.history import History
from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.delivery.airflow import request_retrain
from forecastle.monitoring.journal import Journal
from forecastle.pipeline import CHALLENGE, FLOWS
from forecastle.schedule import cron
from forecastle.settings import Settings

ROOT = Path(__file__).parents[2]
AIRFLOW = ROOT / ".cache" / "airflow" / "bin"
FORECASTLE = Path(sys.executable).with_name("forecastle")
HOUR = timedelta(hours=1)
TRAINED_AT = datetime(2013, 11, 20, 0, 5, tzinfo=UTC)
PATIENCE = 600.0  # seconds, on a busy machine
PASSWORD = "of the test"


@dataclass
class House:
    """A folder with a task and its stores, the recorded API it asks, and an Airflow that runs its flows."""

    folder: Path
    now: datetime = TRAINED_AT
    faults: list[str] = field(default_factory=list)
    """What is wrong with the next answers of the source, one by one; the last of them, ``for ever``, stays."""
    url: str = ""
    port: int = field(default_factory=lambda: free_port())
    secret: str = field(default_factory=lambda: secrets.token_hex(32))
    runs: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What Airflow and forecastle are told: where things lie, and quiet."""
        home = self.folder / "airflow"
        told = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": ROOT / "dags",
            "AIRFLOW__CORE__PARALLELISM": 2,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.port,
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secret,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.3,
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # the present is no part of the recording
            "FORECASTLE_AIRFLOW_URL": f"http://127.0.0.1:{self.port}",
            "FORECASTLE_AIRFLOW_PASSWORD": PASSWORD,
            "FORECASTLE_BIN": FORECASTLE,
            "FORECASTLE_TASKS": self.folder / "tasks",
            "FORECASTLE_HOME": self.folder / "data",
            "FORECASTLE_PROFILE": "plain",
            "FORECASTLE_HTTP_ATTEMPTS": 1,
            "FORECASTLE_OPEN_METEO_URL": self.url,
            "FORECASTLE_OPEN_METEO_ARCHIVE_URL": self.url,
            "FORECASTLE_PAGES_URL": "http://pages.example/forecastle",
            "OMP_THREAD_LIMIT": 1,
            "PATH": f"{AIRFLOW}:{os.environ['PATH']}",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(("FORECASTLE_", "AIRFLOW_"))}
        return others | {name: str(value) for name, value in told.items()}

    @property
    def task_file(self) -> Path:
        return self.folder / "tasks" / "small.toml"

    def fault(self) -> Any:
        """What is wrong with the answer that is asked for now."""
        if not self.faults:
            return None
        return self.faults[0] if self.faults[1:] == ["for ever"] else self.faults.pop(0)

    def ask(self, **question: Any) -> dict[str, Any]:
        """Let ``airflow_runs.py`` do something and return its answer."""
        answers = self.folder / "answers"
        if self.runs is None:
            program = [AIRFLOW / "python", Path(__file__).with_name("airflow_runs.py"), answers]
            with (self.folder / "runs.log").open("w") as log:
                self.runs = subprocess.Popen(
                    program, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, env=self.environment
                )
        known = answers.read_text().count("\n") if answers.exists() else 0
        assert self.runs.stdin is not None
        self.runs.stdin.write(json.dumps(question) + "\n")
        self.runs.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while not answers.exists() or len(lines := answers.read_text().splitlines(keepends=True)) == known:
            if self.runs.poll() is not None or time.monotonic() > deadline:
                pytest.fail((self.folder / "runs.log").read_text()[-4000:])
            time.sleep(0.1)
        found: dict[str, Any] = json.loads(lines[known])
        return found

    def run(self, flow: str) -> dict[str, Any]:
        """Run a flow's DAG as of the simulated now and return how it ended."""
        return self.ask(dag=f"small-{flow}", logical_date=self.now.isoformat())

    def forecastle(self, *words: str, home: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command of forecastle on the task, in this home or another."""
        changed = self.environment | settings | ({} if home is None else {"FORECASTLE_HOME": str(home)})
        return subprocess.run(
            [FORECASTLE, *words], env=changed, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE
        )

    def rest(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """Ask the API server something the command line does not."""
        login = {"username": "admin", "password": PASSWORD}
        token = "" if path == "/auth/token" else self.rest("/auth/token", login)["access_token"]
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def live_at(self, moment: datetime, home: Path) -> None:
        """Run the LIVE flow by its command as of a moment, in another home."""
        words = ("run", "live", "--task", str(self.task_file), "--now", moment.isoformat(), "--json")
        done = self.forecastle(*words, home=home)
        assert done.returncode == 0, done.stderr

    def twin(self, name: str) -> Path:
        """Return a copy of the home as it is now."""
        return Path(shutil.copytree(self.folder / "data", self.folder / name))

    def state(self, home: Path | None = None) -> dict[str, Any]:
        """Return what a run leaves for good."""
        home = home or self.folder / "data"
        with Journal(f"sqlite:///{home / 'journal.db'}") as journal:
            return {
                "history": History(home / "small" / "history", ("temperature_2m",)).versions().rows(),
                "forecasts": sorted(journal.forecasts("small").rows()),
                "outcomes": sorted(journal.outcomes("small").rows()),
            }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, served: Any, small_toml: str) -> Iterator[House]:
    """An Airflow with an empty database beside a task on which nothing has run yet."""
    if not (AIRFLOW / "airflow").exists():
        reason = f"no {AIRFLOW.relative_to(ROOT)}/airflow: tools/airflow installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
        pytest.skip(reason)
    house = House(tmp_path_factory.mktemp("airflow"))
    house.task_file.parent.mkdir()
    house.task_file.write_text(small_toml, encoding="utf-8")
    (house.folder / "airflow").mkdir()
    (house.folder / "airflow" / "passwords.json").write_text(json.dumps({"admin": PASSWORD}))
    app = replay_app(load_nyc_weather(), lambda: house.now, faults=house.fault)
    with served(app) as house.url:
        done = subprocess.run(
            [AIRFLOW / "airflow", "db", "migrate"],
            env=house.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield house
        if house.runs is not None:
            house.runs.kill()
            house.runs.wait()


@pytest.fixture(scope="module")
def trained(house: House) -> dict[str, Any]:
    """How the TRAIN DAG ended."""
    return house.run("train")


@pytest.fixture(scope="module")
def servers(house: House, trained: dict[str, Any]) -> Iterator[House]:
    """The house with Airflow's API server, scheduler and DAG processor running, and both DAGs known to them."""
    parts = ("api-server", "--workers", "1"), ("scheduler",), ("dag-processor",)
    started = []
    try:
        for part in parts:
            command = ["setpriv", "--pdeathsig", "KILL", AIRFLOW / "airflow", *part]
            with (house.folder / f"{part[0]}.log").open("w") as log:
                started.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=house.environment, start_new_session=True)
                )
        deadline = time.monotonic() + PATIENCE
        while not knows_the_dags(house):
            assert time.monotonic() < deadline and not any(one.poll() for one in started), logs(house)
            time.sleep(1)
        yield house
    finally:
        for one in started:
            os.killpg(one.pid, signal.SIGTERM)
        for one in started:
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                pass
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


@pytest.fixture
def hour(house: House, trained: dict[str, Any]) -> House:
    """The house an hour later, with a champion."""
    house.now += HOUR
    house.faults.clear()
    return house


def test_the_dags_are_the_flows_and_are_imported_without_an_error_or_a_warning(house: House) -> None:
    broken = house.task_file.with_name("broken.toml")
    broken.write_text('name = "broken"\n')
    found = house.ask(parse=True)
    broken.unlink()
    assert (found["errors"], found["warnings"]) == ({}, [])
    assert sorted(found["dags"]) == ["broken-mistake", "small-challenge", "small-live", "small-train"]
    for flow, steps in {**FLOWS, "challenge": CHALLENGE}.items():
        dag = found["dags"][f"small-{flow}"]
        assert dag["steps"] == {step.name: sorted(step.after) for step in steps}
        assert (dag["max_active_runs"], dag["catchup"]) == (1, False)
    assert found["dags"]["small-live"]["schedule"] == cron(HOUR, timedelta(seconds=30)) == "0 * * * * 30"
    assert found["dags"]["small-train"]["schedule"] == "15 0 * * *"
    assert found["dags"]["small-train"]["assets"] == {"version": ["forecastle://small/training-table"]}
    assert found["dags"]["small-challenge"]["schedule"] is None
    assert "domain" in found["dags"]["broken-mistake"]["description"]
    assert found["dags"]["broken-mistake"]["schedule"] is None


def test_forecastle_is_asked_for_its_flows_only_when_something_has_changed(house: House) -> None:
    house.ask(parse=True)
    answer = house.folder / "airflow" / "forecastle-flows.json"
    asked = answer.stat().st_mtime_ns
    assert sorted(house.ask(parse=True)["dags"]) == ["small-challenge", "small-live", "small-train"]
    assert answer.stat().st_mtime_ns == asked
    house.task_file.write_text(house.task_file.read_text(encoding="utf-8") + "# a word more\n", encoding="utf-8")
    house.ask(parse=True)
    assert answer.stat().st_mtime_ns > asked


def test_train_runs_to_a_champion_and_each_task_shows_its_summary_and_its_pages(house: House, trained) -> None:
    assert trained["state"] == "success", [left["said"] for left in trained["xcoms"].values()]
    assert trained["tasks"] == {step.name: ["success", 1] for step in FLOWS["train"]}
    values = {name: left["return_value"] for name, left in trained["xcoms"].items()}
    assert values["ingest"]["rows"] > 400 and values["quality-check"]["verdict"] == "pass"
    assert values["train"]["model_version"] == "1" and values["promote"]["promoted"] is True
    for name, left in trained["xcoms"].items():
        assert left["said"]["step"] == name and left["said"]["exit_code"] == 0
    pages = trained["xcoms"]["promote"]
    assert pages["page_gate"] == "http://pages.example/forecastle/small/runs/train-20131120T000500Z/quality.html"
    assert pages["page_profile"] == "http://pages.example/forecastle/small/reports/profile.html"
    assert trained["assets"] == [["forecastle://small/training-table", values["version"]]]
    assert values["version"]["rows"] > 400 and len(values["version"]["version"]) == 32


def test_live_leaves_what_the_command_leaves(hour: House) -> None:
    twin = hour.twin("by-command")
    ended = hour.run("live")
    assert ended["tasks"] == {step.name: ["success", 1] for step in FLOWS["live"]}
    hour.live_at(hour.now, twin)
    assert hour.state() == hour.state(twin)
    assert len(hour.state()["forecasts"]) >= 2


def test_a_gate_that_fails_fails_the_run_at_once_and_nothing_after_it_starts(hour: House) -> None:
    hour.faults = ["nulls"]
    before = hour.state()
    ended = hour.run("live")
    assert ended["state"] == "failed"
    assert ended["tasks"]["ingest"] == ["success", 1] and ended["tasks"]["quality-check"] == ["failed", 1]
    assert {ended["tasks"][name][0] for name in ("forecast", "score", "watch")} == {"upstream_failed"}
    said = ended["xcoms"]["quality-check"]["said"]
    assert said["exit_code"] == 3 and "quarantine" in said["error"]
    assert ended["xcoms"]["quality-check"]["page_gate"].endswith("/quality.html")
    assert hour.state()["forecasts"] == before["forecasts"]


def test_a_source_that_is_down_is_asked_again_and_the_run_heals(hour: House) -> None:
    hour.faults = ["503"]
    ended = hour.run("live")
    assert ended["state"] == "success"
    assert ended["tasks"]["ingest"] == ["success", 2]
    assert {ended["tasks"][name][1] for name in ("quality-check", "forecast", "score", "watch")} == {1}


@pytest.mark.parametrize("what", ["none", "not to be run"])
def test_a_command_that_cannot_be_started_fails_at_once(house: House, tmp_path: Path, what: str) -> None:
    command = tmp_path / "forecastle"
    if what != "none":
        command.write_text("#!/bin/sh\n")
        command.chmod(0o644)
    failed = house.ask(start=[str(command), "ingest"])
    assert failed["kind"] == "AirflowFailException"
    assert str(command) in failed["said"] and "FORECASTLE_BIN" in failed["said"]


def test_a_flow_is_triggered_by_the_api_and_waited_for_and_its_exit_code_is_the_step_s(hour: House, servers) -> None:
    words = ("airflow", "trigger", "live", "--task", str(hour.task_file), "--now", hour.now.isoformat())
    options = ("--wait", "--interval", "0.5", "--patience", f"{PATIENCE:.0f}")
    paused = hour.forecastle(*words, *options)
    assert paused.returncode == 2 and "it is paused" in paused.stderr
    good = hour.forecastle(*words, *options, "--unpause")
    assert good.returncode == 0, good.stdout + good.stderr + logs(hour)
    assert [f"{step.name:<14} success" for step in FLOWS["live"]] == [
        line for line in good.stdout.splitlines() if line.endswith("success")
    ]
    run = good.stdout.split()[1]
    buttons = hour.rest(f"/api/v2/dags/small-live/dagRuns/{run}/taskInstances/watch/links")["extra_links"]
    pages = "http://pages.example/forecastle/small"
    assert buttons["Gate report"] == f"{pages}/runs/live-{hour.now:%Y%m%dT%H%M%SZ}/quality.html"
    assert buttons["Profile"] == f"{pages}/reports/profile.html"
    hour.now += HOUR
    hour.faults = ["nulls", "for ever"]
    bad = hour.forecastle(*words[:-1], hour.now.isoformat(), *options)
    assert bad.returncode == 3, bad.stdout + bad.stderr
    assert "quality-check  failed" in bad.stdout and "forecast       upstream_failed" in bad.stdout
    assert "null-share" in bad.stderr and f"http://127.0.0.1:{hour.port}/dags/small-live/runs/" in bad.stderr
    stranger = hour.forecastle(*words, FORECASTLE_AIRFLOW_PASSWORD="of another")
    assert stranger.returncode == 2 and "of another" not in stranger.stderr


def test_a_backfill_by_logical_date_gives_what_live_runs_then_gave(hour: House, servers) -> None:
    twin = hour.twin("lived")
    first = hour.now.replace(minute=0, second=30) + HOUR
    for moment in (first, first + HOUR):
        hour.now = moment
        hour.live_at(moment, twin)
    hour.now += 2 * HOUR  # the past is past: the source knows more by now
    asked = {"dag_id": "small-live", "from_date": first.isoformat(), "to_date": (first + HOUR).isoformat()}
    hour.rest("/api/v2/backfills", asked | {"max_active_runs": 1})
    deadline = time.monotonic() + PATIENCE
    while (states := backfilled(hour)) != ["success"] * 2:
        assert time.monotonic() < deadline and "failed" not in states, f"{states}\n{logs(hour)}"
        time.sleep(1)
    assert hour.state() == hour.state(twin)


def test_a_retrain_that_is_asked_for_twice_is_one_run(hour: House, servers) -> None:
    settings = Settings(
        airflow_url=f"http://127.0.0.1:{hour.port}", airflow_password=SecretStr(PASSWORD), _env_file=None
    )  # type: ignore[call-arg]
    hour.rest("/api/v2/dags/small-train", {"is_paused": False}, "PATCH")
    asked = [request_retrain(settings, "small", f"drift ratio 0.{one}", hour.now + one * HOUR) for one in (1, 2)]
    assert [one.id for one in asked] == [f"retrain-{hour.now + HOUR:%Y%m%dT%H%M%SZ}"] * 2
    told = hour.rest(f"/api/v2/dags/small-train/dagRuns/{asked[0].id}")
    assert (told["note"], told["state"] in ("queued", "running")) == ("drift ratio 0.1", True)


def backfilled(house: House) -> list[str]:
    """Return the state of every run of the backfill."""
    return [one["state"] for one in house.rest("/api/v2/dags/small-live/dagRuns?run_type=backfill")["dag_runs"]]


def knows_the_dags(house: House) -> bool:
    try:
        return {one["dag_id"] for one in house.rest("/api/v2/dags")["dags"]} >= {"small-train", "small-live"}
    except OSError:
        return False


def logs(house: House) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in house.folder.glob("*.log"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
