"""Airflow's API as we use it: let in, started once, followed to the end, and told as the step's own error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forecastle.delivery import airflow as door
from forecastle.errors import ForecastleError, GateError, OutsideError, SettingsError, UserError
from forecastle.http import Client, asgi_transport
from forecastle.settings import Settings

NOW = datetime(2013, 12, 1, 0, 5, tzinfo=UTC)
DAG = "small-train"
PASSWORD = "pass phrase"
TOKEN = "the-token"


class Airflow:
    """A small Airflow: one DAG, its runs, whose states come in turn, and what its tasks left."""

    def __init__(self) -> None:
        self.is_paused = self.is_stale = False
        self.runs: dict[str, dict[str, Any]] = {}
        self.states = ["running", "success"]
        self.tasks: list[dict[str, Any]] = [{"task_id": "ingest", "state": "success"}]
        self.said: dict[str, Any] = {}
        self.down = 0
        self.asked: list[str] = []
        dag = f"/api/v2/dags/{DAG}"
        self.app = Starlette(
            routes=[
                Route("/auth/token", self.login, methods=["POST"]),
                Route(dag, self.dag, methods=["GET", "PATCH"]),
                Route(f"{dag}/dagRuns", self.start, methods=["GET", "POST"]),
                Route(f"{dag}/dagRuns/{{run}}", self.run),
                Route(f"{dag}/dagRuns/{{run}}/taskInstances", self.instances),
                Route(f"{dag}/dagRuns/{{run}}/taskInstances/{{task}}/xcomEntries/said", self.xcom),
            ]
        )

    def settings(self, **fields: Any) -> Settings:
        given = {"airflow_url": "http://airflow.example/", "airflow_password": SecretStr(PASSWORD), "http_attempts": 1}
        return Settings(_env_file=None, **(given | fields))  # type: ignore[call-arg]

    def client(self, settings: Settings | None = None) -> Client:
        return Client(settings or self.settings(), asgi_transport(self.app), lambda seconds: None)

    def enter(self) -> door.Airflow:
        return door.enter(self.settings(), self.client())

    async def login(self, request: Asked) -> Response:
        given = await request.json()
        if given != {"username": "admin", "password": PASSWORD}:
            return JSONResponse({"detail": f"no {given['password']}"}, 401)
        return JSONResponse({"access_token": TOKEN}, 201)

    async def dag(self, request: Asked) -> Response:
        if refused := self._refused(request):
            return refused
        if request.method == "PATCH":
            self.is_paused = (await request.json())["is_paused"]
        return JSONResponse({"dag_id": DAG, "is_paused": self.is_paused, "is_stale": self.is_stale})

    async def start(self, request: Asked) -> Response:
        if request.method == "GET":
            return JSONResponse({"dag_runs": [one for one in self.runs.values() if one["state"] != "success"]})
        given = await request.json()
        if given["dag_run_id"] in self.runs:
            return JSONResponse({"detail": "there"}, 409)
        self.runs[given["dag_run_id"]] = {**given, "dag_id": DAG, "state": "queued"}
        return JSONResponse(self.runs[given["dag_run_id"]])

    async def run(self, request: Asked) -> Response:
        if refused := self._refused(request):
            return refused
        run = self.runs[request.path_params["run"]]
        if self.states:
            run["state"] = self.states.pop(0)
        return JSONResponse(run)

    async def instances(self, request: Asked) -> Response:
        return JSONResponse({"task_instances": self.tasks})

    async def xcom(self, request: Asked) -> Response:
        if not self.said:
            return JSONResponse({"detail": "none"}, 404)
        return JSONResponse({"value": json.dumps(self.said)})

    def _refused(self, request: Asked) -> Response | None:
        self.asked.append(request.method)
        if self.down:
            self.down -= 1
            return JSONResponse({"detail": "starting"}, 503)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return JSONResponse({"detail": "Invalid JWT token"}, 401)
        return None


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


def test_a_run_is_started_with_its_name_and_logical_date(airflow: Airflow) -> None:
    run = door.trigger(airflow.enter(), DAG, "one", NOW, "a reason")
    assert run == door.DagRun(DAG, "one", "queued", f"http://airflow.example/dags/{DAG}/runs/one")
    assert airflow.runs["one"]["logical_date"] == "2013-12-01T00:05:00Z"
    assert airflow.runs["one"]["note"] == "a reason"


def test_a_run_started_twice_is_one_run(airflow: Airflow) -> None:
    entered = airflow.enter()
    door.trigger(entered, DAG, "one")
    assert door.trigger(entered, DAG, "one").id == "one" and len(airflow.runs) == 1


def test_a_token_of_the_settings_needs_no_password(airflow: Airflow) -> None:
    settings = airflow.settings(airflow_token=SecretStr(TOKEN), airflow_password=SecretStr(""))
    assert door.trigger(door.enter(settings, airflow.client()), DAG, "one").id == "one"


def test_a_wrong_password_or_token_is_said_without_it(airflow: Airflow) -> None:
    with pytest.raises(SettingsError, match="FORECASTLE_AIRFLOW_PASSWORD") as caught:
        door.enter(airflow.settings(airflow_password=SecretStr("wrong one")), airflow.client())
    assert "wrong one" not in str(caught.value)
    stranger = door.enter(airflow.settings(airflow_token=SecretStr("not-it")), airflow.client())
    with pytest.raises(SettingsError, match="HTTP 401") as caught:
        door.trigger(stranger, DAG, "one")
    assert "not-it" not in str(caught.value)


@pytest.mark.parametrize("missing", [{"airflow_url": ""}, {"airflow_password": SecretStr("")}])
def test_a_missing_setting_is_named(airflow: Airflow, missing: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"FORECASTLE_{next(iter(missing)).upper()}"):
        door.enter(airflow.settings(**missing), airflow.client())


def test_a_dag_that_is_not_there_and_one_that_is_paused_are_refused(airflow: Airflow) -> None:
    with pytest.raises(UserError, match="a DAG 'other-train'"):
        door.trigger(airflow.enter(), "other-train", "one")
    airflow.is_paused = True
    with pytest.raises(UserError, match="--unpause"):
        door.trigger(airflow.enter(), DAG, "one")
    assert not airflow.runs
    door.trigger(airflow.enter(), DAG, "one", unpause=True)
    assert airflow.runs and not airflow.is_paused


def test_a_dag_that_airflow_has_not_read_again_since_it_started_is_worth_another_try(airflow: Airflow) -> None:
    airflow.is_stale = True
    with pytest.raises(OutsideError, match="within minutes of its start"):
        door.trigger(airflow.enter(), DAG, "one")
    assert not airflow.runs


def test_a_run_is_followed_to_its_end_over_an_outage_of_airflow(airflow: Airflow) -> None:
    entered = airflow.enter()
    run = door.trigger(entered, DAG, "one")
    airflow.down = 2
    waits: list[float] = []
    assert list(door.follow(entered, run, 60, 5, waits.append)) == [("ingest", "success")]
    assert waits == [5, 5, 5]
    door.verdict(entered, run)


def test_a_run_that_does_not_end_is_left_after_the_patience_for_another_try(airflow: Airflow) -> None:
    airflow.states = ["running"]
    entered = airflow.enter()
    run = door.trigger(entered, DAG, "one")
    with pytest.raises(OutsideError, match="to end within 10 s; found running"):
        list(door.follow(entered, run, 10, 5, lambda seconds: None))


@pytest.mark.parametrize(
    ("code", "kind"), [(1, ForecastleError), (2, UserError), (3, GateError), (4, OutsideError), (None, ForecastleError)]
)
def test_a_run_that_failed_raises_the_error_of_the_step_that_failed_it(airflow: Airflow, code, kind) -> None:
    airflow.states = ["failed"]
    airflow.tasks += [{"task_id": "quality-check", "state": "failed"}, {"task_id": "train", "state": "upstream_failed"}]
    airflow.said = {"exit_code": code, "error": "30 % of the target is null"} if code else {}
    entered = airflow.enter()
    run = door.trigger(entered, DAG, "one")
    with pytest.raises(ForecastleError, match="step quality-check of run one") as caught:
        door.verdict(entered, run)
    assert type(caught.value) is kind and caught.value.exit_code == (code or 1)
    assert ("30 %" in str(caught.value)) == bool(code) and run.page in str(caught.value)


def test_a_retrain_is_asked_for_once_while_one_waits(airflow: Airflow) -> None:
    settings = airflow.settings()
    first = door.request_retrain(settings, "small", "drift ratio 0.3", NOW, airflow.client())
    again = door.request_retrain(settings, "small", "drift ratio 0.4", NOW.replace(hour=1), airflow.client())
    assert first.id == again.id == "retrain-20131201T000500Z"
    assert [one["note"] for one in airflow.runs.values()] == ["drift ratio 0.3"]
