"""Airflow's public API: start a run of one of our DAGs, follow it to its end, ask for a retrain.

What is documented at https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html as ``/api/v2``. The
DAGs are those of ``dags/forecastle_dag.py``, each named TASK-FLOW. Airflow itself is imported nowhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from forecastle.errors import ForecastleError, GateError, OutsideError, SettingsError, SourceUnavailable, UserError
from forecastle.frame import iso
from forecastle.http import Client, Request, excerpt, without_password
from forecastle.settings import Settings

SAID = "said"
"""The XCom in which a task of our DAGs leaves what forecastle said, and its exit code."""

ENDED = frozenset({"success", "failed"})
CLASSES: dict[int, type[ForecastleError]] = {kind.exit_code: kind for kind in (UserError, GateError, OutsideError)}


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG: their names, its state, and the page that shows it."""

    dag: str
    id: str
    state: str
    page: str


@dataclass(frozen=True)
class Airflow:
    """An Airflow that has let us in."""

    client: Client
    url: str
    token: str

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str = "GET") -> Any:
        """Return what the API answers to a path below ``/api/v2``; None where there is no such thing.

        Raises SourceUnavailable where it does not answer, UserError where it answers no.
        """
        headers = {"authorization": f"Bearer {self.token}"}
        request = Request(f"{self.url}/api/v2{path}", headers=headers, method=method, body=body, hidden=(self.token,))
        answer = self.client.send(request)
        if answer.status in (404, 409):
            return None
        if answer.status in (401, 403):
            raise _not_let_in(request, answer.status)
        if not 200 <= answer.status < 300:
            raise UserError(f"{method} {request.source} to be done", _said(answer), "See what Airflow complains of.")
        return json.loads(answer.body)


def enter(settings: Settings, client: Client) -> Airflow:
    """Enter the Airflow of the settings, by the token they name or one that user and password are given.

    Raises SettingsError where they name none, or one that does not let us in.
    """
    url = settings.airflow_url.rstrip("/")
    if not url:
        raise SettingsError(
            "Airflow's address in FORECASTLE_AIRFLOW_URL", "none", "Set it, such as http://127.0.0.1:8080"
        )
    if token := settings.airflow_token.get_secret_value().strip():
        return Airflow(client, url, token)
    password = settings.secret("airflow_password")
    login = {"username": settings.airflow_user, "password": password}
    request = Request(f"{url}/auth/token", method="POST", body=login, hidden=(password,))
    answer = client.send(request)
    if answer.status in (401, 403):
        raise _not_let_in(request, answer.status)
    if answer.status not in (200, 201):
        raise SettingsError(f"a token from {request.source}", _said(answer), "Does that address belong to Airflow 3?")
    return Airflow(client, url, json.loads(answer.body)["access_token"])


def trigger(
    airflow: Airflow, dag: str, run_id: str, logical_date: datetime | None = None, note: str = "", unpause: bool = False
) -> DagRun:
    """Start a run of a DAG and return it; a run of that name which is there already is returned as it is.

    The run stands for its logical date, or for the moment it is started. Raises UserError for a DAG that is not
    there, or is paused and not to be unpaused: its run would wait for ever; OutsideError for one whose file Airflow
    has not read again since it started.
    """
    known = airflow.ask(f"/dags/{quote(dag)}")
    if known is None:
        raise UserError(
            f"a DAG {dag!r} at {_shown(airflow)}",
            "none",
            "Its name is the task's and the flow's; is dags/forecastle_dag.py deployed, and has it been parsed?",
        )
    if known.get("is_stale"):  # it is shown, but Airflow refuses to run it
        raise OutsideError(
            f"DAG {dag!r} to be in a file that Airflow has read",
            "one it has not read of late",
            "It reads them again within minutes of its start; later, is dags/forecastle_dag.py still deployed?",
        )
    if known["is_paused"]:
        if not unpause:
            raise UserError(f"DAG {dag!r} to be active", "it is paused", "Unpause it there, or with --unpause.")
        airflow.ask(f"/dags/{quote(dag)}", {"is_paused": False}, "PATCH")
    body = {
        "dag_run_id": run_id,
        "logical_date": None if logical_date is None else iso(logical_date),
        "note": note or None,
    }
    made = airflow.ask(f"/dags/{quote(dag)}/dagRuns", body, "POST")
    return _read(airflow, dag, run_id) if made is None else _dag_run(airflow, made)


