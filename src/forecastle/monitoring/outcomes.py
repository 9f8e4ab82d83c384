"""What came true: forecasts joined with their observations, and the live scores made of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, instant
from forecastle.models.evaluation import scores
from forecastle.monitoring.journal import OUTCOME, Journal
from forecastle.task import Task

SCORED_BY = ("forecast_id", "series_id", "origin", "horizon", "timestamp", "actual")
"""What of an outcome tells whether its truth was revised."""

GIVE_UP_AFTER = timedelta(days=7)  # a truth still absent that long after it could be known is counted as never come


def give_up_before(task: Task, now: datetime) -> datetime:
    """Return the time before which a truth still absent is counted as never come (for ``Journal.give_up``)."""
    return now - GIVE_UP_AFTER - max(task.knowable_after + task.source.publication_delay, task.settled_after)


def settle(
    journal: Journal, task: Task, read: Callable[[datetime], pl.DataFrame], since: datetime, now: datetime
) -> dict[str, int]:
    """Bring the journal up to what is true now: score what is due, each forecast once; score again what since ``since``
    was scored by a truth that has been revised; count what will never come.

    ``read`` gives the observations known now from a time on. Cut off anywhere, it is finished by being done again.
    """
    due = journal.due(task.name, now)
    oldest: datetime | None = due["origin"].min()  # type: ignore[assignment]
    before = journal.outcomes(task.name, since, SCORED_BY)
    first: datetime | None = before["origin"].min()  # type: ignore[assignment]
    truth = known_truth(task, read(min(one for one in (oldest, first, now) if one is not None)), now)
    scored = journal.score(outcomes_of(task, due, truth, now))
    revised = journal.rescore(changed(before, came_true(task, before.drop("actual"), truth)))
    lost = journal.give_up(task.name, give_up_before(task, now))
    return {"due": due.height, "scored": scored, "revised": revised, "never_came": lost}


def score(task: Task, forecasts: pl.DataFrame, observations: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Join forecasts with the observations that came true; return the outcomes (columns of ``journal.OUTCOME``).

    ``forecasts`` is what ``Journal.due`` returns, ``observations`` what ``History.read`` returns; they must reach from
    the oldest origin to ``now``. As on the grid that features read, an observation inside a step counts for that step,
    and where the grid is the observed one, the truth of horizon h is the h-th bar after the origin. A forecast whose
    observation is absent, null or not settled yet (``Task.settled_after``) has no outcome and is left out; nothing
    after ``now`` is used.
    """
    return outcomes_of(task, forecasts, known_truth(task, observations, now), now)


def outcomes_of(task: Task, forecasts: pl.DataFrame, truth: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return what ``score`` does, of the truth as ``known_truth`` gives it."""
    scored = came_true(task, forecasts, truth).with_columns(instant(now).alias("scored_at")).select(list(OUTCOME))
    return scored.sort("timestamp", "series_id", "horizon", "forecast_id")


def came_true(task: Task, forecasts: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts, in the columns that are given, of which ``score`` makes outcomes, and their ``actual``."""
    if task.grid == "observed":
        origins = truth.select("series_id", "origin", "bar")
        placed = forecasts.join(origins, on=["series_id", "origin"]).with_columns(pl.col("bar") + pl.col("horizon"))
        joined = placed.join(truth.drop("origin"), on=["series_id", "bar"])
    else:
        joined = forecasts.with_columns(_slot(task)).join(truth, on=["series_id", "slot"])
    return joined.filter(pl.col("actual").is_not_null() & pl.col("actual").is_not_nan())


def known_truth(task: Task, observations: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return what observations that have settled by ``now`` say came true: series_id, actual, and ``slot``, the number
    of the step since 1970; on the observed grid instead of that ``origin``, the bar's time, and ``bar``, its number."""
    known = observations.filter(pl.col("timestamp") <= instant(now - task.settled_after))
    actual = pl.col(task.target).alias("actual")
    if task.grid == "observed":
        numbers = pl.int_range(pl.len(), dtype=pl.Int64).over("series_id").alias("bar")
        bars = known.sort("series_id", "timestamp").with_columns(numbers)
        return bars.select("series_id", pl.col("timestamp").alias("origin"), "bar", actual)
    order = [name for name in (AVAILABLE_AT, "timestamp", COLLECTED_AT) if name in observations.columns]
    steps = known.sort(order).select("series_id", _slot(task), actual)
    return steps.unique(["series_id", "slot"], keep="last", maintain_order=True)


def _slot(task: Task) -> pl.Expr:
    return (pl.col("timestamp").dt.epoch("us") // (task.frequency // timedelta(microseconds=1))).alias("slot")


def changed(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Return the outcomes of ``now`` whose truth is another than the one they were scored by before."""
    truths = before.select("forecast_id", pl.col("actual").alias("scored_by"))
    return now.join(truths, on="forecast_id").filter(pl.col("actual") != pl.col("scored_by")).drop("scored_by")


def live_scores(outcomes: pl.DataFrame) -> dict[str, Any]:
    """Return what was delivered, by the back-test's own definition (``evaluation.scores``): pooled and per horizon."""
    return scores(outcomes)
