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
    known = read(min(one for one in (oldest, first, now) if one is not None))
    scored = journal.score(score(task, due, known, now))
    revised = journal.rescore(changed(before, came_true(task, before.drop("actual"), known, now).collect()))
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
    return (
        came_true(task, forecasts, observations, now)
        .with_columns(instant(now).alias("scored_at"))
        .select(list(OUTCOME))
        .sort("timestamp", "series_id", "horizon", "forecast_id")
        .collect()
    )


def came_true(task: Task, forecasts: pl.DataFrame, observations: pl.DataFrame, now: datetime) -> pl.LazyFrame:
    """Return the forecasts, in the columns that are given, of which ``score`` makes outcomes, and their ``actual``."""
    known = observations.filter(pl.col("timestamp") <= instant(now - task.settled_after))
    joined = _by_bar(task, forecasts, known) if task.grid == "observed" else _by_clock(task, forecasts, known)
    return joined.filter(pl.col("actual").is_not_null() & pl.col("actual").is_not_nan())


def changed(before: pl.DataFrame, now: pl.DataFrame) -> pl.DataFrame:
    """Return the outcomes of ``now`` whose truth is another than the one they were scored by before."""
    truths = before.select("forecast_id", pl.col("actual").alias("scored_by"))
    return now.join(truths, on="forecast_id").filter(pl.col("actual") != pl.col("scored_by")).drop("scored_by")


def live_scores(outcomes: pl.DataFrame) -> dict[str, Any]:
    """Return what was delivered, by the back-test's own definition (``evaluation.scores``): pooled and per horizon."""
    return scores(outcomes)


def _by_clock(task: Task, forecasts: pl.DataFrame, observations: pl.DataFrame) -> pl.LazyFrame:
    step = task.frequency // timedelta(microseconds=1)
    slot = (pl.col("timestamp").dt.epoch("us") // step).alias("slot")
    order = [name for name in (AVAILABLE_AT, "timestamp", COLLECTED_AT) if name in observations.columns]
    truth = (
        observations.lazy()
        .sort(order)
        .select("series_id", slot, pl.col(task.target).alias("actual"))
        .unique(["series_id", "slot"], keep="last", maintain_order=True)
    )
    return forecasts.lazy().with_columns(slot).join(truth, on=["series_id", "slot"])


def _numbered(observations: pl.DataFrame) -> pl.LazyFrame:
    """Return the observed bars of every series, numbered in time order."""
    numbers = pl.int_range(pl.len(), dtype=pl.Int64).over("series_id").alias("bar")
    return observations.lazy().sort("series_id", "timestamp").with_columns(numbers)


def _by_bar(task: Task, forecasts: pl.DataFrame, observations: pl.DataFrame) -> pl.LazyFrame:
    bars = _numbered(observations)
    origins = bars.select("series_id", pl.col("timestamp").alias("origin"), "bar")
    truth = bars.select("series_id", "bar", pl.col(task.target).alias("actual"))
    placed = forecasts.lazy().join(origins, on=["series_id", "origin"]).with_columns(pl.col("bar") + pl.col("horizon"))
    return placed.join(truth, on=["series_id", "bar"])
