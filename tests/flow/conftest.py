"""What the flow tests share: a small task, the recorded weather behind the API's own layout, and a trained champion.

The champion is trained once a session (by whichever worker comes first) and copied for every test that needs one.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from filelock import FileLock

from forecastle import pipeline
from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.data.store import task_stores
from forecastle.frame import iso
from forecastle.http import asgi_transport
from forecastle.monitoring.journal import Journal
from forecastle.operations import restoring
from forecastle.settings import Settings
from forecastle.task import Task, make_task

# Boosters of a few hundred rows are many times slower where their threads wait for each other on busy cores.
os.environ.setdefault("OMP_THREAD_LIMIT", "1")

HOUR = timedelta(hours=1)
TRAINED_AT = datetime(2013, 11, 20, 0, 5, tzinfo=UTC)
Change = Callable[[list[dict[str, Any]]], None]


class Source(httpx.BaseTransport):
    """The recorded weather as the API answers it, with a fault or a change of its answers, counting requests."""

    def __init__(self, weather: pl.DataFrame, clock: Callable[[], datetime], forecast_values: bool) -> None:
        app = replay_app(weather, clock, faults=lambda: self.fault, forecast_values=forecast_values)
        self.inner = asgi_transport(app)
        self.fault: Any = None
        self.change: Change | None = None
        self.asked = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        response = self.inner.handle_request(request)
        if self.change is None:
            return response
        blocks = json.loads(response.read())
        self.change(blocks)
        return httpx.Response(200, json=blocks)


@dataclass
class Site:
    """A task with its stores and its source, and a clock that the test turns."""

    task: Task
    settings: Settings
    weather: pl.DataFrame
    now: datetime = TRAINED_AT
    forecast_values: bool = False
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        self.source = Source(self.weather, lambda: self.now, self.forecast_values)

    @property
    def folder(self) -> Path:
        return self.settings.task_folder(self.task.name)

    @property
    def history(self) -> History:
        return History(
            task_stores(self.settings, self.task.name) / "history", (self.task.target, *self.task.covariates)
        )

    def journal(self) -> Journal:
        return Journal(self.settings.journal_url)

    def run(self, flow: str, until: str | None = None) -> dict[str, pipeline.Outcome]:
        """Run a flow, or its steps up to one, and return how each step ended."""
        ended: dict[str, pipeline.Outcome] = {}
        with pipeline.open_run(self.task, self.settings, flow, self.now, self.source) as run:
            for outcome in pipeline.run_flow(run):
                ended[outcome.step] = outcome
                if outcome.step == until:
                    break
        return ended

    def must_run(self, flow: str, until: str | None = None) -> dict[str, pipeline.Summary]:
        """Run a flow that is to succeed, and return the summaries of its steps."""
        ended = self.run(flow, until)
        assert {name: outcome.error for name, outcome in ended.items() if outcome.error} == {}
        return {name: outcome.summary for name, outcome in ended.items()}

    def pass_hours(self, hours: int) -> dict[str, pipeline.Summary]:
        """Let so many hours pass with a good live run each; return the last one's summaries."""
        for _ in range(hours):
            self.now += HOUR
            ended = self.must_run("live")
        return ended

    def fail(self, flow: str = "live") -> pipeline.Outcome:
        """Run a flow that is to fail, and return the outcome it ended with."""
        ended = [*self.run(flow).values()][-1]
        assert ended.error is not None, ended
        return ended

    def state(self) -> dict[str, Any]:
        """Return what a run leaves for good: versions, forecasts, outcomes, incidents, archived answers."""
        with self.journal() as journal:
            return {
                "history": self.history.versions().rows(),
                "forecasts": sorted(journal.forecasts(self.task.name).rows()),
                "outcomes": sorted(journal.outcomes(self.task.name).rows()),
                "incidents": journal.incidents(self.task.name),
                "archive": self.archived(),
            }

    def archived(self) -> list[tuple[str, str]]:
        """Return the archived collections: when each was made, and the digest of what it brought."""
        notes = Archive(task_stores(self.settings, self.task.name) / "archive").notes()
        return sorted((iso(note.collected_at), note.sha256) for note in notes)

    def bodies(self) -> list[bytes]:
        """Return every body in the archive."""
        return [path.read_bytes() for path in (self.folder / "archive" / "bodies").rglob("*") if path.is_file()]


def describe(root: Path) -> dict[str, Any]:
    """Return the shipped task, made small: two airports, two columns, four hours ahead, four weeks to learn from."""
    data = tomllib.loads((root / "tasks" / "nyc-temperature.toml").read_text(encoding="utf-8"))
    data["source"]["start"] = date(2013, 10, 25)
    data["horizon"] = "4h"
    data["series"] = data["series"][:2]
    data["columns"] = {name: data["columns"][name] for name in ("temperature_2m", "relative_humidity_2m")}
    data["features"]["windows"] = [3, 6]
    data["training"] = {"min_history": "14d"}
    return data


def settings_at(home: Path) -> Settings:
    return Settings(home=home, http_attempts=1, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture(scope="session")
def weather() -> pl.DataFrame:
    return load_nyc_weather()


@pytest.fixture(scope="session")
def described(root: Path) -> dict[str, Any]:
    """The small task as plain data."""
    return describe(root)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, described: dict[str, Any], weather: pl.DataFrame) -> Path:
    """A home folder in which the TRAIN flow has run once, with what its steps said in said.json."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers
    home = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not (home / "said.json").exists():
            site = Site(make_task(described), settings_at(home), weather)
            said = site.must_run("train")
            (home / "said.json").write_text(json.dumps(said), encoding="utf-8")
    return home


def copy_home(home: Path, to: Path) -> None:
    """Copy a home folder to stand for itself: its registry and its versions name no file of the one it was copied
    from."""
    shutil.copytree(home, to)
    restoring.rewrite_remote(to / "versions" / ".dvc" / "config", home, to)
    restoring.rewrite_uris(to / "mlflow.db", home, to)


@pytest.fixture
def site(tmp_path: Path, trained: Path, described: dict[str, Any], weather: pl.DataFrame) -> Site:
    """A site whose champion was trained at TRAINED_AT, of this test alone."""
    copy_home(trained, tmp_path / "home")
    return Site(make_task(described), settings_at(tmp_path / "home"), weather)


@pytest.fixture
def joining_site(site: Site, described: dict[str, Any]) -> Site:
    """A site in the same home whose task takes a column from the history of the first one's; nothing has run yet."""
    columns = {"temperature_2m": described["columns"]["temperature_2m"]}
    columns["temperature_2m"] = columns["temperature_2m"] | {"max_null_share": 0.2}
    columns["damp"] = {"task": site.task.name, "column": "relative_humidity_2m"}
    return Site(make_task(described | {"name": "joining", "columns": columns}), site.settings, site.weather, site.now)


@pytest.fixture
def empty_site(tmp_path: Path, described: dict[str, Any], weather: pl.DataFrame) -> Site:
    """A site where nothing has run yet."""
    return Site(make_task(described), settings_at(tmp_path / "home"), weather)
