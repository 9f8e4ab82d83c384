"""The demo's story: from the first request to the first scored forecasts, on a year of real weather.

Time is simulated: the clock stands at five past every hour of December 2013, and the recorded APIs show nothing that
lies after it. Everything else is the system itself, as it runs against the live API.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from forecastle import pipeline
from forecastle.console import figure
from forecastle.data import ingestion
from forecastle.data.replay import load_nyc_flights, load_nyc_weather, replay_app
from forecastle.data.workspace import TABLE
from forecastle.demo import departures, drifting, evidence
from forecastle.demo.aside import Aside, Clock
from forecastle.demo.stage import START, Beside, Claim, Stage, shipped_task
from forecastle.demo.telling import Telling
from forecastle.errors import ForecastleError, QualityGateFailed, UserError
from forecastle.frame import iso, write_json, write_text
from forecastle.http import Client, asgi_transport
from forecastle.models import evaluation, pointer
from forecastle.monitoring import drift
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings, sealed_settings
from forecastle.task import Task

HOUR = timedelta(hours=1)
SEES_DRIFT = 14  # days of live errors, from which on the story tells how theirs change
MARK, LOCK = ".forecastle-demo", ".forecastle-demo.lock"
TASK = "nyc-temperature"
SIMULATED = "The clock of this demo is simulated: it replays December 2013, and stands still between two of its hours."
GUST = ("EWR", "wind_speed_10m", datetime(2013, 2, 12, 8, tzinfo=UTC))  # the record that cannot be
MPH = 0.44704  # metres a second
SCORE_NAMES = ("rmse", "mae", "r2", "skill", "coverage", "n", "horizons")
STEPS = tuple(step.name for step in pipeline.LIVE)
UP_TO_FORECAST, AFTER_FORECAST = STEPS[: (at := STEPS.index("forecast") + 1)], STEPS[at:]
HORIZON_NAMES = ("horizon", "rmse", "mae", "r2", "skill", "coverage")


def tell(folder: Path, keep: bool, plain: bool, days: int) -> bool:
    """Tell the whole story in ``folder`` (made anew each time) and return whether every chapter did what it says.

    Raises UserError for a folder that holds something else, or that another story is told in.
    """
    with _room(folder):
        return _tell(folder, keep, plain, days)


def _tell(folder: Path, keep: bool, plain: bool, days: int) -> bool:
    began = time.perf_counter()
    telling = Telling(plain)
    task = shipped_task(TASK)
    here = {"home": folder / "data", "host": "127.0.0.1", "port": 0, "git": True, "profile": "plain"}
    settings = sealed_settings(**here)  # the stores and alerts of a production are none of its business
    stage: Stage
    reader = ThreadPoolExecutor(1, "reader")
    flights = reader.submit(load_nyc_flights)  # which are not asked for before the second task's hours
    app = replay_app(load_nyc_weather(), lambda: stage.now, None, lambda: stage.fault, True, flights.result)
    source, delays = asgi_transport(app), departures.shipped()
    with (
        pipeline.open_run(task, settings, "train", START, source) as opened,
        pipeline.open_run(delays, settings, "train", START, source) as beside,
        ExitStack() as processes,
    ):
        stage = Stage(folder, task, settings, opened, telling, days)
        service = processes.enter_context(closing(Aside(served, settings, [task, delays], stage.clock)))
        before = next(number for number, (_, work) in enumerate(CHAPTERS) if work is live)
        ended = [_chapter(stage, name, work) for name, work in CHAPTERS[:before]]
        fine = all(chapter["ok"] for chapter in ended)
        if fine:
            training = processes.enter_context(closing(Aside(departures.trained, settings, patient=True)))
            stage.beside, stage.address = Beside(beside, flights, training), service.given()
            after = [one for one in CHAPTERS[before:] if one[1] is not drifting.drift or days >= SEES_DRIFT]
            ended += [_chapter(stage, name, work) for name, work in after]
            fine = all(chapter["ok"] for chapter in ended)
        _write_summary(stage, ended, time.perf_counter() - began)
        telling.end(fine, time.perf_counter() - began, folder)
        if fine and keep:
            if stage.beside:  # which nobody fed while the sensor drifted: the page is to show the same hour of both
                stage.must_run("live", opened=stage.beside.opened)
            telling.say(f"The service stays up at {stage.address} (Ctrl-C ends it).")
            service.stay()
    return fine


@contextmanager
def served(settings: Settings, tasks: Sequence[Task], clock: Clock) -> Iterator[str]:
    """Serve tasks by the story's clock; gives the service's address. It is the service's process that imports it."""
    from forecastle.serving.server import SWITCH_SECONDS, running

    sys.setswitchinterval(SWITCH_SECONDS)
    with running(settings, tasks, clock, SIMULATED) as address:
        yield address


