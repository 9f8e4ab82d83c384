"""The demo's second task: how late flights leave the same airports, with the first task's weather as covariates.

A delay is known once the flight has left, so an hour's mean goes on changing after the hour; whoever forecasts sees
the flights that have left by then. The claims compare what lies in the stores with the recording itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta

import polars as pl

from forecastle import pipeline
from forecastle.console import figure
from forecastle.data.ingestion import load_batch
from forecastle.data.replay import load_nyc_flights, load_nyc_weather, replay_app
from forecastle.demo import evidence
from forecastle.demo.stage import START, Beside, Claim, Stage, run_steps, shipped_task, summaries
from forecastle.errors import ForecastleError
from forecastle.frame import iso
from forecastle.http import Client, asgi_transport
from forecastle.models import pointer
from forecastle.monitoring.journal import Journal
from forecastle.run import Summary
from forecastle.settings import Settings
from forecastle.task import Task

TASK = "nyc-departure-delay"
SINCE = date(2013, 10, 30)  # a month: enough to learn from, and soon done
COLLECTED_EVERY = 10  # days, while it is only collected
DAYS = 1  # of the simulated days, the last one, in which this task is forecast too


def shipped() -> Task:
    """Return the shipped task with the demo's shorter past."""
    task = shipped_task(TASK)
    return task.model_copy(update={"source": task.source.model_copy(update={"start": SINCE})})


@contextmanager
def trained(settings: Settings) -> Iterator[dict[str, Summary]]:
    """Run this task's first TRAIN flow against a source of its own; gives the summaries of its steps."""
    app = replay_app(load_nyc_weather(), lambda: START, flights=load_nyc_flights)
    with pipeline.open_run(shipped(), settings, "train", START, asgi_transport(app)) as run:
        yield summaries(run_steps(run))


def tell(stage: Stage) -> Iterator[Claim]:
    """A second task, departure delays with this weather as covariates: trained beside those hours, then forecast."""
    yield from _begun(stage)
    yield from _lived(stage)


def _begun(stage: Stage) -> Iterator[Claim]:
    """Yield what its training left in the stores."""
    beside = _of(stage)
    ended, run = beside.training.given(), beside.opened
    batch, history = load_batch(run.folder), run.history
    told = evidence.told_at_departure(batch.rows, beside.flights)
    yield Claim(
        f"{ended['quality-check']['new']:,} departures from {ended['ingest']['from']}; each known from when it had "
        "left",
        batch.rows.height == told > 10_000,
    )
    rows = pl.read_parquet(run.folder / "training.parquet").select(
        "series_id", "origin", "issued_at", pl.col("lag_0").alias("mean")
    )
    wrong = evidence.beyond_departed(rows, beside.flights)
    yield Claim(
        f"each of {rows.height:,} training rows knows the flights that had left when it was issued, and no other",
        wrong.is_empty() and rows["mean"].is_not_nan().any(),
    )
    weather = [name for name, column in beside.task.columns.items() if column.task]
    joined = history.read().select(pl.col(weather).is_not_null().mean())
    yield Claim(
        f"weather joined from {stage.task.name}: " + ", ".join(f"{one} {joined[one].item():.0%}" for one in weather),
        all(joined[one].item() > 0.3 for one in weather),
    )
    backtest = stage.champion(beside.task).backtest
    stage.measured["second backtest"] = backtest
    naive = evidence.rmse_of(pl.read_parquet(run.folder / "backtest.parquet"), "naive")
    unit = beside.task.unit
    yield Claim(
        f"back-test RMSE {figure(backtest['rmse'])} {unit}, skill {figure(backtest['skill'])} over persistence, "
        f"{figure(1 - backtest['rmse'] / naive)} over seasonal naive",
        backtest["skill"] > 0 and backtest["rmse"] < naive,
    )
    serving = pointer.published(stage.settings, beside.task)
    version = ended["train"]["model_version"]
    yield Claim(
        f"model {version} ({ended['train']['estimator']}) serves beside the first",
        ended["promote"]["promoted"] and serving is not None and serving.version == version,
    )


def pass_hour(stage: Stage, client: Client, left: int) -> None:
    """Let an hour pass for the second task: of the last ones, of which ``left`` are to come, each is a pass of its own.

    Where its training has failed nothing is done: that is for its own chapter to tell.
    """
    beside = _of(stage)
    if left < 24 * DAYS and _is_trained(beside):
        stage.must_run("live", opened=beside.opened)
        answers = [stage.ask(client, beside.task, one.id) for one in beside.task.series]
        beside.answered.append(sum(len(answer["forecasts"]) == beside.task.steps for answer in answers))
    elif stage.now.hour == stage.now.day % COLLECTED_EVERY == 0 and _is_trained(beside):
        stage.must_run("live", "ingest", "quality-check", opened=beside.opened)


def _is_trained(beside: Beside) -> bool:
    """Wait for its training to end, and tell whether it did well."""
    with suppress(ForecastleError):
        return bool(beside.training.given())
    return False


def _lived(stage: Stage) -> Iterator[Claim]:
    """Yield what its live hours left in the stores."""
    beside = _of(stage)
    hours, answered = len(beside.answered), sum(beside.answered)
    name = beside.task.name
    with Journal(stage.settings.journal_url) as journal:
        forecasts = journal.forecasts(name)
        outcomes = journal.outcomes(name)
    since = stage.now - timedelta(hours=hours)
    history = stage.passage("live", beside.opened).history
    versions = history.versions(start=since - timedelta(hours=6))
    told = evidence.most_revised(versions, collected_after=since)
    yield Claim(
        f"{forecasts.height:,} forecasts of delays journalled beside them, {outcomes.height:,} scored once their hour "
        "had settled",
        outcomes.height > 0 and outcomes.select("series_id", "origin", "horizon").is_unique().all(),
    )
    first, last = (told.row(at, named=True) for at in (0, -1)) if told.height else ({}, {})
    yield Claim(
        (
            f"an hour's mean is revised as flights leave: {first['series_id']} {iso(first['timestamp'])} was "
            f"{figure(first['mean_delay'])} min at {first['available_at']:%H:%M} with {first['departures']:.0f} "
            f"flights gone, {figure(last['mean_delay'])} min at {last['available_at']:%H:%M} with "
            f"{last['departures']:.0f}, in {told.height} versions"
            if told.height > 1
            else "no hour's mean was revised"
        ),
        told.height > 1,
    )
    seen = evidence.seen_by(history.versions(), forecasts.select("series_id", "origin", "issued_at").unique())
    yield Claim(
        f"no departure after the time of issue is in what {seen.height} origins were forecast from",
        seen.height > 0 and evidence.beyond_departed(seen, beside.flights).is_empty(),
    )
    requests = hours * len(beside.task.series)
    yield Claim(f"{answered:,} requests for delays answered with all forecasts", answered == requests)


def _of(stage: Stage) -> Beside:
    assert stage.beside is not None, "the story has opened the second task"
    return stage.beside
