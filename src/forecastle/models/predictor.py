"""Forecasts to be issued: a published model applied to origins, as rows for the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats
from forecastle.errors import RegistryUnavailable
from forecastle.frame import instant
from forecastle.models.bundle import Bundle
from forecastle.models.intervals import multipliers
from forecastle.models.model import apply
from forecastle.models.training import forecast_rows

Tally = Mapping[tuple[str, int], float]
"""How far a model's outcomes have moved the widths of its intervals (``intervals.follow``): of each series under step
0, and of each step ahead what is its own."""


def forecast(bundle: Bundle, examples: Examples, now: datetime, tally: Tally) -> pl.DataFrame:
    """Forecast every step ahead of every origin, intervals recalibrated by the model's outcomes so far.

    Returns the rows the journal keeps, but for what monitoring adds: task, series_id, origin, horizon, timestamp,
    value, lower, upper, last, model_version, data_version, issued_at, estimator.
    """
    require_features(bundle, examples)
    made = apply(bundle.model, examples)
    half = made.half * _widened(widths(bundle, tally), examples)
    rows = forecast_rows(examples, made.value, made.value - half, made.value + half)
    return rows.drop("actual", "naive").with_columns(
        pl.lit(bundle.task).alias("task"),
        pl.lit(bundle.version).alias("model_version"),
        pl.lit(bundle.data_version).alias("data_version"),
        instant(now).alias("issued_at"),
        pl.lit(bundle.estimator).alias("estimator"),
    )


def require_features(bundle: Bundle, examples: Examples) -> None:
    """Raise RegistryUnavailable where examples have other features than the model was trained on."""
    if examples.names != bundle.features:
        strange = sorted(set(examples.names) ^ set(bundle.features)) or ["their order"]
        raise RegistryUnavailable(
            f"the features model {bundle.version} was trained on", f"others: {', '.join(strange)}", "Train it again."
        )


@dataclass(frozen=True)
class Made:
    """Forecasts of n origins, H steps ahead each, with their intervals."""

    value: Floats  # (n, H)
    lower: Floats  # (n, H)
    upper: Floats  # (n, H)


def widths(bundle: Bundle, tally: Tally) -> dict[str, Floats]:
    """Return what the half widths of each series' intervals are multiplied by, (H,), after the outcomes so far."""
    steps = bundle.recipe.steps
    names = {name: number for number, name in enumerate(dict.fromkeys(series_id for series_id, _ in tally))}
    moved = np.zeros((len(names), steps + 1))
    for (series_id, step), logarithm in tally.items():
        if step <= steps:
            moved[names[series_id], step] = logarithm
    return dict(zip(names, multipliers(moved[:, 0], moved[:, 1:]), strict=True))


def answer(bundle: Bundle, examples: Examples, multiplied: Mapping[str, Floats]) -> Made:
    """Forecast as ``forecast`` does, the same numbers without a table; ``multiplied`` is what ``widths`` returned."""
    made = apply(bundle.model, examples)
    half = made.half * _widened(multiplied, examples)
    return Made(made.value, made.value - half, made.value + half)


def _widened(multiplied: Mapping[str, Floats], examples: Examples) -> Floats:
    plain = np.ones(examples.steps)
    return np.stack([multiplied.get(examples.series_ids[one], plain) for one in examples.series])