def collect(stage: Stage) -> Iterator[Claim]:
    """Collect the history from January up to December; every answer archived byte for byte."""
    found = stage.must_run("train", "ingest")["ingest"]
    run = stage.passage("train")
    batch = ingestion.load_batch(run.folder)
    whole = evidence.archived_whole(run.stores / "archive", batch.archived, stage.now)
    yield Claim(
        f"{found['rows']:,} observations of {len(stage.task.series)} airports from {found['from']}",
        found["rows"] > 20_000,
    )
    yield Claim(
        f"{whole} of {found['answers']} answers archived byte for byte, each stamped with its collection time",
        whole == found["answers"] > 0,
    )
    yield Claim(
        f"{found['after_collection']} rows that lie after now were dropped",
        found["after_collection"] > 0 and batch.rows.filter(pl.col("timestamp") > stage.now).is_empty(),
    )


def prepare(stage: Stage) -> Iterator[Claim]:
    """Let the batch through the gate; compute features; version the training table."""
    ended = stage.must_run("train", "quality-check", "transform", "profile", "version")
    gate, table, version = ended["quality-check"], ended["transform"], ended["version"]
    run = stage.passage("train")
    stored = run.history.read().height
    yield Claim(f"the gate let {gate['new']:,} observations into the history", gate["new"] == stored > 20_000)
    gust = evidence.masked_value(run.folder / "quality.json", run.history, *GUST)
    wind = "no such wind" if gust is None else f"{gust.value / MPH:,.0f} mph of wind"
    yield Claim(
        f"{gate['masked']} masked, which became null: {wind} at {GUST[0]}, {iso(GUST[2])}",
        gust is not None and gust.is_null,
    )
    rows, grid = table["rows"], evidence.grid_rows(run.history)
    yield Claim(
        f"{rows:,} rows, every airport at every hour, of {table['features']} columns: features, targets, times",
        rows == grid > 20_000,
    )
    yield Claim(
        f"data version {version['version'][:12]} is in the DVC remote, its pointer in commit {version['commit'][:10]}",
        evidence.is_versioned(stage.settings, run.folder / TABLE, f"{stage.task.name}/{TABLE}.dvc", version),
    )


def learn(stage: Stage) -> Iterator[Claim]:
    """Back-test the candidates, register the winner, and promote it because nothing was there."""
    ended = stage.must_run("train", "train", "promote")
    trained, promoted = ended["train"], ended["promote"]
    stage.measured["backtest"] = stage.champion(stage.task).backtest
    yield Claim(
        f"model {trained['model_version']} ({trained['estimator']}): back-test RMSE {figure(trained['rmse'])} "
        f"{stage.task.unit}, skill {figure(trained['skill'])} over persistence",
        trained["skill"] > 0,
    )
    serving = pointer.published(stage.settings, stage.task)
    yield Claim(
        f"promoted to champion: {' '.join(promoted['reasons'])}",
        promoted["promoted"] and serving is not None and serving.version == trained["model_version"],
    )