def follow(
    airflow: Airflow, run: DagRun, patience: float, interval: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[str, str]]:
    """Yield each task and its state as it changes, until the run has ended, whatever way; ``verdict`` says which.

    Raises OutsideError where it has not ended after ``patience`` seconds; an Airflow that does not answer meanwhile is
    asked again until then.
    """
    states: dict[str, str] = {}
    waited, trouble = 0.0, ""
    while True:
        try:
            state = _read(airflow, run.dag, run.id).state
            instances = airflow.ask(f"{_path(run)}/taskInstances")["task_instances"]
            trouble = ""
        except SourceUnavailable as error:
            state, instances, trouble = "unknown", [], f"; {error}"
        for one in instances:
            if one["state"] and states.get(one["task_id"]) != one["state"]:
                states[one["task_id"]] = one["state"]
                yield one["task_id"], one["state"]
        if state in ENDED:
            return
        if waited >= patience:
            raise OutsideError(
                f"run {run.id} of DAG {run.dag} to end within {patience:.0f} s",
                f"{state}{trouble}",
                f"See {run.page}",
            )
        sleep(interval)
        waited += interval


def verdict(airflow: Airflow, run: DagRun) -> None:
    """Return where a run that has ended was a success; raise the error of the step that failed it otherwise."""
    if _read(airflow, run.dag, run.id).state == "success":
        return
    for one in airflow.ask(f"{_path(run)}/taskInstances")["task_instances"]:
        if one["state"] != "failed":
            continue
        entry = airflow.ask(f"{_path(run)}/taskInstances/{quote(one['task_id'])}/xcomEntries/{SAID}")
        said = _plain(entry["value"]) if entry else {}
        kind = CLASSES.get(said.get("exit_code", 0), ForecastleError)
        found = said.get("error") or "it ended without a word"
        raise kind(f"step {one['task_id']} of run {run.id} to succeed", f"this: {found}", f"See {run.page}")
    raise ForecastleError(
        f"run {run.id} of DAG {run.dag} to succeed", "it failed, no step of it did", f"See {run.page}"
    )


def request_retrain(settings: Settings, task: str, reason: str, now: datetime, client: Client | None = None) -> DagRun:
    """Ask Airflow to train a task anew, and return the run; one that waits or runs already is returned instead.

    The reason becomes the run's note. Asking again does no harm, whatever became of the first time.
    """
    dag = f"{task}-train"
    with client or Client(settings) as opened:
        airflow = enter(settings, opened)
        waiting = airflow.ask(f"/dags/{quote(dag)}/dagRuns?state=queued&state=running&limit=1")
        if waiting and waiting["dag_runs"]:
            return _dag_run(airflow, waiting["dag_runs"][0])
        return trigger(airflow, dag, f"retrain-{now:%Y%m%dT%H%M%SZ}", note=reason)


def has_failed(settings: Settings, task: str, run_id: str, client: Client | None = None) -> bool:
    """Tell whether a run of a task's TRAIN DAG has failed; one that is not known has not."""
    dag = f"{task}-train"
    with client or Client(settings) as opened:
        found = enter(settings, opened).ask(f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}")
    return found is not None and found["state"] == "failed"


def _read(airflow: Airflow, dag: str, run_id: str) -> DagRun:
    found = airflow.ask(f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}")
    if found is None:
        raise UserError(f"run {run_id} of DAG {dag}", "none", "Somebody may have deleted it.")
    return _dag_run(airflow, found)


def _dag_run(airflow: Airflow, told: Mapping[str, Any]) -> DagRun:
    dag, run_id = told["dag_id"], told["dag_run_id"]
    return DagRun(dag, run_id, told["state"], f"{_shown(airflow)}/dags/{quote(dag)}/runs/{quote(run_id)}")


def _path(run: DagRun) -> str:
    return f"/dags/{quote(run.dag)}/dagRuns/{quote(run.id)}"


def _shown(airflow: Airflow) -> str:
    return without_password(airflow.url)


def _plain(value: Any) -> dict[str, Any]:
    """Return an XCom's value, which the API may hand out as JSON text."""
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def _said(answer: Any) -> str:
    return f"HTTP {answer.status}: {excerpt(answer.body)}"


def _not_let_in(request: Request, status: int) -> SettingsError:
    return SettingsError(
        f"to be let in at {request.source}",
        f"HTTP {status}",
        "Mend FORECASTLE_AIRFLOW_USER and FORECASTLE_AIRFLOW_PASSWORD, or FORECASTLE_AIRFLOW_TOKEN.",
    )
