"""Killed at any moment and run again, a flow ends in the state an undisturbed one ends in.

The moments are random, with fixed seeds: half of them fall anywhere in the life of the process, half into the
fraction of a second in which it writes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecastle import pipeline
from forecastle.data.examples import from_table
from forecastle.data.history import History
from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.data.recipe import Recipe
from forecastle.http import asgi_transport
from forecastle.models import bundle, pointer
from forecastle.models.learning import Fitted
from forecastle.models.intervals import Spread
from forecastle.models.model import Model
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task, load_task

HOUR = timedelta(hours=1)
START = datetime(2013, 11, 20, 0, 5, tzinfo=UTC)
HOURS = 3  # live runs that follow each other
LONGEST = 120.0  # seconds
TOO_SHORT = 3  # the exit code of a training without enough history

TASK = """
name = "small"
domain = "environmental"
frequency = "1h"
horizon = "2h"
target = "temperature_2m"
source = { provider = "open-meteo", start = 2013-11-10, instantaneous = true }
features = { windows = [3] }
columns.temperature_2m = { unit = "°C", minimum = -50, maximum = 55 }
series = [
    { id = "EWR", latitude = 40.6925, longitude = -74.1687 },
    { id = "JFK", latitude = 40.6398, longitude = -73.7789 },
]
"""


@dataclass(frozen=True)
class Site:
    """A task file, its home folder, and the address of the recorded weather."""

    file: Path
    home: Path
    address: str

    @property
    def task(self) -> Task:
        return load_task(self.file)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, _env_file=None)  # type: ignore[call-arg]

    @property
    def folder(self) -> Path:
        return self.settings.task_folder(self.task.name)

    def start(self, flow: str, now: datetime) -> subprocess.Popen[str]:
        """Start a flow as of a moment in a process of its own."""
        return _start(["run", flow, "--task", str(self.file), "--now", now.isoformat()], self.home, self.address)

    def finish(self, flow: str, now: datetime, code: int = 0) -> None:
        """Run a flow to its end, undisturbed."""
        process = self.start(flow, now)
        said, complaints = process.communicate(timeout=LONGEST)
        assert process.returncode == code, said + complaints

    def wrote(self, flow: str, now: datetime, step: str) -> Path:
        """Return the file that says how a step of a run ended."""
        return self.folder / "runs" / f"{flow}-{now:%Y%m%dT%H%M%SZ}" / "steps" / f"{step}.json"

    def state(self) -> dict[str, Any]:
        """Return what is there for good."""
        archive = self.folder / "archive"
        with Journal(self.settings.journal_url) as journal:
            return {
                "history": set(History(self.folder / "history", tuple(self.task.columns)).versions().rows()),
                "forecasts": set(journal.forecasts(self.task.name).rows()),
                "outcomes": set(journal.outcomes(self.task.name).rows()),
                "counts": journal.counts(self.task.name),
                "incidents": set(journal.incidents(self.task.name)),
                "answers": {path.name for path in archive.glob("[0-9]*/**/*.json")},
                "bodies": {path.name for path in (archive / "bodies").glob("*/*")},
            }

    def versioned(self) -> dict[str, Any]:
        """Return the versioned table: its bytes, its pointer, and the commits that moved it."""
        workspace = self.settings.versions
        log = subprocess.run(
            ["git", "log", "--format=%s", "--", f"{self.task.name}/training.parquet.dvc"],
            cwd=workspace,
            check=True,
            capture_output=True,
            text=True,
        )
        remote = Path(self.settings.remote)
        return {
            "table": (workspace / self.task.name / "training.parquet").read_bytes(),
            "pointer": (workspace / self.task.name / "training.parquet.dvc").read_text(),
            "commits": log.stdout.splitlines(),
            "remote": {path.name for path in remote.rglob("*") if path.is_file() and not path.name.startswith(".")},
        }


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The recorded weather, replayed by a process of its own; its clock stands later that day."""
    start = (START + 20 * HOUR).isoformat()
    process = _start(["replay", "--from", start, "--speed", "0", "--port", "0"], tmp_path_factory.mktemp("replay"), "")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line, line
    yield line.rsplit(" ", 1)[-1].strip()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def undisturbed(address: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with history and a champion, before its first live run; copied for every test."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = folder / "small.toml"
    file.write_text(TASK, encoding="utf-8")
    site = Site(file, folder / "home", address)
    transport = asgi_transport(replay_app(load_nyc_weather(), lambda: START))
    with pipeline.open_run(site.task, site.settings, "train", START, transport) as run:
        for step in pipeline.TRAIN[:4]:
            assert pipeline.run_step(run, step).error is None
        _publish_persistence(site, run.folder)
    return site


@pytest.fixture(scope="module")
def after_live(undisturbed: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state after HOURS live runs that nobody disturbed."""
    site = _copied(undisturbed, tmp_path_factory.mktemp("live"))
    for hour in range(1, HOURS + 1):
        site.finish("live", START + hour * HOUR)
    state = site.state()
    assert len(state["forecasts"]) == HOURS * 4 and len(state["outcomes"]) == 6 and len(state["answers"]) == HOURS + 1
    return state


@pytest.fixture(scope="module")
def after_version(undisturbed: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state after a training that nobody disturbed up to its step `version`."""
    site = _new(undisturbed, tmp_path_factory.mktemp("train"))
    _train_up_to_version(site)
    return site.state() | site.versioned()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_live_runs_killed_at_random_moments_and_run_again_end_as_if_undisturbed(
    name: str, seed: int, undisturbed: Site, after_live: dict[str, Any], tmp_path: Path
) -> None:
    site, random_moment = _copied(undisturbed, tmp_path), random.Random(f"live {name} {seed}")
    for hour in range(1, HOURS + 1):
        now = START + hour * HOUR
        process = site.start("live", now)
        _kill(process, name, random_moment, lambda: site.wrote("live", now, "ingest").exists(), 0.25)
        site.finish("live", now)
    assert site.state() == after_live


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_training_killed_at_random_moments_and_run_again_ends_as_if_undisturbed(
    name: str, seed: int, undisturbed: Site, after_version: dict[str, Any], tmp_path: Path
) -> None:
    site, random_moment = _new(undisturbed, tmp_path), random.Random(f"train {name} {seed}")
    for _ in range(2):
        process = site.start("train", START)
        _kill(process, name, random_moment, lambda: site.wrote("train", START, "ingest").exists(), 1.5)
    _train_up_to_version(site)
    assert site.state() | site.versioned() == after_version


def test_ctrl_c_in_the_middle_of_a_flow_exits_with_130_and_says_how_to_go_on(undisturbed: Site, tmp_path: Path) -> None:
    site = _new(undisturbed, tmp_path)
    process = site.start("train", START)
    _wait(process, lambda: site.wrote("train", START, "transform").exists())
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == 130
    assert "may be run again" in complaints and "Traceback" not in complaints


def _start(words: list[str], home: Path, address: str) -> subprocess.Popen[str]:
    environment = os.environ | {"FORECASTLE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    if address:
        environment |= {"FORECASTLE_OPEN_METEO_URL": address, "FORECASTLE_OPEN_METEO_ARCHIVE_URL": address}
    program = [sys.executable, "-m", "forecastle", *words]
    pipe = subprocess.PIPE
    home.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(program, env=environment, cwd=home, stdout=pipe, stderr=pipe, text=True)


def _kill(
    process: subprocess.Popen[str], name: str, moments: random.Random, writing: Callable[[], bool], seconds: float
) -> None:
    """Send a signal at a random moment: anywhere in the first second, or so long after writing began."""
    if moments.random() < 0.5:
        _wait(process, writing)
        time.sleep(moments.uniform(0, seconds))
    else:
        time.sleep(moments.uniform(0, 1.0))
    process.send_signal(getattr(signal, name))
    said, complaints = _ended(process)
    too_late = (0, TOO_SHORT)
    # -SIGINT: it came while Python itself was starting or ending
    allowed = (-signal.SIGKILL,) if name == "SIGKILL" else (130, -signal.SIGINT)
    # what Python itself says and exits with, interrupted while it still imports site
    not_begun = name == "SIGINT" and process.returncode == 1 and "init_import_site" in complaints
    assert process.returncode in (*allowed, *too_late) or not_begun, said + complaints


def _ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process said until its end; of one that does not end, fail with what each of its threads is at."""
    try:
        return process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired as hanging:
        threads = Path(f"/proc/{process.pid}/task").glob("*")
        at = [[(one / name).read_text().strip() for name in ("comm", "wchan", "stat")] for one in threads]
        pytest.fail(f"{hanging}\n{hanging.stdout!r} {hanging.stderr!r}\n" + "\n".join(map(str, at)))


def _wait(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST
    while not happened() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)


def _train_up_to_version(site: Site) -> None:
    """Run a training; after its table is versioned it ends by itself (3), for ten days are too little to train on."""
    site.finish("train", START, TOO_SHORT)
    assert json.loads(site.wrote("train", START, "version").read_bytes())["ok"]


def _new(site: Site, folder: Path) -> Site:
    """Return a site of the same task where nothing has run yet."""
    shutil.copy(site.file, folder / site.file.name)
    return Site(folder / site.file.name, folder / "home", site.address)


def _copied(site: Site, folder: Path) -> Site:
    """Return a site in the same state, in a folder of its own."""
    made = _new(site, folder)
    shutil.copytree(site.home, made.home)
    return made


def _publish_persistence(site: Site, run: Path) -> None:
    """Publish a champion that repeats the last value: what matters here is what is written, not how good it is."""
    task = site.task
    recipe = Recipe.from_dict(json.loads((run / "recipe.json").read_bytes()))
    spread = Spread((1.0,) * task.steps, 0.1, 1.0)
    model = Model(recipe, "persistence", (Fitted("persistence"),), (1.0,), spread, 0.9, {})
    reference = json.loads((run / "reference.json").read_bytes())
    times = {"created_at": START, "trained_until": START}
    figures: dict[str, Any] = {"task": task.name, "task_digest": task.digest, "backtest": {}, "reference": reference}
    features = from_table(pl.read_parquet(run / "training.parquet"), recipe).names
    made = bundle.Bundle(version="1", data_version="d", model=model, features=features, **times, **figures)
    version = pointer.ModelVersion(task.name, "1", "run", "d")
    pointer.publish(site.settings, task, version, bundle.save(made, run / "bundle"), START)