def live(stage: Stage) -> Iterator[Claim]:
    """Serve over HTTP while simulated days pass hour by hour: collect, gate, forecast, score, watch."""
    answered, hours = 0, 24 * stage.days
    first, *others = (series.id for series in stage.task.series)
    with Client(stage.settings) as client, ThreadPoolExecutor(1, "visitor") as visitor:
        for hour in stage.telling.track(range(hours), "simulated hours"):
            stage.now += HOUR
            stage.must_run("live", *UP_TO_FORECAST)
            at_once = visitor.submit(stage.ask, client, stage.task, first)  # while this hour is scored and watched
            ended = stage.must_run("live", *AFTER_FORECAST)
            answers = [at_once.result(), *(stage.ask(client, stage.task, one) for one in others)]
            answered += sum(len(answer["forecasts"]) == stage.task.steps for answer in answers)
            if stage.beside:
                departures.pass_hour(stage, client, hours - hour - 1)
    stage.measured["drift_ratio"] = ended["watch"]["drift_ratio"]
    with Journal(stage.settings.journal_url) as journal:
        forecasts = journal.forecasts(stage.task.name).height
        outcomes = journal.outcomes(stage.task.name, columns=("series_id", "origin", "horizon"))
    scored, requests = outcomes.height, 24 * stage.days * len(stage.task.series)
    expected = requests * stage.task.steps
    yield Claim(f"{forecasts:,} forecasts journalled", forecasts == expected)
    yield Claim(
        f"{scored:,} of them scored, each once, when its truth had come",
        0.95 * expected < scored <= expected and outcomes.is_unique().all(),
    )
    yield Claim(f"{answered:,} requests answered meanwhile with all forecasts", answered == requests)


def bad_hour(stage: Stage) -> Iterator[Claim]:
    """Meet an answer with 30 % nulls in the target: stop before anything downstream, keep serving, heal by itself."""
    name = stage.task.name
    with Client(stage.settings) as client, Journal(stage.settings.journal_url) as journal:
        before = journal.forecasts(name).height
        stage.now, stage.fault = stage.now + HOUR, "nulls"
        ended = stage.run("live")
        stage.fault = None
        stopped = isinstance(ended[-1].error, QualityGateFailed) and ended[-1].step == "quality-check"
        yield Claim(f"the gate stopped the run of {iso(stage.now)}: {_first_line(ended[-1].error)}", stopped)
        yield Claim("nothing downstream started", len(ended) == 2 and journal.forecasts(name).height == before)
        quarantined = list((stage.settings.task_folder(name) / "quarantine").glob("*"))
        yield Claim("the batch lies in quarantine with its report", len(quarantined) == 1)
        age = stage.ask(client, stage.task, stage.task.series[0].id)["data_age"]
        yield Claim(f"the service keeps answering, with data {age // 60} minutes old", age >= HOUR.total_seconds())
        stage.now += HOUR
        healed = stage.must_run("live")["quality-check"]
        both = 2 * len(stage.task.series)
        yield Claim(
            f"the next good hour brought {healed['new']} observations: the gap is healed", healed["new"] >= both - 1
        )


def compare(stage: Stage) -> Iterator[Claim]:
    """Put promise beside delivery: back-test and live figures, latency, drift, and where everything lies."""
    with Journal(stage.settings.journal_url) as journal:
        outcomes = journal.outcomes(stage.task.name)
        before = outcomes
        if stage.warmed_from is not None:  # what the model promised was not about a sensor in the sun
            before = outcomes.filter(pl.col("timestamp") < stage.warmed_from)
        stage.measured["live"] = evaluation.scores(before)
        if stage.beside:
            stage.measured["second live"] = evaluation.scores(journal.outcomes(stage.beside.task.name))
        flags = journal.drift_flags(stage.task.name, drift.WINDOW, stage.now)
        waiting = {one.name: journal.counts(one.name)["waiting"] for one in stage.tasks}
    stage.measured["drift_ratio"] = drift.drift_ratio(flags)
    promise, delivery = stage.measured["backtest"], stage.measured["live"]
    stage.telling.promise_and_delivery(promise, delivery, stage.task, waiting[stage.task.name])
    if stage.beside:
        second = stage.champion(stage.beside.task).backtest, stage.measured["second live"]
        stage.telling.promise_and_delivery(*second, stage.beside.task, waiting[stage.beside.task.name])
    drifted = {} if stage.warmed_from is None else {"live, with the sensor in the sun": _pooled(outcomes)}
    stage.telling.facts(
        {
            **drifted,
            "request latency": "p50 {p50:.1f} ms, p99 {p99:.1f} ms".format(**_latency(stage)),
            "drift ratio": figure(stage.measured["drift_ratio"]),
            "answers, history, models": str(stage.settings.task_folder(stage.task.name)),
            "journal": stage.settings.journal_url,
            "experiments and registry": stage.settings.tracking_uri,
            "versioned data": str(stage.settings.versions),
            "figures": str(stage.folder / "summary.json"),
        }
    )
    yield Claim(
        f"live skill over persistence {figure(delivery['skill'])}, promised {figure(promise['skill'])}"
        + (f"; live up to {iso(stage.warmed_from)}, before the sensor drifted" if stage.warmed_from else ""),
        delivery["skill"] > 0,
    )


