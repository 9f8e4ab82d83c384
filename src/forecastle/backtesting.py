"""Back-test a task in one call: from its own file, or from the history it has collected."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from forecastle.data import ahead as known_ahead
from forecastle.data import formats, identity, roster
from forecastle.data.derivation import derive, join_others, open_history, open_others
from forecastle.data.examples import Examples, make_examples
from forecastle.data.ingestion import Archive, fetch
from forecastle.data.panel import Integers, Panel, build_panel, micros, moment
from forecastle.data.quality_check import judge as judge_quality
from forecastle.data.store import Store, task_stores
from forecastle.data.transformation import make_recipe
from forecastle.errors import NotEnoughHistory, QualityGateFailed, TaskError, plainly
from forecastle.frame import AVAILABLE_AT, SERIES, TIMESTAMP
from forecastle.http import Client
from forecastle.models import estimators
from forecastle.models.estimators import candidates
from forecastle.models.evaluation import FORECAST_COLUMNS, scored_rows, scores, scores_by_series, skill_interval
from forecastle.models.learning import Options
from forecastle.models.promotion import MIN_ORIGINS
from forecastle.models.selection import FOLDS
from forecastle.models.training import chosen_origins, judge
from forecastle.settings import Settings
from forecastle.task import Task


@dataclass(frozen=True)
class Backtest:
    """The rows of a back-test (FORECAST_COLUMNS), and its figures: pooled, by horizon, by series, by candidate."""

    rows: pl.DataFrame
    scores: dict[str, Any]


def backtest_task(
    task: Task,
    settings: Settings,
    now: datetime,
    origins: Path | None = None,
    tell: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Backtest:
    """Forecast a task's past with a model that ended before it, and compare with what came true.

    ``origins`` names a Parquet table with series_id and origin: exactly those are forecast, each H steps ahead, by a
    model trained on what was available before the first of them. Default: the last ``training.backtest_share``.
    ``tell`` is told how many of the fits are done, and of how many.
    """
    past, test = past_and_test(task, settings, now, origins)
    with _counted_fits((len(FOLDS) + 1) * len(candidates(past.recipe)), tell):
        judged = judge(task, past, test, int(past.origins.max()), Options(seed=task.training.seed))
    origins_of = {
        "scored": scored_rows(judged.rows)["origin"].n_unique(),
        "forecast": judged.rows["origin"].n_unique(),
        "possible": len(np.unique(np.concatenate([past.origins, test.origins]))),
    }
    figures = {
        **scores(judged.rows),
        "origins": origins_of,
        "skill_interval": skill_interval(judged.rows),
        "series": scores_by_series(judged.rows),
        "candidates": judged.candidates,
        "weights": judged.choice.weights,
    }
    return Backtest(judged.rows.select(FORECAST_COLUMNS), figures)


def doubt(task: Task, figures: dict[str, Any]) -> str | None:
    """Say by how few origins a back-test was judged, and which steps ahead by none; None where there are enough."""
    origins, judged = figures["origins"], {one["horizon"] for one in figures["horizons"]}
    unjudged = [f"{step}" for step in range(1, task.steps + 1) if step not in judged]
    if origins["scored"] >= MIN_ORIGINS and not unjudged:
        return None
    said = f"Few origins to judge by: {origins['scored']} of {origins['forecast']} that were forecast from, of"
    said += f" {origins['possible']} that were possible; below {MIN_ORIGINS} figures say little."
    said += f" Of {', '.join(unjudged)} steps ahead no truth is there." if unjudged else ""
    return f"{said} Give more history, or a shorter horizon."


@contextmanager
def _counted_fits(count: int, tell: Callable[[str, int, int], None]) -> Iterator[None]:
    """Tell of every fit that begins while the block runs, by what the estimators log; those before it count as done."""
    begun = 0

    def count_fit(record: logging.LogRecord) -> None:
        nonlocal begun
        if record.msg == estimators.FITTING:
            tell(f"Back-testing: {record.getMessage()}…", begun, count)
            begun += 1

    with estimators.heard(count_fit):
        yield


def past_and_test(task: Task, settings: Settings, now: datetime, origins: Path | None) -> tuple[Examples, Examples]:
    """Return what a back-test learns from, as it was known when its first origin was issued, and what it forecasts."""
    versions, ahead = _observations(task, settings, now)
    if origins is None:
        panel, rows = _last_part(task, versions, ahead)
    else:
        panel, rows = _asked(task, versions, ahead, _read_origins(origins, task))
    if not len(rows):
        raise NotEnoughHistory("origins to forecast from", "none", "Give more history, or name origins.")
    issued = moment(int(panel.issued_at[rows].min()))
    past_panel = build_panel(versions.filter(pl.col(AVAILABLE_AT) <= issued), task, ahead=ahead)
    recipe = make_recipe(task, past_panel)
    return make_examples(recipe, past_panel, np.arange(past_panel.size)), make_examples(recipe, panel, rows)


def _last_part(task: Task, versions: pl.DataFrame, ahead: pl.DataFrame | None) -> tuple[Panel, Integers]:
    panel = build_panel(versions, task, ahead=ahead)
    first, last = int(panel.timestamps.min()), int(panel.timestamps.max())
    cut = first + int((last - first) * (1 - task.training.backtest_share))
    return panel, np.flatnonzero(chosen_origins(panel.timestamps, cut, task.steps))


def _asked(
    task: Task, versions: pl.DataFrame, ahead: pl.DataFrame | None, asked: pl.DataFrame
) -> tuple[Panel, Integers]:
    newest: datetime = asked["origin"].max()  # type: ignore[assignment]
    panel = build_panel(versions, task, until=newest, ahead=ahead)
    return panel, _rows_of(panel, asked)


def _observations(task: Task, settings: Settings, now: datetime) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Return every version known now, and the forecasts of covariates: of the task's own file straight from it, through
    the gate; else the history."""
    if task.source.provider != "file":
        formats.check_home(settings.home)
        identity.require(task, settings.task_folder(task.name))
        history = open_history(task, _beside(settings, task.name), beside=partial(_beside, settings))
        issued = known_ahead.read(history.root, task.ahead, now)
        return roster.in_service(task, history.versions(as_of=now)), issued
    with TemporaryDirectory() as archive, Client(settings) as client:
        batch = fetch(task, settings, client, Archive(Path(archive)), task.start, now, now, live=False)
    newest: datetime = batch.rows[TIMESTAMP].max()  # type: ignore[assignment]
    # the window ends with the table: a recorded past is not stale
    report, passed = judge_quality(task, batch.rows, batch.start, newest, now)
    if report.failures:  # a series that is withheld would be missing in the figures
        raise QualityGateFailed(
            f"a table {task.source.path} that passes the gate",
            report.reason,
            "Mend the table, or change [gate] and [columns] of the task if these values are right.",
        )
    steps = join_others(task, derive(task, passed, now), open_others(task, partial(_beside, settings)), now)
    return steps, batch.issued if task.ahead else None


