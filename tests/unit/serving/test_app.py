"""The HTTP service: what each route answers, how it refuses, and what every answer carries."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta

import httpx
import polars as pl
import pytest

from forecastle.models import pointer
from forecastle.monitoring.journal import Journal
from forecastle.serving import app as app_module, board, schemas
from forecastle.serving.app import create_app

TASK = "/v1/tasks/nyc-temperature"
STRICT = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
HEAVY = {"mlflow", "dvc", "data_profiling", "ydata_profiling", "pandas", "sklearn", "matplotlib", "airflow", "lightgbm"}


def test_importing_the_service_loads_no_heavy_library() -> None:
    program = "import sys, forecastle.serving.app; print(*{name.split('.')[0] for name in sys.modules})"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert HEAVY & set(answer.stdout.split()) == set()


def test_health_says_that_the_process_is_alive(ask) -> None:
    answer = ask("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["commit"] is None  # no image told it


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_a_monitor_may_ask_with_head_for_what_get_would_answer(ask, path: str) -> None:
    asked, head = ask(path), ask(path, method="HEAD")
    assert head.status_code == asked.status_code == 200
    for name in ("content-type", "content-security-policy"):
        assert head.headers[name] == asked.headers[name]


def test_ready_names_the_champion_that_was_loaded_and_the_age_of_the_data(ask) -> None:
    answer = ask("/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "tasks": [
            {"task": "nyc-temperature", "ready": True, "reason": None, "model_version": "3", "data_age": 600},
        ],
    }


def test_old_data_never_makes_a_service_unready(ask, clock) -> None:
    clock.advance(days=30)
    assert ask("/ready").status_code == 200


def test_a_service_without_a_champion_is_ready_to_say_so(settings, task, clock, get) -> None:
    app = create_app(settings, [task], clock, poll_every=0)
    assert get(app, "/ready").status_code == 200
    answer = get(app, f"{TASK}/forecasts/EWR").json()
    assert answer["forecasts"] == []
    assert answer["degraded"] and "no model has been promoted yet" in answer["degraded_reason"]


def test_ready_is_503_while_the_journal_does_not_answer(tmp_path, settings, task, clock, get) -> None:
    (tmp_path / "file").write_text("not a folder")
    broken = settings.model_copy(update={"journal": f"sqlite:///{tmp_path / 'file' / 'journal.db'}"})
    app = create_app(broken, [task], clock, poll_every=0)
    answer = get(app, "/ready")
    assert answer.status_code == 503
    assert not answer.json()["tasks"][0]["ready"] and "journal" in answer.json()["tasks"][0]["reason"]
    assert get(app, "/health").status_code == 200


def test_ready_is_503_while_a_champion_cannot_be_loaded(filled, task, clock, get) -> None:
    shutil.rmtree(pointer.published(filled, task).folder)
    answer = get(create_app(filled, [task], clock, poll_every=0), "/ready")
    assert answer.status_code == 503
    assert "could not be loaded" in answer.json()["tasks"][0]["reason"]


def test_the_tasks_say_what_is_served_and_what_the_back_test_promised(ask) -> None:
    (info,) = ask("/v1/tasks").json()["tasks"]
    assert info["series"] == ["EWR", "JFK", "LGA"]
    assert (info["target"], info["unit"], info["frequency"], info["horizon"]) == ("temperature_2m", "°C", "1h", "6h")
    assert info["model"]["version"] == "3"
    assert info["promise"]["skill"] == pytest.approx(0.22)
    assert [one["horizon"] for one in info["promise"]["horizons"]] == [1, 2, 3, 4, 5, 6]
    assert ask(TASK).json() == info


def test_a_series_forecasts_say_value_interval_origin_age_and_versions(ask, task, made_up) -> None:
    answer = ask(f"{TASK}/forecasts/JFK").json()
    assert schemas.SeriesForecasts.model_validate(answer)
    assert (answer["origin"], answer["data_age"], answer["degraded"]) == ("2013-12-16T19:00:00Z", 600, False)
    assert (answer["model_version"], answer["data_version"]) == ("3", made_up.DATA_VERSION)
    steps = answer["forecasts"]
    assert [one["horizon"] for one in steps] == list(range(1, task.steps + 1))
    assert all(one["lower"] < one["value"] < one["upper"] for one in steps)


def test_all_forecasts_of_a_task_are_those_of_its_series(ask) -> None:
    answer = ask(f"{TASK}/forecasts").json()
    assert schemas.TaskForecasts.model_validate(answer)
    assert answer["series"] == [ask(f"{TASK}/forecasts/{one}").json() for one in ("EWR", "JFK", "LGA")]


def test_an_answer_spliced_from_its_halves_is_the_answer_the_model_would_write(ask) -> None:
    content = ask(f"{TASK}/forecasts/EWR").content
    assert schemas.SeriesForecasts.model_validate_json(content).model_dump_json().encode() == content


def test_data_of_which_newer_is_overdue_degrades_the_models_forecast_and_says_its_age(ask, clock) -> None:
    before = ask(f"{TASK}/forecasts/EWR").json()
    clock.advance(hours=2)
    answer = ask(f"{TASK}/forecasts/EWR").json()
    assert (answer["data_age"], answer["degraded"]) == (7800, True)
    assert answer["degraded_reason"] == "the newest value is 2 h 10 min old, and a newer one is overdue"
    assert answer["forecasts"] == before["forecasts"]


def test_past_the_tasks_limit_the_season_before_stands_in_marked_and_with_its_own_interval(
    ask, clock, task, made_up
) -> None:
    clock.advance(hours=3, minutes=30)
    answer = ask(f"{TASK}/forecasts/JFK").json()
    assert schemas.SeriesForecasts.model_validate(answer)
    assert (answer["data_age"], answer["degraded"], answer["trained"]) == (13200, True, False)
    assert (answer["estimator"], answer["model_version"]) == ("seasonal_naive", None)
    assert answer["degraded_reason"].startswith("the newest value is 3 h 40 min old, and 3 h is the task's limit")
    assert answer["degraded_reason"].endswith("the season before stands in for the model")
    assert answer["origin"] == "2013-12-16T19:00:00Z"
    first = answer["forecasts"][0]
    assert (first["timestamp"], len(answer["forecasts"])) == ("2013-12-16T23:00:00Z", task.steps)
    assert first["value"] == made_up.truth("JFK", clock.now.replace(day=15, hour=23, minute=0))
    assert all(one["lower"] < one["value"] < one["upper"] for one in answer["forecasts"])
    assert ask(f"{TASK}/forecasts").json()["series"][1] == answer


def test_past_that_only_that_route_is_503_and_says_when_to_ask_again(ask, clock) -> None:
    clock.advance(hours=26, minutes=49)
    assert ask(f"{TASK}/forecasts/JFK").status_code == 200
    clock.advance(minutes=2)
    answer = ask(f"{TASK}/forecasts/JFK")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3600")
    assert answer.json()["type"] == "urn:forecastle:problem:data-too-old"
    assert "1 d 3 h old" in answer.json()["found"]
    assert ask(f"{TASK}/forecasts").status_code == 503
    for path in (TASK, f"{TASK}/scores", "/ready", "/", "/metrics", "/v1/tasks"):
        assert ask(path).status_code == 200, path


def test_one_silent_series_takes_no_forecast_from_the_others(ask, filled, task, clock, made_up) -> None:
    clock.advance(hours=30)
    last = clock.now.replace(minute=0)
    rows = made_up.observations(task, last - timedelta(hours=2), last)
    made_up.append(filled, task, rows.filter(pl.col("series_id") != "JFK"))
    assert ask(f"{TASK}/forecasts/JFK").status_code == 503
    assert ask(f"{TASK}/forecasts/EWR").status_code == 200
    series = {one["series_id"]: one for one in ask(f"{TASK}/forecasts").json()["series"]}
    assert series["JFK"]["degraded"] and series["JFK"]["forecasts"] == []
    assert series["EWR"]["forecasts"]


def test_forecasts_whose_time_has_passed_are_never_shown(ask, clock, made_up) -> None:
    clock.advance(hours=6)
    for one in ask(f"{TASK}/forecasts/EWR").json()["forecasts"]:
        assert one["timestamp"] > clock.now.isoformat()


def test_a_new_forecast_is_served_without_a_restart(ask, filled, task, clock, made_up) -> None:
    ask(f"{TASK}/forecasts/EWR")
    clock.advance(hours=1)
    origin = clock.now - timedelta(minutes=10)
    with Journal(filled.journal_url) as journal:
        journal.record(made_up.forecasts(task, origin, origin))
    assert ask(f"{TASK}/forecasts/EWR").json()["origin"] == "2013-12-16T20:00:00Z"


def test_a_moved_clock_is_enough_to_look_again(filled, task, clock, made_up, get) -> None:
    app = create_app(filled, [task], clock, poll_every=3600)
    get(app, f"{TASK}/forecasts/EWR")
    clock.advance(hours=1)
    origin = clock.now - timedelta(minutes=10)
    with Journal(filled.journal_url) as journal:
        journal.record(made_up.forecasts(task, origin, origin))
    assert get(app, f"{TASK}/forecasts/EWR").json()["origin"] == "2013-12-16T20:00:00Z"


def test_a_new_champion_is_picked_up_without_a_restart(ask, filled, task, made_up) -> None:
    assert ask(TASK).json()["model"]["version"] == "3"
    made_up.publish_champion(filled, task, version="4")
    assert ask(TASK).json()["model"]["version"] == "4"


def test_a_champion_that_cannot_be_loaded_leaves_the_one_before_in_place(ask, filled, task, made_up) -> None:
    ask(TASK)
    made_up.publish_champion(filled, task, version="4")
    shutil.rmtree(pointer.published(filled, task).folder)
    info = ask(TASK).json()
    assert info["model"]["version"] == "3"
    assert info["degraded"] and "version 4, could not be loaded" in info["degraded_reason"]
    assert ask("/ready").status_code == 200


def test_a_champion_that_fails_its_self_check_is_refused_with_an_incident_and_the_old_one_stays(
    ask, filled, task, made_up
) -> None:
    ask(TASK)
    made_up.publish_champion(filled, task, version="4", promised=1.0)
    info = ask(TASK).json()
    assert info["model"]["version"] == "3"
    assert "version 4, could not be loaded" in info["degraded_reason"]
    (incident,) = ask("/v1/incidents?open_only=true").json()["incidents"]
    assert (incident["task"], incident["kind"]) == (task.name, "champion-refused")
    assert "version 4" in incident["reason"] and "for " in incident["reason"]
    made_up.publish_champion(filled, task, version="5", promised=0.0)
    assert ask(TASK).json()["model"]["version"] == "5"
    assert ask("/v1/incidents?open_only=true").json()["incidents"] == []


def test_a_service_that_starts_while_the_champion_is_refused_serves_the_one_before(ask, filled, task, made_up) -> None:
    made_up.publish_champion(filled, task, version="4", promised=1.0)
    info = ask(TASK).json()
    assert info["model"]["version"] == "3"
    assert info["degraded"] and "version 4, could not be loaded" in info["degraded_reason"]
    assert ask("/ready").status_code == 200
    assert [one["kind"] for one in ask("/v1/incidents?open_only=true").json()["incidents"]] == ["champion-refused"]
    assert ask(f"{TASK}/forecasts/EWR").status_code == 200


def test_a_journal_that_stops_answering_leaves_the_last_forecasts_marked(ask, filled) -> None:
    before = ask(f"{TASK}/forecasts/EWR").json()
    with sqlite3.connect(filled.home / "journal.db") as database:
        database.execute("DROP TABLE heads")
    answer = ask(f"{TASK}/forecasts/EWR").json()
    assert answer["forecasts"] == before["forecasts"]
    assert answer["degraded"] and "a store does not answer" in answer["degraded_reason"]
    assert ask("/ready").status_code == 503
    assert ask("/").status_code == 200
    assert ask("/metrics").status_code == 200


def test_scores_follow_truths_that_are_revised(ask, filled, task) -> None:
    before = ask(f"{TASK}/scores").json()["live"]["rmse"]
    with Journal(filled.journal_url) as journal:
        revised = journal.outcomes(task.name).with_columns(pl.col("actual") + 50)
        for again in (0, 1):
            assert journal.rescore(revised.with_columns(pl.col("actual") + again)) == revised.height
            after = ask(f"{TASK}/scores").json()["live"]["rmse"]
            assert after > before
            before = after


def test_scores_put_promise_beside_delivery(ask) -> None:
    answer = ask(f"{TASK}/scores").json()
    assert answer["promise"]["rmse"] == pytest.approx(1.95)
    assert answer["live"]["n"] > 1000
    assert [one["horizon"] for one in answer["live"]["horizons"]] == [1, 2, 3, 4, 5, 6]
    assert 0 < answer["live"]["skill"] < 1


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/tasks/nyc-temprature", "'nyc-temprature'; did you mean 'nyc-temperature'?"),
        ("/v1/tasks/nyc-temprature/forecasts", "'nyc-temprature'; did you mean 'nyc-temperature'?"),
        ("/v1/tasks/nyc-temprature/scores", "'nyc-temprature'; did you mean 'nyc-temperature'?"),
        (f"{TASK}/forecasts/EWX", "'EWX'; did you mean 'EWR'?"),
        (f"{TASK}/forecasts/a/b", "'a/b'"),
        ("/v1/task", "'/v1/task'; did you mean '/v1/tasks'?"),
    ],
)
def test_an_unknown_name_is_a_problem_document_that_names_the_nearest(ask, path: str, found: str) -> None:
    answer = ask(path)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (404, 404)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["found"], problem["instance"]) == (found, path)
    assert problem["expected"] and problem["action"]


@pytest.fixture
def hanging(monkeypatch):
    """Make the journal hang when it is asked whether anything changed, until told to go on."""
    asked, go_on = Journal.revision, threading.Event()
    monkeypatch.setattr(board, "PATIENCE", 0.05)
    monkeypatch.setattr(app_module, "PATIENCE", 0.05)

    def hang() -> threading.Event:
        monkeypatch.setattr(Journal, "revision", lambda *given: go_on.wait(60) and asked(*given))
        return go_on

    yield hang
    go_on.set()


def in_one_loop(app, work) -> None:
    async def all_of_it() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await work(client.get)

    asyncio.run(all_of_it())


def test_while_a_store_hangs_a_service_that_knew_it_says_what_it_said_last_and_is_not_ready(app, hanging) -> None:
    async def work(get) -> None:
        assert (await get("/v1/tasks")).status_code == 200
        go_on = hang()
        for _ in range(2):
            ready = await get("/ready")
            assert ready.status_code == 503
            assert "nothing in 0.05 seconds" in ready.json()["tasks"][0]["reason"]
            answer = await get(f"{TASK}/forecasts/JFK")
            assert (answer.status_code, answer.json()["degraded"]) == (200, True)
            assert (await get("/metrics")).status_code == 200
        go_on.set()
        while (await get(f"{TASK}/forecasts/JFK")).json()["degraded"]:
            await asyncio.sleep(0.01)

    hang = hanging
    in_one_loop(app, work)


def test_while_a_store_hangs_that_never_answered_a_service_is_503(app, hanging) -> None:
    async def work(get) -> None:
        for _ in range(2):
            ready = await get("/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
        answer = await get(f"{TASK}/forecasts/JFK")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:forecastle:problem:storage-unavailable")
        assert (await get("/metrics")).status_code == 200
        go_on.set()
        while (await get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)

    go_on = hanging()
    in_one_loop(app, work)


def test_a_method_a_route_does_not_answer_is_a_problem_document(ask) -> None:
    answer = ask("/v1/tasks", method="DELETE")
    assert (answer.status_code, answer.json()["found"]) == (405, "DELETE")
    assert "GET" in answer.headers["allow"]


def test_a_store_that_never_answered_is_a_503_with_retry_after(tmp_path, settings, task, clock, get) -> None:
    (tmp_path / "file").write_text("not a folder")
    broken = settings.model_copy(update={"journal": f"sqlite:///{tmp_path / 'file' / 'journal.db'}"})
    answer = get(create_app(broken, [task], clock), f"{TASK}/forecasts/EWR")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:forecastle:problem:storage-unavailable"
    assert int(answer.headers["retry-after"]) > 0


def test_a_fault_of_the_service_is_a_500_problem_that_tells_no_secret(filled, task, get) -> None:
    def broken_clock() -> None:
        raise RuntimeError("the password is hunter2")

    answer = get(create_app(filled, [task], broken_clock), TASK)  # type: ignore[arg-type]
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "hunter2" not in answer.text
    assert answer.headers["content-security-policy"].startswith(STRICT)


@pytest.mark.parametrize(
    "path", ["/", "/fragment", "/docs", "/health", TASK, "/static/page.css", "/nothing", "/metrics"]
)
def test_every_answer_carries_the_security_headers(ask, path: str) -> None:
    headers = ask(path).headers
    assert headers["content-security-policy"].startswith(STRICT)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"


def test_requests_are_counted_by_route_and_status_never_by_the_path_asked_for(ask) -> None:
    for path in (f"{TASK}/forecasts/EWR", f"{TASK}/forecasts/stranger-typed-this", "/stranger-typed-that"):
        ask(path)
    text = ask("/metrics").text
    route = 'route="/v1/tasks/{task}/forecasts/{series_id:path}"'
    assert f'forecastle_requests_total{{method="GET",{route},status="200"}}' in text
    assert f'forecastle_requests_total{{method="GET",{route},status="404"}}' in text
    assert 'route="unmatched",status="404"' in text
    assert "stranger" not in text


def test_the_age_of_data_begins_when_the_source_publishes_it(filled, task, clock, get) -> None:
    later = task.source.model_copy(update={"publication_delay": timedelta(minutes=4)})
    app = create_app(filled, [task.model_copy(update={"source": later})], clock, poll_every=0)
    assert 'forecastle_data_age_seconds{task="nyc-temperature"} 360.0' in get(app, "/metrics").text


def test_metrics_tell_what_the_stores_know(ask) -> None:
    text = ask("/metrics").text
    assert 'forecastle_data_age_seconds{task="nyc-temperature"} 600.0' in text
    assert 'forecastle_live_skill{horizon="all",task="nyc-temperature"}' in text
    assert "forecastle_model_info{" in text and 'model_version="3"' in text


def test_an_unchanged_fragment_is_answered_with_304(ask) -> None:
    first = ask("/fragment")
    again = ask("/fragment", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert ask("/fragment", headers={"If-None-Match": '"another"'}).status_code == 200


def test_the_documentation_page_lists_every_route_without_a_script(ask) -> None:
    page = ask("/docs").text
    assert all(path in page for path in ask("/openapi.json").json()["paths"])
    assert "<script" not in page and "style=" not in page


def test_the_openapi_document_describes_errors_as_problem_documents(ask) -> None:
    document = ask("/openapi.json").json()
    refusals = [
        list(answer["content"])
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and path != "/ready"
    ]
    assert refusals and all(types == ["application/problem+json"] for types in refusals)


def test_every_json_answer_is_what_the_openapi_document_promises(ask) -> None:
    promised = {
        "/health": schemas.Health,
        "/ready": schemas.Readiness,
        "/v1/tasks": schemas.TaskList,
        TASK: schemas.TaskInfo,
        f"{TASK}/forecasts": schemas.TaskForecasts,
        f"{TASK}/scores": schemas.TaskScores,
        "/nothing": schemas.Problem,
    }
    for path, model in promised.items():
        answer: httpx.Response = ask(path)
        assert json.loads(model.model_validate_json(answer.content).model_dump_json()) == answer.json()


def test_the_page_says_what_whoever_serves_it_wants_said(filled, task, clock, get) -> None:
    app = create_app(filled, [task], clock, poll_every=0, note="The clock is simulated.")
    assert "The clock is simulated." in get(app, "/").text


def test_an_explanation_sums_to_the_current_forecast(ask, made_up) -> None:
    for horizon in (1, 6):
        answer = ask(f"{TASK}/explain/JFK?horizon={horizon}").json()
        assert schemas.Explanation.model_validate(answer)
        parts = [*answer["start"], *answer["features"]]
        assert sum(one["adds"] for one in parts) == pytest.approx(answer["value"])
        assert (answer["origin"], answer["horizon"]) == ("2013-12-16T19:00:00Z", horizon)


def test_what_cannot_be_explained_is_refused(ask) -> None:
    assert ask(f"{TASK}/explain/EWX").status_code == 404
    assert ask(f"{TASK}/explain/JFK?horizon=7").status_code == 422
    assert ask(f"{TASK}/explain/JFK?horizon=soon").status_code == 422


def test_incidents_are_listed_newest_first_and_narrowed_down(ask, filled, task, clock) -> None:
    with Journal(filled.journal_url) as journal:
        journal.open_incident(task.name, "data-drift", "Much is new.", clock.now)
    listed = ask("/v1/incidents").json()["incidents"]
    assert [one["kind"] for one in listed] == ["data-drift", "quality-gate"]
    assert [one["kind"] for one in ask("/v1/incidents?open_only=true").json()["incidents"]] == ["data-drift"]
    unknown = ask("/v1/incidents?task=another")
    assert unknown.status_code == 404 and "another" in unknown.json()["found"]
    assert len(ask("/v1/incidents?limit=1").json()["incidents"]) == 1
    assert ask("/v1/incidents?limit=0").status_code == 422
    assert ask("/v1/incidents?task=a%00b").status_code == 422


def test_an_alert_opens_an_incident_and_its_end_closes_it(post, ask, task) -> None:
    alert = {
        "status": "firing",
        "labels": {"task": task.name, "rule": "data-drift"},
        "annotations": {"summary": "New."},
    }
    told = post("/v1/alerts", json={"version": "4", "status": "firing", "alerts": [alert]})
    assert (told.status_code, told.json()["opened"]) == (200, ["nyc-temperature: data-drift"])
    assert ask("/v1/incidents?open_only=true").json()["incidents"][0]["reason"] == "New."
    resolved = {"alerts": [alert | {"status": "resolved"}]}
    assert post("/v1/alerts", json=resolved).json()["closed"] == ["nyc-temperature: data-drift"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"alerts": 3}', b'{"alerts": ["x"]}'])
def test_what_is_no_webhook_of_alerts_is_a_problem_document(post, body: bytes) -> None:
    answer = post("/v1/alerts", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