CHAPTERS: tuple[tuple[str, Callable[[Stage], Iterator[Claim]]], ...] = (
    ("collect", collect),
    ("gate, features, version", prepare),
    ("train and promote", learn),
    ("serve and forecast, hour by hour", live),
    ("a second task: departure delays", departures.tell),
    ("a bad hour", bad_hour),
    ("a sensor in the sun", drifting.drift),
    ("promise against delivery", compare),
)


def _chapter(stage: Stage, name: str, work: Callable[[Stage], Iterator[Claim]]) -> dict[str, Any]:
    """Tell one chapter: its claims as they come true; an error of the system ends it as not ok."""
    began = time.perf_counter()
    ok = True
    with stage.telling.chapter(name, work.__doc__ or "", own_bar=work is live):
        try:
            for claim in work(stage):
                stage.telling.claim(claim.text, claim.held)
                ok &= claim.held
        except ForecastleError as error:
            stage.telling.claim(str(error), held=False)
            ok = False
    return {"name": name, "ok": ok, "seconds": round(time.perf_counter() - began, 2)}


def _pooled(outcomes: pl.DataFrame) -> str:
    found = evaluation.scores(outcomes)
    return f"RMSE {figure(found['rmse'])}, skill {figure(found['skill'])}, coverage {figure(found['coverage'])}"


def _latency(stage: Stage) -> dict[str, float]:
    cuts = statistics.quantiles(stage.latencies, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def _write_summary(stage: Stage, chapters: list[dict[str, Any]], seconds: float) -> None:
    def scores(name: str) -> dict[str, Any]:
        found = stage.measured.get(name) or {}
        steps = [{key: one.get(key) for key in HORIZON_NAMES} for one in found.get("horizons", ())]
        return {key: found.get(key) for key in SCORE_NAMES} | {"horizons": steps}

    told = {"seconds": round(seconds, 2), "chapters": chapters}
    latency = _latency(stage) if len(stage.latencies) > 1 else {"p50": None, "p99": None}
    seen = {"latency_ms": latency, "drift_ratio": stage.measured.get("drift_ratio")}
    write_json(stage.folder / "summary.json", told | {name: scores(name) for name in ("backtest", "live")} | seen)
    second = {name: scores(f"second {name}") for name in ("backtest", "live")}
    write_json(stage.folder / "summary-second.json", {"task": departures.TASK} | second)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Empty the demo's folder, and keep every other demo out of it while the block runs; leave any other folder
    alone."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UserError(f"an empty folder, or a former demo, at {folder}", "something else", "Choose another --folder.")
    # first of all, and stays
    write_text(folder / MARK, "Made by forecastle demo, which empties this folder each time.\n")
    try:
        held = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"a folder that no other demo is using at {folder}", "one that runs", "End it, or choose another --folder."
        ) from None
    with held:
        for child in folder.iterdir():
            if child.name not in (MARK, LOCK):
                shutil.rmtree(child) if child.is_dir() else child.unlink()
        yield


def _first_line(error: Exception | None) -> str:
    """Say in one line why a run was stopped: of the gate, what it found."""
    said = error.found if isinstance(error, QualityGateFailed) else str(error or "it was not stopped")
    return said.strip().splitlines()[0]
