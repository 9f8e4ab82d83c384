"""forecastle in a notebook: ``import forecastle as fc``, then four functions that do what the commands do.

    task = fc.load_task("bikes.toml")
    fc.backtest(task).scores["skill"]
    fc.train(task).reasons
    fc.forecast(task)

Stores lie where the settings say (``FORECASTLE_HOME``, default ``data`` in the working folder), so a notebook, the
command line and the service see the same history, models and forecasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from forecastle import backtesting, pipeline
from forecastle.backtesting import Backtest
from forecastle.frame import SERIES
from forecastle.http import Transport
from forecastle.models import bundle
from forecastle.monitoring.journal import Journal
from forecastle.run import Summary
from forecastle.settings import Settings, load_settings
from forecastle.task import Task, load_task

__all__ = ["Backtest", "Task", "Training", "backtest", "forecast", "load_task", "train"]


@dataclass(frozen=True)
class Training:
    """What a training came to: the version it registered, whether that serves now, and why or why not.

    ``scores`` are the figures of its back-test, pooled and by horizon.
    """

    model_version: str
    promoted: bool
    reasons: tuple[str, ...]
    scores: dict[str, Any]


def backtest(
    task: Task, now: datetime | None = None, origins: Path | str | None = None, settings: Settings | None = None
) -> Backtest:
    """Forecast a task's past with a model that ended before it; returns every forecast beside the truth, and figures.

    ``now`` (UTC; default: the clock) is the moment to act as, ``origins`` a Parquet table of the origins to forecast.
    Raises what ``forecastle backtest`` exits for: TaskError, NotEnoughHistory, QualityGateFailed.
    """
    named = None if origins is None else Path(origins)
    return backtesting.backtest_task(task, settings or load_settings(), _moment(now), named)


def train(
    task: Task, now: datetime | None = None, settings: Settings | None = None, transport: Transport | None = None
) -> Training:
    """Collect, check, train and, where the new model earned it, let it serve: the flow TRAIN.

    ``transport`` is how the source is reached (default: the network). Raises the error of the step that failed.
    """
    where, moment = settings or load_settings(), _moment(now)
    ended = _run(task, where, "train", moment, transport)
    made, decided = ended["train"], ended["promote"]
    found = bundle.load(where.task_folder(task.name) / "runs" / f"train-{moment:%Y%m%dT%H%M%SZ}" / "bundle")
    return Training(made["model_version"], decided["promoted"], tuple(decided["reasons"]), found.backtest)


def forecast(
    task: Task, now: datetime | None = None, settings: Settings | None = None, transport: Transport | None = None
) -> pl.DataFrame:
    """Collect what is new, forecast every series, journal and score: the flow LIVE. Returns the current forecasts.

    A row is one series and step ahead: series_id, origin, timestamp, horizon, value, lower, upper, model_version and
    what else the journal keeps; times in UTC. Raises the error of the step that failed.
    """
    where = settings or load_settings()
    _run(task, where, "live", _moment(now), transport)
    with Journal(where.journal_url) as journal:
        return journal.latest(task.name).sort(SERIES, "horizon")


def _run(task: Task, settings: Settings, flow: str, now: datetime, transport: Transport | None) -> dict[str, Summary]:
    """Run a flow and return the summaries of its steps by name; raise the error it ended with."""
    clock = None if transport else _clock
    ended: dict[str, Summary] = {}
    with pipeline.open_run(task, settings, flow, now, transport, clock) as run:
        for outcome in pipeline.run_flow(run):
            if outcome.error is not None:
                raise outcome.error
            ended[outcome.step] = outcome.summary
    return ended


def _moment(now: datetime | None) -> datetime:
    found = _clock() if now is None else now if now.tzinfo else now.replace(tzinfo=UTC)
    return found.astimezone(UTC).replace(microsecond=0)


def _clock() -> datetime:
    return datetime.now(UTC)
