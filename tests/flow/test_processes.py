"""Each step as a process of its own, as a scheduler runs it, gives what the flow in one process gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle import pipeline
from forecastle.data.replay import replay_app

LIVE = [step.name for step in pipeline.LIVE]
UP_TO_VERSION = [step.name for step in pipeline.TRAIN[:-2]]
OF_LIVE = ("ingest", "quality-check")  # these stand in both flows


@pytest.fixture
def address(site, served) -> Iterator[str]:
    """The recorded weather at an address of its own, as of the site's clock."""
    app = replay_app(site.weather, lambda: site.now, faults=lambda: site.source.fault)
    with served(app) as address:
        yield address


@pytest.fixture
def task_file(tmp_path: Path, site) -> Path:
    """The site's task as a file, written as plain TOML."""
    path = tmp_path / "small.toml"
    path.write_text(_toml(site.task.model_dump(mode="json", exclude_none=True, exclude_defaults=True)))
    return path


@pytest.fixture
def process(site, address: str, task_file: Path):
    """Run a command on the task as a process of its own and return it, with what it printed."""
    environment = os.environ | {
        "FORECASTLE_HOME": str(site.settings.home),
        "FORECASTLE_OPEN_METEO_URL": address,
        "FORECASTLE_OPEN_METEO_ARCHIVE_URL": address,
        "FORECASTLE_HTTP_ATTEMPTS": "1",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        options = ["--task", str(task_file), "--now", site.now.isoformat(), "--json"]
        program = [sys.executable, "-m", "forecastle", *words, *options]
        return subprocess.run(program, env=environment, cwd=task_file.parent, capture_output=True, text=True)

    return run


@pytest.fixture
def call(process):
    """Run a step as a process of its own and return it, with what it printed."""

    def run(name: str, flow: str) -> subprocess.CompletedProcess[str]:
        return process(name, *(["--flow", flow] if name in OF_LIVE else []))

    return run


def test_the_steps_of_live_as_processes_give_what_the_flow_gives(site, twin, call) -> None:
    for one in (site, twin):
        one.now += timedelta(hours=1)
    said = twin.must_run("live")
    for name in LIVE:
        ended = call(name, "live")
        assert ended.returncode == 0, ended.stderr
        (line,) = ended.stdout.splitlines()
        told = json.loads(line)
        assert (told["step"], told["ok"], told["summary"]) == (name, True, _plain(said[name]))
    assert site.state() == twin.state()


def test_the_steps_of_train_as_processes_give_the_same_table_and_data_version(site, twin, call) -> None:
    for one in (site, twin):
        one.now += timedelta(days=2)
    said = twin.must_run("train", until="version")
    for name in UP_TO_VERSION:
        ended = call(name, "train")
        assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["summary"]["version"] == said["version"]["version"]
    tables = [next((one.folder / "runs").glob("train-20131122*/training.parquet")) for one in (site, twin)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert site.state() == twin.state()


def test_a_gate_that_fails_in_its_process_exits_with_3_and_no_later_step_starts(site, call) -> None:
    site.now += timedelta(hours=1)
    site.source.fault = "nulls"
    before = site.state()
    assert call("ingest", "live").returncode == 0
    ended = call("quality-check", "live")
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["ok"] is False
    assert "quarantine" in ended.stderr and "Traceback" not in ended.stderr
    later = call("forecast", "live")
    assert later.returncode == 3
    assert f"step quality-check of run live-{site.now:%Y%m%dT%H%M%SZ} to have succeeded" in later.stderr
    assert site.state()["forecasts"] == before["forecasts"]


def test_a_source_that_is_down_makes_the_process_exit_with_4(site, call) -> None:
    site.now += timedelta(hours=1)
    site.source.fault = "503"
    ended = call("ingest", "live")
    assert ended.returncode == 4
    assert "HTTP 503" in ended.stderr and "Traceback" not in ended.stderr


def test_two_collectors_at_the_same_moment_both_end_well_and_as_one_would(site, twin, process) -> None:
    for one in (site, twin):
        one.now += timedelta(hours=1)
    twin.must_run("live")
    with ThreadPoolExecutor(2) as both:
        ended = list(both.map(lambda _: process("run", "live"), range(2)))
    assert [(one.returncode, one.stderr) for one in ended] == [(0, "")] * 2
    assert site.state() == twin.state()


def test_collectors_of_two_moments_at_once_leave_every_hour_once(site, process) -> None:
    site.now += timedelta(hours=1)
    with ThreadPoolExecutor(3) as all_of_them:
        running = [all_of_them.submit(process, "ingest", "--flow", "live") for _ in range(2)]
        running.append(all_of_them.submit(process, "run", "live"))
        ended = [one.result() for one in running]
    assert {one.returncode for one in ended[:2]} == {0}
    assert process("run", "live").returncode == 0
    rows = site.history.versions()
    assert rows.select("series_id", "timestamp").is_unique().all()


@pytest.fixture
def twin(site, tmp_path: Path) -> Any:
    """A second site in the same state, whose flows run in this process."""
    home = tmp_path / "twin"
    shutil.copytree(site.settings.home, home)
    return type(site)(site.task, site.settings.model_copy(update={"home": home}), site.weather, now=site.now)


def _plain(summary: dict[str, Any]) -> Any:
    return json.loads(json.dumps(summary))


def _toml(data: dict[str, Any], prefix: str = "") -> str:
    """Write plain data as TOML: values first, then tables, then lists of tables."""
    lines = [
        f"{name} = {value if name == 'start' else json.dumps(value)}"
        for name, value in data.items()
        if not isinstance(value, dict) and not (isinstance(value, list) and value and isinstance(value[0], dict))
    ]
    for name, value in data.items():
        if isinstance(value, dict):
            lines.append(f"[{prefix}{name}]\n{_toml(value, f'{prefix}{name}.')}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"[[{prefix}{name}]]\n{_toml(one)}" for one in value]
    return "\n".join(lines) + "\n"
