"""Stores filled with made-up weather, as a day of live runs would leave them; the same seed gives the same bytes."""

from __future__ import annotations

import math
import random
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from forecastle.data.history import History
from forecastle.data.present import Present
from forecastle.data.recipe import Recipe
from forecastle.data.store import task_stores
from forecastle.frame import conform
from forecastle.models import bundle, pointer
from forecastle.models.learning import Fitted
from forecastle.models.intervals import Spread
from forecastle.models.model import Model
from forecastle.monitoring.journal import OUTCOME, Journal
from forecastle.settings import Settings
from forecastle.task import Task

NOW = datetime(2013, 12, 16, 19, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
DATA_VERSION = "9f86d081884c7d659a2feaa0c55ad015"
GAP = {"LGA": (datetime(2013, 12, 15, 12, tzinfo=UTC), datetime(2013, 12, 15, 17, tzinfo=UTC))}


def truth(series_id: str, at: datetime) -> float:
    """Return the made-up temperature of a place: a daily wave, a slower front and some noise."""
    noise = random.Random(f"{series_id} {at.isoformat()}").gauss(0, 0.35)
    hours = at.timestamp() / 3600
    place = {"EWR": 0.0, "JFK": 1.2, "LGA": 0.6}.get(series_id, 0.3)
    wave = 3.6 * math.sin((hours - 13) * math.tau / 24) + 3.1 * math.sin(hours * math.tau / 61)
    return round(2.0 + place + wave + noise, 1)


def observations(task: Task, first: datetime, last: datetime, available_at: datetime | None = None) -> pl.DataFrame:
    """Return hourly observations from first to last (inclusive), with a hole where GAP says so."""
    hours = [first + step * HOUR for step in range(int((last - first) / HOUR) + 1)]
    rows = [
        {
            "series_id": one,
            "timestamp": at,
            task.target: truth(one, at),
            "available_at": at,
            "collected_at": at + HOUR / 6,
        }
        for one in task.series_ids
        for at in hours
        if not (one in GAP and GAP[one][0] <= at < GAP[one][1])
    ]
    return conform(pl.DataFrame(rows), tuple(task.columns))


def forecasts(task: Task, first: datetime, last: datetime, model_version: str = "3") -> pl.DataFrame:
    """Return the forecasts that were issued ten minutes after every hour from first to last."""
    rows = []
    for series_id in task.series_ids:
        for step in range(int((last - first) / HOUR) + 1):
            origin = first + step * HOUR
            error = random.Random(f"{series_id} {origin.isoformat()} forecast").gauss(0, 0.5)
            for horizon in range(1, task.steps + 1):
                value = truth(series_id, origin + horizon * HOUR) + error * math.sqrt(horizon)
                width = 0.9 * math.sqrt(horizon) + 0.4
                rows.append(
                    {
                        "task": task.name,
                        "series_id": series_id,
                        "origin": origin,
                        "timestamp": origin + horizon * HOUR,
                        "horizon": horizon,
                        "value": value,
                        "lower": value - width,
                        "upper": value + width,
                        "last": truth(series_id, origin),
                        "model_version": model_version,
                        "data_version": DATA_VERSION,
                        "issued_at": origin + HOUR / 6,
                        "drifted": False,
                        "estimator": "blend",
                    }
                )
    return pl.DataFrame(rows)


def append(settings: Settings, task: Task, rows: pl.DataFrame) -> None:
    """Add observations to the task's history, as the intake does."""
    History(task_stores(settings, task.name) / "history", tuple(task.columns)).append(rows)


def publish_champion(
    settings: Settings,
    task: Task,
    version: str = "3",
    member: str = "persistence",
    promised: float | None = None,
) -> None:
    """Publish a model (a naive one, so it is quickly made) with the back-test figures of a good one.

    With ``promised`` it examines itself, and promises to forecast by so much more than it does.
    """
    horizons = [
        {"horizon": step, "rmse": 0.9 + 0.3 * step, "mae": 0.7 + 0.23 * step, "r2": 0.98 - 0.02 * step}
        | {"skill": 0.08 + 0.03 * step, "coverage": 0.9 + 0.002 * step, "n": 3500}
        for step in range(1, task.steps + 1)
    ]
    pooled = {"rmse": 1.95, "mae": 1.47, "r2": 0.912, "skill": 0.22, "coverage": 0.903, "n": 21000}
    columns = (task.target, *task.covariates)
    step = task.frequency // timedelta(microseconds=1)
    recipe = Recipe(columns, task.series_ids, (0, 1), (3,), 24, task.steps, task.timezone, task.grid, None, step)
    model = Model(recipe, "blend", (Fitted(member),), (1.0,), Spread((1.6,) * task.steps, 0.1, 1.0), 0.9, {})
    made = bundle.Bundle(
        task=task.name,
        task_digest=task.digest,
        version=version,
        data_version=DATA_VERSION,
        created_at=NOW - timedelta(days=14),
        trained_until=NOW - timedelta(days=15),
        model=model,
        features=Present(recipe).names or (task.target,),
        backtest={**pooled, "horizons": horizons, "candidates": {}},
        reference={},
    )
    if promised is not None:
        at = NOW.replace(minute=0)
        made = bundle.examined(made, observations(task, at - 30 * HOUR, at))
        forecasts = made.check["forecasts"]
        value = [[one + promised for one in row] for row in forecasts["value"]]
        made = replace(made, check={**made.check, "forecasts": {**forecasts, "value": value}})
    known = pointer.ModelVersion(task.name, version, f"run-{version}", DATA_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        pointer.publish(settings, task, known, bundle.save(made, Path(folder)), NOW)


def fill(settings: Settings, task: Task, now: datetime = NOW, days: int = 4) -> None:
    """Leave history, journal and incidents as live runs of the days before ``now`` would; no model is published."""
    origin = now.replace(minute=0, second=0, microsecond=0)
    start = origin - timedelta(days=days)
    append(settings, task, observations(task, start, origin))
    with Journal(settings.journal_url) as journal:
        journal.record(forecasts(task, start, origin))
        due = journal.due(task.name, now)
        came = due.with_columns(
            pl.Series("actual", [truth(*key) for key in due.select("series_id", "timestamp").iter_rows()]),
            pl.lit(now).alias("scored_at"),
        )
        journal.score(came.select(list(OUTCOME)))
        journal.open_incident(
            task.name,
            "quality-gate",
            "30 % of temperature_2m is null in the fetched window; 1 % is allowed.",
            now - 20 * HOUR,
        )
        journal.close_incident(task.name, "quality-gate", now - 19 * HOUR, "The next good hour healed the gap.")
