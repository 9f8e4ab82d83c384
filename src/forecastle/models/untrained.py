"""Forecasts of series that the model in service has not learnt: seasonal naive, marked as such.

A series that came after the last training has nothing in the model. Until one is trained on it, the season before is
forecast (the last value where there is less than a season), and journalled with ``model_version`` UNTRAINED, so that
nothing counts as the model's what is not.

The interval is honest or absent: its half width at each step ahead is the conformal quantile ⌈(n + 1)·coverage⌉ of the
absolute errors that the same method would have made from the series' own past origins within the recipe's lookback,
with what is known now as the truth. Below FEWEST of those there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from forecastle.data.examples import Examples
from forecastle.data.panel import Booleans, Floats, Integers, Panel, micros
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import seasonal_value, targets
from forecastle.frame import instant
from forecastle.models.training import forecast_rows
from forecastle.task import Task

UNTRAINED = "untrained"  # the model version of a forecast that no model made
FEWEST = 48  # errors of one step ahead below which nothing is promised


def known(recipe: Recipe, panel: Panel) -> Booleans:
    """Tell which of the panel's series, (S,), a model of this recipe has learnt."""
    return np.isin(np.array(panel.series_ids, dtype=object), np.array(recipe.series_ids, dtype=object))


def of_models(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts or outcomes (with ``model_version``) that a model made."""
    return rows.filter(pl.col("model_version") != UNTRAINED)


def forecast(task: Task, recipe: Recipe, panel: Panel, examples: Examples, now: datetime) -> pl.DataFrame:
    """Forecast every step ahead of these origins by the season before; rows as ``predictor.forecast`` returns them,
    with ``drifted`` (never). Where nothing was observed within reach there is no forecast."""
    half = np.full((len(examples), recipe.steps), np.nan)
    names = np.full(len(examples), "seasonal_naive", dtype=object)
    for place, number in enumerate(examples.series):
        own = panel.rows_of(panel.series_ids[number])
        half[place] = _half_widths(recipe, panel, own, task.training.coverage, range(1, recipe.steps + 1))
        if own.stop - own.start <= recipe.season:
            names[place] = "persistence"
    value = examples.seasonal
    rows = forecast_rows(examples, value, value - half, value + half).drop("actual", "naive")
    by_series = pl.DataFrame(
        {
            "series_id": pl.Series([examples.series_ids[number] for number in examples.series], dtype=pl.String),
            "estimator": pl.Series(names.tolist(), dtype=pl.String),
        }
    )
    return (
        rows.join(by_series, on="series_id", how="left", maintain_order="left")
        .with_columns(pl.col("value", "lower", "upper").fill_nan(None))
        .drop_nulls("value")
        .with_columns(
            pl.lit(task.name).alias("task"),
            pl.lit(UNTRAINED).alias("model_version"),
            pl.lit("").alias("data_version"),
            instant(now).alias("issued_at"),
            pl.lit(False).alias("drifted"),
        )
    )


@dataclass(frozen=True)
class StandIn:
    """What is forecast in the place of a model whose data is too old: the next steps, (H,) each; NaN: no interval."""

    origin: int  # microseconds
    times: Integers
    value: Floats
    half: Floats


def stand_in(task: Task, recipe: Recipe, panel: Panel, series_id: str, now: datetime) -> StandIn | None:
    """Forecast the task's next steps after ``now`` by the season before, however old a series' newest value is.

    ``panel`` is on the regular grid and holds what is known now, as far back as intervals are to rest on. The interval
    is that of errors made so far ahead. None where the seasons before are not known.
    """
    own = panel.rows_of(series_id)
    seen = np.flatnonzero(~np.isnan(panel.values[0, own]))
    if not len(seen):
        return None
    row = np.array([own.start + int(seen[-1])])
    origin = int(panel.timestamps[row[0]])
    passed = max((micros(now) - origin) // panel.step, 0)
    ahead = range(passed + 1, passed + task.steps + 1)
    value = np.concatenate([seasonal_value(recipe, panel, row, step) for step in ahead])
    if np.isnan(value).any():
        return None
    half = _half_widths(recipe, panel, own, task.training.coverage, ahead)
    return StandIn(origin, origin + np.array(ahead) * panel.step, value, half)


def _half_widths(recipe: Recipe, panel: Panel, own: slice, coverage: float, ahead: Sequence[int]) -> Floats:
    """Return the half width so many steps ahead each, from a series' own past errors; NaN where there are too few."""
    rows = np.arange(own.start, own.stop)
    found = np.full(len(ahead), np.nan)
    for number, step in enumerate(ahead):
        error = np.abs(targets(panel, rows, step) - seasonal_value(recipe, panel, rows, step))
        # an origin with less than a season behind it shows what persistence does, not this method
        error = np.sort(error[recipe.season :][~np.isnan(error[recipe.season :])])
        place = int(np.ceil((len(error) + 1) * coverage)) - 1
        if len(error) >= FEWEST and place < len(error):
            found[number] = error[place]
    return found