def _beside(settings: Settings, name: str) -> Store:
    return task_stores(settings, name) / "history"


def _read_origins(path: Path, task: Task) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
        return table.select(
            pl.col(SERIES).cast(pl.String), pl.col("origin").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        ).unique()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TaskError(
            f"a Parquet table with series_id and origin at {path}",
            plainly(error).partition(" (os error")[0],
            "Write the origins as such a table.",
        ) from None


def _rows_of(panel: Panel, asked: pl.DataFrame) -> Integers:
    """Return the panel's row of each asked origin; TaskError names the first that is none."""
    rows: list[Integers] = []
    for (name,), group in sorted(asked.group_by(SERIES), key=lambda pair: str(pair[0][0])):
        own = panel.rows_of(str(name))
        at = np.sort(np.array([micros(one) for one in group["origin"]], dtype=np.int64))
        place = np.searchsorted(panel.timestamps[own], at)
        inside = np.minimum(place, own.stop - own.start - 1)
        wrong = panel.timestamps[own][inside] != at
        if wrong.any():
            first, last = moment(panel.timestamps[own.start]), moment(panel.timestamps[own.stop - 1])
            raise TaskError(
                f"origins of {name!r} on its grid, from {first} to {last}",
                f"{moment(at[wrong][0])}",
                "Name origins that are steps of the task's frequency (or observed bars).",
            )
        rows.append(inside + own.start)
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
