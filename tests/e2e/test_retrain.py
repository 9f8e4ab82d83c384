"""`make retrain` with an Airflow that is elsewhere: a small one, on a real port, that keeps what it is asked.

Real are the tool, the commands it calls and the training that follows; the weather is recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.models import pointer, registry
from forecastle.pipeline import CHALLENGE
from forecastle.settings import Settings
from forecastle.task import load_task

ROOT = Path(__file__).parents[2]
NOW = datetime(2013, 11, 20, 0, 5, tzinfo=UTC)
TOKEN = "of-the-test"
DAG = "small-challenge"
Retrain = Callable[[], subprocess.CompletedProcess[str]]


@dataclass
class Airflow:
    """An Airflow with one DAG, whose run ends as it is told to."""

    ends: str = "success"
    exit_code: int = 0
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_paused: bool = True

    @property
    def app(self) -> Starlette:
        dag = f"/api/v2/dags/{DAG}"
        return Starlette(
            routes=[
                Route(dag, self.dag, methods=["GET", "PATCH"]),
                Route(f"{dag}/dagRuns", self.start, methods=["POST"]),
                Route(f"{dag}/dagRuns/{{run}}", self.run),
                Route(f"{dag}/dagRuns/{{run}}/taskInstances", self.instances),
                Route(f"{dag}/dagRuns/{{run}}/taskInstances/train/xcomEntries/said", self.said),
            ]
        )

    async def dag(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"detail": "Invalid JWT token"}, 401)
        if request.method == "PATCH":
            self.is_paused = (await request.json())["is_paused"]
        return JSONResponse({"dag_id": DAG, "is_paused": self.is_paused})

    async def start(self, request: Request) -> Response:
        given = await request.json()
        self.runs[given["dag_run_id"]] = {**given, "dag_id": DAG, "state": "running"}
        return JSONResponse(self.runs[given["dag_run_id"]])

    async def run(self, request: Request) -> Response:
        found = self.runs[request.path_params["run"]]
        found["state"] = self.ends
        return JSONResponse(found)

    async def instances(self, _: Request) -> Response:
        return JSONResponse({"task_instances": [{"task_id": "train", "state": self.ends}]})

    async def said(self, _: Request) -> Response:
        return JSONResponse({"value": json.dumps({"exit_code": self.exit_code, "error": "too little history"})})


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def retrain(tmp_path: Path, airflow: Airflow, served: Any, small_toml: str) -> Retrain:
    """Call the tool in a folder that holds the task and its stores."""

    def call() -> subprocess.CompletedProcess[str]:
        (tmp_path / "small.toml").write_text(small_toml, encoding="utf-8")
        weather = replay_app(load_nyc_weather(), lambda: NOW)
        with served(airflow.app) as url, served(weather) as source:
            told = {
                "FORECASTLE_AIRFLOW_URL": url,
                "FORECASTLE_AIRFLOW_TOKEN": TOKEN,
                "FORECASTLE_HOME": str(tmp_path / "data"),
                "FORECASTLE_PROFILE": "plain",
                "FORECASTLE_GIT": "false",
                "FORECASTLE_HTTP_ATTEMPTS": "1",
                "FORECASTLE_OPEN_METEO_URL": source,
                "FORECASTLE_OPEN_METEO_ARCHIVE_URL": source,
                "OMP_THREAD_LIMIT": "1",
                "RETRAIN_NOW": NOW.isoformat(),
            }
            others = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTLE_")}
            return subprocess.run(
                [ROOT / "tools" / "retrain", tmp_path / "small.toml"],
                env=others | told,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=600,
            )

    return call


def test_the_challenge_runs_there_and_then_this_code_trains_here_and_nothing_is_promoted(
    airflow: Airflow, retrain: Retrain, tmp_path: Path
) -> None:
    done = retrain()
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = airflow.runs.values()
    assert (run["dag_id"], run["logical_date"], airflow.is_paused) == (DAG, "2013-11-20T00:05:00Z", False)
    assert TOKEN not in done.stdout + done.stderr
    settings = Settings(home=tmp_path / "data", _env_file=None)  # type: ignore[call-arg]
    task = load_task(tmp_path / "small.toml")
    notes = {path.stem for path in (tmp_path / "data" / "small" / "runs").glob("train-*/steps/*.json")}
    assert notes == {step.name for step in CHALLENGE}
    (trained,) = registry.versions(settings, task, with_aliases=True)
    assert trained.aliases == () and pointer.published(settings, task) is None


def test_a_challenge_that_fails_there_ends_it_as_the_step_that_failed_and_nothing_is_trained_here(
    airflow: Airflow, retrain: Retrain, tmp_path: Path
) -> None:
    airflow.ends, airflow.exit_code = "failed", 3
    done = retrain()
    assert done.returncode == 3 and "too little history" in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "data" / "small").exists()
