"""What is answered where the newest data is past the task's limit: the season before, with its own interval, marked."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from forecastle.data import roster
from forecastle.data.history import History
from forecastle.data.panel import build_panel, moment
from forecastle.data.recipe import Recipe
from forecastle.frame import SERIES
from forecastle.models import untrained
from forecastle.serving.schemas import Forecast, SeriesForecasts
from forecastle.serving.snapshot import Condition, Snapshot
from forecastle.task import Task

METHOD = "seasonal_naive"


def make(
    task: Task, history: History, recipe: Recipe, snapshot: Snapshot, series_id: str, now: datetime
) -> SeriesForecasts | None:
    """Return the forecasts of the next steps by the season before; None where that is not known.

    Their intervals rest on the errors of so many steps back as the model's features look, twice.
    """
    newest = snapshot.newest.get(series_id)
    if newest is None or recipe.lookback is None:
        return None
    rows = roster.in_service(task, history.versions(as_of=now, start=newest - 2 * recipe.lookback))
    rows = rows.filter(pl.col(SERIES) == series_id)
    if rows.is_empty():
        return None
    made = untrained.stand_in(task, recipe, build_panel(rows, task, columns=(task.target,)), series_id, now)
    if made is None:
        return None
    forecasts = (
        Forecast(
            forecast_id=None,
            timestamp=moment(at),
            horizon=step,
            value=value,
            lower=None if half != half else value - half,
            upper=None if half != half else value + half,
        )
        for step, (at, value, half) in enumerate(
            zip(made.times.tolist(), made.value.tolist(), made.half.tolist(), strict=True), start=1
        )
    )
    return snapshot.answers[series_id].model_copy(
        update={
            "origin": moment(made.origin),
            "issued_at": now,
            "model_version": None,
            "data_version": None,
            "estimator": METHOD,
            "trained": False,
            "forecasts": tuple(forecasts),
        }
    )


def told(made: SeriesForecasts, condition: Condition) -> bytes:
    """Return the answer as JSON, with its condition now."""
    reasons = [reason for reason in (condition.reason, "the season before stands in for the model") if reason]
    return (
        made.model_copy(update=condition.fields | {"degraded": True, "degraded_reason": "; ".join(reasons)})
        .model_dump_json()
        .encode()
    )
