"""A model: what forecasts every step ahead of an origin, with an interval, from the features of the origin alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats
from forecastle.data.recipe import Recipe
from forecastle.models.estimators import predict
from forecastle.models.intervals import Spread, half_widths
from forecastle.models.learning import Fitted


@dataclass(frozen=True)
class Model:
    """The recipe of its features, its members with their weights, the width of its intervals, and a last resort."""

    recipe: Recipe
    estimator: str  # persistence, blend, or a single candidate's name
    members: tuple[Fitted, ...]
    weights: tuple[float, ...]
    spread: Spread
    coverage: float
    usual: dict[str, float]  # each series' mean: what is forecast where nothing else is known


@dataclass(frozen=True)
class Prediction:
    """Forecasts of n origins, H steps ahead each, and the half widths of their intervals."""

    value: Floats  # (n, H)
    half: Floats  # (n, H)


def apply(model: Model, examples: Examples) -> Prediction:
    """Forecast every step ahead of every origin (see ``combine``)."""
    return combine(model, examples, [predict(fitted, examples) for fitted in model.members])


def combine(model: Model, examples: Examples, forecasts: Sequence[Floats]) -> Prediction:
    """Weigh the members' forecasts (n, H) of every origin, and add intervals.

    Every forecast is a number: where a member cannot say (nothing was observed within reach), the season before, the
    last value or the series' mean stands in.
    """
    value = np.zeros((len(examples), examples.steps))
    for forecast, weight in zip(forecasts, model.weights, strict=True):
        value += weight * forecast
    if np.isnan(value).any():
        overall = float(np.mean(list(model.usual.values()))) if model.usual else 0.0
        means = np.array([model.usual.get(name, overall) for name in examples.series_ids])[examples.series]
        for resort in (examples.seasonal, examples.last[:, None], means[:, None]):
            value = np.where(np.isnan(value), resort, value)
    return Prediction(value, half_widths(model.spread, examples, value))
