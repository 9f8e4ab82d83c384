"""The loop back: what is served drifts, an alarm asks for a retrain, the live loop trains, the incident says it all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from forecastle import pipeline
from forecastle.monitoring import alert_log, incidents


def alarm(site: Any, kind: str = "data-drift") -> None:
    """Bring an alarm in from outside, as Alertmanager's webhook does."""
    labels = {"alertname": "Forecastle", "task": site.task.name, "rule": kind}
    body = {"alerts": [{"status": "firing", "labels": labels, "annotations": {"summary": "It has drifted."}}]}
    with site.journal() as journal:
        incidents.receive(journal, site.settings, [site.task.name], body, site.now)


def incident(site: Any) -> dict[str, Any]:
    with site.journal() as journal:
        (known,) = [one for one in incidents.listing(journal, site.task.name) if one["kind"] == "data-drift"]
    return known


def steps_of(site: Any) -> list[str]:
    return [step["what"] for step in incident(site)["steps"]]


def live_pass(site: Any) -> dict[str, pipeline.Outcome]:
    """One pass of ``forecastle live`` as of the site's moment: LIVE, then TRAIN where an incident wants it."""
    site.now += timedelta(hours=1)
    site.must_run("live")
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        return {outcome.step: outcome for outcome in pipeline.retrain_if_wanted(run)}


def test_an_alarm_from_outside_is_answered_by_a_training_as_soon_as_there_is_enough_to_learn_from(site) -> None:
    site.now += timedelta(hours=30)
    alarm(site)
    assert live_pass(site) == {}, "a day of new data is too little"
    assert steps_of(site) == ["opened", "alert fires", "told", "retrain waits"]
    for _ in range(4):
        site.now += incidents.REPEATED_EVERY
        alarm(site)
    ended = live_pass(site)
    assert [*ended] == [step.name for step in pipeline.TRAIN]
    done = [step for step in steps_of(site) if step != "alert still fires"]
    assert done[:6] == ["opened", "alert fires", "told", "retrain waits", "retrain asked", "training started"]
    assert done[6:] == ["challenger promoted" if ended["promote"].summary["promoted"] else "challenger kept out"]
    assert live_pass(site) == {}, "asked once"
    known = incident(site)
    assert known["closed_at"] is None, "it ends when its measure is back, and no sooner"
    assert "Version 2." in known["steps"][6 + 4]["detail"]
    assert '"kind": "data-drift"' in alert_log.place(site.settings).read_text(encoding="utf-8")


def test_a_training_that_fails_is_said_and_asked_for_again_after_the_cooldown(site) -> None:
    site.now += timedelta(days=3)
    alarm(site)
    site.must_run("live")
    site.source.fault = "503"
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        ended = [*pipeline.retrain_if_wanted(run)]
    assert ended[-1].error is not None
    assert steps_of(site)[-2:] == ["training started", "training failed"]
    site.source.fault = None
    assert live_pass(site) == {}
    site.now += timedelta(days=1)
    assert "promote" in live_pass(site)


def test_a_training_that_breaks_is_noted_as_failed_and_not_begun_at_every_pass(site, monkeypatch) -> None:
    def breaks(run: Any) -> None:
        raise MemoryError("no more")

    site.now += timedelta(days=3)
    alarm(site)
    site.must_run("live")
    broken = [replace(step, work=breaks) if step.name == "train" else step for step in pipeline.TRAIN]
    monkeypatch.setitem(pipeline.FLOWS, "train", broken)
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        with pytest.raises(MemoryError):
            list(pipeline.retrain_if_wanted(run))
        assert steps_of(site)[-2:] == ["training started", "training failed"]
        assert list(pipeline.retrain_if_wanted(run)) == [], "it is asked for again after the cooldown"


@pytest.fixture
def airflow() -> Iterator[Any]:
    """A small Airflow that notes which runs it was asked to start; they wait."""
    runs: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            named = next((one for one in runs if self.path.endswith(f"/{one['dag_run_id']}")), None)
            waiting = [one for one in runs if one["state"] == "queued"]
            self._answer(named or ({"dag_runs": waiting} if "/dagRuns" in self.path else {"is_paused": False}))

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/auth/token":
                return self._answer({"access_token": "token"}, 201)
            runs.append({"dag_id": "small-train", "dag_run_id": given["dag_run_id"], "state": "queued"})
            return self._answer(runs[-1])

        def log_message(self, *_: Any) -> None: ...

        def _answer(self, said: Any, status: int = 200) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.runs = runs  # type: ignore[attr-defined]
    yield server
    server.shutdown()


def test_where_there_is_an_airflow_it_is_asked_once_and_its_training_answers_the_incident(site, airflow) -> None:
    address = f"http://127.0.0.1:{airflow.server_port}"
    asking = {"airflow_url": address, "airflow_password": SecretStr("pass phrase")}
    site.settings = site.settings.model_copy(update=asking)
    site.now += timedelta(days=3)
    alarm(site)
    for _ in range(2):
        assert live_pass(site) == {}, "the loop leaves the training to Airflow"
    assert len(airflow.runs) == 1
    assert steps_of(site) == ["opened", "alert fires", "told", "retrain asked", "training started"]
    assert f"{airflow.runs[0]['dag_run_id']} of Airflow: {address}/dags/" in incident(site)["steps"][4]["detail"]
    site.must_run("train")  # as the DAG does
    airflow.runs.clear()
    assert steps_of(site)[5:] in (["challenger promoted"], ["challenger kept out"])
    live_pass(site)
    assert airflow.runs == [], "it is answered"


def test_a_training_that_failed_in_airflow_is_noted_and_not_begun_at_every_pass(site, airflow) -> None:
    asking = {"airflow_url": f"http://127.0.0.1:{airflow.server_port}", "airflow_password": SecretStr("pass phrase")}
    site.settings = site.settings.model_copy(update=asking)
    site.now += timedelta(days=3)
    alarm(site)
    live_pass(site)
    airflow.runs[0]["state"] = "failed"
    for _ in range(2):
        live_pass(site)
    assert len(airflow.runs) == 1
    assert [one for one in steps_of(site) if one.startswith("training")] == ["training started", "training failed"]


def test_an_airflow_that_does_not_answer_is_asked_again_at_the_next_pass(site, airflow) -> None:
    nowhere = {"airflow_url": "http://127.0.0.1:9", "airflow_password": SecretStr("pass phrase"), "http_attempts": 1}
    settings = site.settings
    site.settings = settings.model_copy(update=nowhere)
    site.now += timedelta(days=3)
    alarm(site)
    live_pass(site)
    assert steps_of(site)[-1] == "retrain asked"
    site.settings = settings.model_copy(update=nowhere | {"airflow_url": f"http://127.0.0.1:{airflow.server_port}"})
    live_pass(site)
    assert steps_of(site)[-1] == "training started"
