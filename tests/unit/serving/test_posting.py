"""Forecasts on request, and observations that are pushed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.derivation import open_history
from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel, micros
from forecastle.errors import QualityGateFailed, StorageUnavailable
from forecastle.models import bundle, pointer, predictor
from forecastle.monitoring import metrics
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import asked
from forecastle.serving import asking, bodies, posting, schemas, workbench
from forecastle.serving.app import create_app

PREDICT = "/v1/tasks/nyc-temperature/predict"
PUSH = "/v1/tasks/nyc-temperature/observations"
HOUR = timedelta(hours=1)


@pytest.fixture
def body(task, made_up):
    """Make the body of a request: the made-up truth of so many hours up to the newest."""

    def make(series_id: str = "JFK", hours: int = 96, last: datetime | None = None, **fields: object) -> dict:
        last = last or made_up.NOW.replace(minute=0)
        times = [last - (hours - 1 - one) * HOUR for one in range(hours)]
        values = {task.target: [made_up.truth(series_id, at) for at in times]}
        one = {"series_id": series_id, "timestamps": [at.isoformat() for at in times], "values": values}
        return {"series": [one | fields]}

    return make


def test_a_request_is_answered_with_forecasts_their_intervals_and_what_they_rest_on(post, body, task, made_up) -> None:
    answer = post(PREDICT, json=body())
    assert answer.status_code == 200
    assert schemas.Predictions.model_validate(answer.json())
    assert (answer.json()["model_version"], answer.json()["data_version"]) == ("3", made_up.DATA_VERSION)
    (made,) = answer.json()["predictions"]
    assert (made["series_id"], made["origin"], made["data_age"]) == ("JFK", "2013-12-16T19:00:00Z", 600)
    assert [one["horizon"] for one in made["forecasts"]] == list(range(1, task.steps + 1))
    assert made["forecasts"][0]["timestamp"] == "2013-12-16T20:00:00Z"
    assert all(one["lower"] < one["value"] < one["upper"] for one in made["forecasts"])
    assert made["forecasts"][0]["value"] == made_up.truth("JFK", made_up.NOW.replace(minute=0))


def test_a_request_gets_the_very_forecasts_a_live_run_would_make_of_the_same_data(post, filled, task, clock) -> None:
    model = bundle.load(pointer.published(filled, task).folder, "3")
    history = open_history(task, filled.task_folder(task.name) / "history")
    panel = build_panel(history.versions(as_of=clock.now), task, columns=model.recipe.columns)
    rows = panel.last_rows
    examples = make_examples(model.recipe, panel, rows, np.full(len(rows), micros(clock.now)))
    with Journal(filled.journal_url) as journal:
        tally = journal.tally(task.name, "3", clock.now, model.model.coverage)
    assert tally, "there are outcomes that widen or narrow the intervals"
    live = predictor.forecast(model, examples, clock.now, tally)
    for series_id in task.series_ids:
        known = history.read(as_of=clock.now).filter(pl.col("series_id") == series_id)
        last = {"timestamps": [known["timestamp"][-1].isoformat()], "values": {task.target: [known[task.target][-1]]}}
        (made,) = post(PREDICT, json={"series": [{"series_id": series_id} | last]}).json()["predictions"]
        expected = live.filter(pl.col("series_id") == series_id).sort("horizon")
        for name in ("value", "lower", "upper"):
            assert [one[name] for one in made["forecasts"]] == expected[name].to_list()


def test_a_short_body_of_a_known_series_is_completed_from_history(post, body) -> None:
    short, whole = post(PREDICT, json=body(hours=1)).json(), post(PREDICT, json=body(hours=96)).json()
    assert short["predictions"][0]["forecasts"] == whole["predictions"][0]["forecasts"]


def test_what_is_missing_still_degrades_the_answer_and_so_does_a_series_nobody_has_learnt(post, body) -> None:
    (made,) = post(PREDICT, json=body("BOS", hours=3)).json()["predictions"]
    assert made["degraded"]
    assert "the model has not learnt this series" in made["degraded_reason"]
    assert "of temperature_2m looked back on are missing" in made["degraded_reason"]


def test_observations_past_the_tasks_limit_degrade_the_answer(post, body, made_up) -> None:
    (made,) = post(PREDICT, json=body(last=made_up.NOW.replace(minute=0) - 4 * HOUR)).json()["predictions"]
    assert made["degraded"] and "the newest observation is 4 h 10 min old" in made["degraded_reason"]


def test_a_value_that_cannot_be_counts_as_missing_as_it_does_at_the_gate(post, body) -> None:
    wild, null = body(hours=2), body(hours=2)
    wild["series"][0]["values"]["temperature_2m"][-1] = 468.0
    null["series"][0]["values"]["temperature_2m"][-1] = None
    (made,) = post(PREDICT, json=wild).json()["predictions"]
    assert "1 values outside" in made["degraded_reason"]
    assert made["forecasts"] == post(PREDICT, json=null).json()["predictions"][0]["forecasts"]


def test_many_series_are_answered_in_the_order_they_were_asked_for_each_as_if_alone(post, body) -> None:
    names = ["JFK", *(f"S{number}" for number in range(20)), "EWR"]
    each = [body(name, last=datetime(2013, 12, 16, 19 - len(name), tzinfo=UTC))["series"][0] for name in names]
    made = post(PREDICT, json={"series": each}).json()["predictions"]
    assert [one["series_id"] for one in made] == names
    for one, own in zip(made, each, strict=True):
        if one["series_id"] in ("JFK", "S7", "EWR"):
            (alone,) = post(PREDICT, json={"series": [own]}).json()["predictions"]
            assert alone | {"prediction_id": ""} == one | {"prediction_id": ""}


def test_a_long_body_is_read_aside_and_answered_as_a_short_one_and_its_mistakes_are_told(post, body) -> None:
    long, short = body(hours=2500), body(hours=200)
    assert len(json.dumps(long)) > posting.SMALL > len(json.dumps(short))
    assert (
        post(PREDICT, json=long).json()["predictions"][0]["forecasts"]
        == post(PREDICT, json=short).json()["predictions"][0]["forecasts"]
    )
    long["series"][0]["timestamps"][7] = "yesterday"
    answer = post(PREDICT, json=long)
    assert (answer.status_code, "timestamps[7]" in answer.text) == (422, True)


def test_the_order_of_the_observations_in_a_body_changes_nothing(post, body) -> None:
    straight, turned = body(), body()
    one = turned["series"][0]
    one["timestamps"].reverse(), one["values"]["temperature_2m"].reverse()
    assert (
        post(PREDICT, json=turned).json()["predictions"][0]["forecasts"]
        == post(PREDICT, json=straight).json()["predictions"][0]["forecasts"]
    )


def test_the_path_by_the_panel_gives_the_same_forecasts_to_the_bit(filled, task, clock, body) -> None:
    model = bundle.load(pointer.published(filled, task).folder, "3")
    with Journal(filled.journal_url) as journal:
        bench = workbench.build(filled, task, model, journal, clock.now)
    assert bench.present is not None
    every = [
        body("JFK", hours=5),
        body("LGA", hours=1),
        body("BOS", hours=30, last=datetime(2013, 12, 16, 18, tzinfo=UTC)),
    ]
    content = json.dumps({"series": [one["series"][0] for one in every]}).encode()
    asked = asking.parse(content, task, bench.columns, clock.now)
    quick, slow = (one.predict(asked, clock.now) for one in (bench, replace(bench, present=None)))
    assert [one._replace(reason=None) for one in quick] == [one._replace(reason=None) for one in slow]


def test_every_forecast_that_was_answered_is_journalled_apart_and_counts_in_drift(
    app, post, ask, body, filled, task, clock
) -> None:
    current = ask(f"/v1/tasks/{task.name}/forecasts/JFK").json()
    with Journal(filled.journal_url) as journal:
        before, flags = journal.predictions(task.name), len(journal.drift_flags(task.name, 10_000, clock.now))
        answers = [post(PREDICT, json=body(hours=hours)).json() for hours in (1, 2, 3)]
        app.state.predictions.flush()
        assert journal.predictions(task.name) == before + 3
        assert len(journal.drift_flags(task.name, 10_000, clock.now)) == flags + 3
        kept = asked(journal, task.name)
    by_id = {one["prediction_id"]: one for one in kept}
    for answer in answers:
        (made,) = answer["predictions"]
        row = by_id[made["prediction_id"]]
        assert json.loads(row["forecasts"]) == made["forecasts"]
        assert (row["series_id"], row["model_version"], row["data_age"]) == ("JFK", "3", 600.0)
        assert len(row["feature_digest"]) == 32
    assert ask(f"/v1/tasks/{task.name}/forecasts/JFK").json()["forecasts"] == current["forecasts"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, "found nothing."),
        ([], "found a list."),
        ({"serie": []}, "found 'serie'; did you mean 'series'?"),
        ({"series": [{"series_id": "JFK", "timestamp": [], "values": {}}]}, "'timestamp'; did you mean 'timestamps'?"),
        ({"series": [None]}, "found null."),
        ({"series": [{str(one): 1 for one in range(9)}]}, "'4' and more."),
    ],
)
def test_names_that_are_wrong_in_a_body_are_told_with_the_nearest(post, sent, said) -> None:
    assert said in post(PREDICT, json=sent).json()["detail"]


def test_a_column_and_a_time_that_cannot_be_are_told_with_what_can(post, body, made_up) -> None:
    wrong = body(hours=1)
    wrong["series"][0]["values"] = {"temprature": [1.0]}
    assert "found 'temprature'; did you mean 'temperature_2m'?" in post(PREDICT, json=wrong).json()["detail"]
    ahead = body(hours=1, last=made_up.NOW.replace(year=2026))
    assert "Leave out what comes after 2013-12-16T19:" in post(PREDICT, json=ahead).json()["detail"]


def test_without_a_champion_there_is_nothing_to_forecast_with(settings, task, clock, made_up, get, body) -> None:
    made_up.fill(settings, task)
    answer = get(create_app(settings, [task], clock, poll_every=0), PREDICT, "POST", json=body())
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:forecastle:problem:not-enough-history")


def test_a_new_champion_forecasts_without_a_restart(post, body, filled, task, made_up) -> None:
    assert post(PREDICT, json=body()).json()["model_version"] == "3"
    made_up.publish_champion(filled, task, version="4")
    assert post(PREDICT, json=body()).json()["model_version"] == "4"


def test_new_observations_complete_the_next_request(post, body, filled, task, clock, made_up) -> None:
    clock.advance(hours=2)
    last = clock.now.replace(minute=0)
    before = post(PREDICT, json=body(hours=1, last=last)).json()["predictions"][0]["degraded_reason"]
    made_up.append(filled, task, made_up.observations(task, last - HOUR, last))
    after = post(PREDICT, json=body(hours=1, last=last)).json()["predictions"][0]["degraded_reason"]
    missing = [int(one.split(" of the ")[0].rpartition(" ")[2]) for one in (before, after)]
    assert missing[1] == missing[0] - 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"timestamps": ["yesterday"]},
            "a time such as 2013-12-16T19:00:00Z, not before 1970, in series[0].timestamps[0]",
        ),
        ({"timestamps": ["0001-01-01T00:00:00Z"]}, "a time such as 2013-12-16T19:00:00Z, not before 1970"),
        ({"timestamps": ["1969-12-31T23:59:59Z"]}, "a time such as 2013-12-16T19:00:00Z, not before 1970"),
        ({"timestamps": [12]}, "a time such as"),
        ({"timestamps": []}, "a list of 1 to 10000 times"),
        ({"timestamps": ["2999-01-01T00:00:00Z"]}, "observations of what has been"),
        ({"values": {}}, "'temperature_2m' in series[0].values"),
        ({"values": {"temperature_2m": [1.0], "temprature": [1.0]}}, "columns of task"),
        ({"values": {"temperature_2m": ["4"]}}, "a number or null in series[0].values.temperature_2m[0]"),
        ({"values": {"temperature_2m": [True]}}, "a number or null"),
        ({"values": {"temperature_2m": [10**400]}}, "numbers of a size below 1e+30"),
        ({"values": {"temperature_2m": [1.0, 2.0]}}, "1 numbers in series[0].values.temperature_2m"),
        ({"series_id": ""}, "text of 1 to 200 characters"),
        ({"series_id": 7}, "text of 1 to 200 characters"),
        ({"series_id": "J\0K"}, "text of 1 to 200 characters, none a control, in series[0].series_id"),
        ({"series_id": "JFK\n"}, "text of 1 to 200 characters, none a control"),
        ({"horizon": 3}, "series_id, timestamps and values in series[0]"),
    ],
)
def test_what_cannot_be_in_a_body_is_refused_with_its_place(post, body, changed, expected) -> None:
    answer = post(PREDICT, json=body(hours=1, **changed))
    assert answer.status_code == 422
    assert answer.json()["expected"].startswith(expected)
    assert answer.json()["type"] == "urn:forecastle:problem:request-error"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"series": []}', b'{"series": [1]}', b"\xff", b"NaN"])
def test_a_body_that_is_no_request_is_refused(post, content: bytes) -> None:
    answer = post(PREDICT, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("series_id", ["S\u00e3o\u00a0Paulo", "\u6771\u4eac\u3000\u99c5", "Gare\u202fdu Nord"])
def test_a_name_that_a_table_may_hold_may_be_asked_about(post, body, series_id: str) -> None:
    (made,) = post(PREDICT, json=body(series_id)).json()["predictions"]
    assert made["series_id"] == series_id


def test_one_series_twice_is_refused(post, body) -> None:
    twice = {"series": [*body()["series"], *body()["series"]]}
    assert post(PREDICT, json=twice).status_code == 422


def test_a_body_above_the_bound_is_413_whether_it_says_its_length_or_not(filled, task, clock, get, body) -> None:
    app = create_app(filled.model_copy(update={"max_body": 1000}), [task], clock, poll_every=0)
    said = get(app, PREDICT, "POST", json=body())
    assert (said.status_code, said.json()["status"]) == (413, 413)

    async def chunks():
        yield json.dumps(body()).encode()

    unsaid = get(app, PREDICT, "POST", content=chunks(), headers={"content-type": "application/json"})
    assert unsaid.status_code == 413


def test_a_body_that_does_not_come_in_time_is_408(post, body, monkeypatch) -> None:
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.05)

    async def chunks():
        yield json.dumps(body()).encode()[:10]
        await asyncio.sleep(60)

    answer = post(PREDICT, content=chunks(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (408, "application/problem+json")


def test_a_client_that_goes_away_in_the_middle_is_no_fault_of_the_service(app, caplog) -> None:
    scope = {"type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode(), "query_string": b""}
    scope |= {"headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http"}
    coming = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    said = []

    async def receive():
        return next(coming)

    async def send(message):
        said.append(message)

    asyncio.run(app(scope, receive, send))
    assert said[0]["status"] == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_kind_of_body_that_another_site_could_forge_is_415(post, kind: str) -> None:
    for path in (PREDICT, PUSH):
        assert post(path, content=b"{}", headers={"content-type": kind} if kind else {}).status_code == 415


def table(task, made_up, hours: int, clock, column: str | None = None) -> pl.DataFrame:
    last = clock.now.replace(minute=0)
    rows = made_up.observations(task, last - (hours - 1) * HOUR, last)
    return rows.select("series_id", "timestamp", *task.columns).rename({task.target: column or task.target})


@pytest.mark.parametrize("kind", ["text/csv", "application/json", "application/vnd.apache.parquet"])
def test_pushed_observations_go_through_archive_and_gate_into_the_history(
    post, ask, filled, task, clock, made_up, kind, tmp_path
) -> None:
    clock.advance(hours=2)
    rows = table(task, made_up, 48, clock).with_columns(pl.lit(50.0).alias("relative_humidity_2m"))
    rows = rows.with_columns(pl.lit(4.0).alias("wind_speed_10m"), pl.lit(1000.0).alias("pressure_msl"))
    if kind == "text/csv":
        content = rows.write_csv().encode()
    elif kind == "application/json":
        content = rows.with_columns(pl.col("timestamp").dt.to_string()).write_json().encode()
    else:
        rows.write_parquet(tmp_path / "rows.parquet")
        content = (tmp_path / "rows.parquet").read_bytes()
    answer = post(PUSH, content=content, headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert schemas.Accepted.model_validate(answer.json())
    assert answer.json()["new"] == 2 * len(task.series_ids)
    assert ask("/ready").json()["tasks"][0]["data_age"] == 600
    archive = filled.task_folder(task.name) / "archive"
    assert any(one.read_bytes() == content for one in archive.rglob("*") if one.is_file()) or list(archive.rglob("*"))
    again = post(PUSH, content=content, headers={"content-type": kind}).json()
    assert (again["new"], again["revised"]) == (0, 0)


def test_a_pushed_batch_that_the_gate_refuses_is_409_and_goes_into_quarantine(
    post, filled, task, clock, made_up
) -> None:
    rows = table(task, made_up, 48, clock).with_columns(pl.lit(None, dtype=pl.Float64).alias(task.target))
    answer = post(PUSH, content=rows.write_csv().encode(), headers={"content-type": "text/csv"})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:forecastle:problem:quality-gate-failed")
    assert list((filled.task_folder(task.name) / "quarantine").iterdir())


@pytest.mark.parametrize("good", [True, False])
def test_a_journal_that_is_silent_changes_nothing_about_what_became_of_a_pushed_batch(
    filled, task, clock, made_up, good: bool
) -> None:
    def silent() -> Journal:
        raise StorageUnavailable("the journal to answer", "silence", "Start it.")

    clock.advance(hours=2)
    rows = table(task, made_up, 48, clock).with_columns(
        *(pl.lit(50.0).alias(name) for name in task.columns if name != task.target)
    )
    rows = rows.with_columns(pl.lit(1000.0).alias("pressure_msl"))
    if good:
        assert posting._take_in(filled, silent, task, rows.write_csv().encode(), clock()).new > 0
    else:
        bad = rows.with_columns(pl.lit(None, dtype=pl.Float64).alias(task.target))
        with pytest.raises(QualityGateFailed):
            posting._take_in(filled, silent, task, bad.write_csv().encode(), clock())


def test_the_gates_verdict_on_what_is_pushed_counts_and_opens_and_ends_the_incident(
    post, ask, filled, task, clock, made_up
) -> None:
    def known() -> list[str]:
        found = ask("/v1/incidents", params={"open_only": True}).json()["incidents"]
        return [one["kind"] for one in found]

    rows = table(task, made_up, 48, clock).with_columns(
        *(pl.lit(50.0).alias(name) for name in task.columns if name != task.target)
    )
    rows = rows.with_columns(pl.lit(1000.0).alias("pressure_msl"))
    bad = rows.with_columns(pl.lit(None, dtype=pl.Float64).alias(task.target))
    assert post(PUSH, content=bad.write_csv().encode(), headers={"content-type": "text/csv"}).status_code == 409
    text = ask("/metrics").text
    assert 'forecastle_gate_verdicts_total{task="nyc-temperature",verdict="fail"} 1.0' in text
    assert 'forecastle_gate_failing{task="nyc-temperature"} 1.0' in text
    assert "push-refused" in known()
    clock.advance(minutes=1)
    assert post(PUSH, content=rows.write_csv().encode(), headers={"content-type": "text/csv"}).status_code == 200
    assert 'forecastle_gate_failing{task="nyc-temperature"} 0.0' in ask("/metrics").text
    assert "push-refused" not in known()


def test_a_series_that_was_withheld_from_a_push_is_back_with_the_push_that_brings_it(
    post, ask, filled, task, clock, made_up
) -> None:
    def known() -> list[str]:
        found = ask("/v1/incidents", params={"open_only": True}).json()["incidents"]
        return [one["kind"] for one in found if one["kind"] == "series-withheld"]

    def push(rows: pl.DataFrame) -> list[str]:
        answer = post(PUSH, content=rows.write_csv().encode(), headers={"content-type": "text/csv"})
        assert answer.status_code == 200, answer.text
        return answer.json()["withheld"]

    clock.advance(hours=2)
    rows = table(task, made_up, 48, clock).with_columns(
        *(pl.lit(50.0).alias(name) for name in task.columns if name != task.target)
    )
    rows = rows.with_columns(pl.lit(1000.0).alias("pressure_msl"))
    is_late = pl.col("timestamp") > clock() - timedelta(hours=2)
    mad = (pl.col("series_id") == "JFK") & ~is_late
    assert push(rows.with_columns(pl.when(~mad).then(task.target).alias(task.target))) == ["JFK"]
    assert known() == ["series-withheld"]
    clock.advance(minutes=1)
    assert push(rows.filter(pl.col("series_id") != "JFK")) == []
    assert known() == ["series-withheld"], "that another series passes says nothing of it"
    clock.advance(minutes=1)
    assert push(rows) == []
    assert known() == []


def test_the_time_a_client_takes_to_send_its_body_is_not_the_services(post, body, monkeypatch) -> None:
    spent, seconds = [], 0.0
    monkeypatch.setattr(metrics, "observe_prediction", lambda task, version, took: spent.append(took))
    monkeypatch.setattr(posting, "perf_counter", lambda: seconds)

    async def chunks():
        nonlocal seconds
        content = json.dumps(body()).encode()
        yield content[:10]
        seconds = 4.0
        yield content[10:]

    assert post(PREDICT, content=chunks(), headers={"content-type": "application/json"}).status_code == 200
    assert spent == [0.0]


@pytest.mark.parametrize(
    "content", [b"hello\nworld\n", b"", b"series_id,timestamp,temperature_2m\n", b"[1]", b"[{}]", b"PAR1"]
)
def test_a_pushed_body_that_is_no_table_of_the_task_is_422(post, content: bytes) -> None:
    answer = post(PUSH, content=content, headers={"content-type": "text/csv"})
    assert answer.status_code == 422, answer.text
