"""A model's forecasts of series without gaps, the short way: from rows of features, without examples around them.

The estimators that are usually chosen know it; with any other there is none. The parity law holds it to the bits of
``predictor.answer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from forecastle.data.gapless import Rows
from forecastle.data.panel import Booleans, Floats
from forecastle.data.transformation import CALENDAR
from forecastle.models.bundle import Bundle
from forecastle.models.estimators import DAY_HOURS, DAY_MINUTES, RIDGE_CLIP
from forecastle.models.intervals import Spread
from forecastle.models.learning import Fitted
from forecastle.models.predictor import Made

Forecast = Callable[[Rows], Floats]


@dataclass(frozen=True)
class Shortcut:
    """What one model's forecasts are made with: its members with their weights, and the width of its intervals."""

    members: tuple[tuple[Forecast, float], ...]
    spread: Spread
    widths: Mapping[str, Floats]  # what each series' half widths are multiplied by, (H,)

    def answer(self, rows: Rows, series_ids: Sequence[str]) -> tuple[Made, Booleans]:
        """Forecast each series from its rows; and tell which forecasts hold: of the others the long way is to say."""
        size, steps, _ = rows.matrix.shape
        value = np.zeros((size, steps))
        for forecast, weight in self.members:
            value += weight * forecast(rows)
        half = _half_widths(self.spread, rows, value)
        if self.widths:
            plain = np.ones(steps)
            half = half * np.stack([self.widths.get(one, plain) for one in series_ids])
        made = Made(value, value - half, value + half)
        total = (made.upper - made.lower).sum(axis=1)
        return made, rows.whole & (total - total == 0)


def shortcut(bundle: Bundle, widths: Mapping[str, Floats]) -> Shortcut | None:
    """Return the short way to a model's forecasts; None where it has a member that does not know it."""
    model = bundle.model
    if any(fitted.name not in _MEMBERS for fitted in model.members):
        return None
    names = (*bundle.features, "step_ahead")
    members = [(_MEMBERS[fitted.name](fitted, names), weight) for fitted, weight in zip(model.members, model.weights)]
    return Shortcut(tuple(members), model.spread, widths)


def _persistence(fitted: Fitted, names: Sequence[str]) -> Forecast:
    return lambda rows: np.repeat(rows.last[:, None], rows.matrix.shape[1], axis=1)


def _seasonal(fitted: Fitted, names: Sequence[str]) -> Forecast:
    return lambda rows: rows.seasonal


def _boosted(fitted: Fitted, names: Sequence[str]) -> Forecast:
    trees, offset = fitted.trees, fitted.numbers["offset"]
    assert trees is not None, "boosted trees are trees"

    def forecast(rows: Rows) -> Floats:
        size, steps, width = rows.matrix.shape
        answer = trees.predict(rows.matrix.reshape(size * steps, width)).reshape(size, steps)
        if offset == "level":
            return answer + 0.0
        found: Floats = answer + (rows.last[:, None] if offset == "change" else rows.seasonal)
        return found

    return forecast


def _ridge(fitted: Fitted, names: Sequence[str]) -> Forecast:
    features = names[:-1]
    kept = np.array([place for place, name in enumerate(features) if name not in CALENDAR])
    mean, deviation, weights = (np.stack(values) for values in zip(*fitted.by_step, strict=True))
    learnt = _Ridge(
        kept=kept,
        mean=mean,
        deviation=deviation,
        weights=weights[:, : len(kept)],
        hours=weights[:, len(kept) : len(kept) + 2 * DAY_HOURS],
        series=np.pad(weights[:, len(kept) + 2 * DAY_HOURS :], ((0, 0), (0, 1))),
        intercept=np.array([one["intercept"] for one in fitted.numbers["steps"]]),
        minute=features.index("minute"),
        weekday=features.index("weekday"),
        number=features.index("series"),
    )
    return partial(_ridge_forecast, learnt)


@dataclass(frozen=True, eq=False)
class _Ridge:
    """A ridge regression of each step ahead, side by side, and the columns it looks at."""

    kept: npt.NDArray[np.int64]  # the columns of the features that are not calendar or identity: K of them
    mean: Floats  # (H, K)
    deviation: Floats  # (H, K)
    weights: Floats  # (H, K)
    hours: Floats  # (H, hours of the day and of weekends)
    series: Floats  # (H, S + 1): of each series, and last 0 of one that has not been learnt
    intercept: Floats  # (H,)
    minute: int
    weekday: int
    number: int


def _ridge_forecast(learnt: _Ridge, rows: Rows) -> Floats:
    """Add up intercept, standardised features, hour and series in the order of ``predict_ridge``; zeros left out."""
    matrix, kinds = rows.matrix, len(learnt.kept)
    size, steps, _ = matrix.shape
    standard = (matrix[:, :, learnt.kept].astype(np.float64) - learnt.mean) / learnt.deviation
    terms = np.empty((size, steps, kinds + 3))
    terms[..., 0] = learnt.intercept
    np.multiply(np.clip(np.nan_to_num(standard), -RIDGE_CLIP, RIDGE_CLIP), learnt.weights, out=terms[..., 1:-2])
    hour = matrix[0, :, learnt.minute].astype(np.int64) * DAY_HOURS // DAY_MINUTES  # all series are at one origin
    ahead = np.arange(steps)
    terms[..., -2] = learnt.hours[ahead, hour + DAY_HOURS * (matrix[0, :, learnt.weekday] >= 5)]
    series = matrix[:, 0, learnt.number]
    number = np.where(np.isnan(series), learnt.series.shape[1] - 1, series).astype(np.int64)
    terms[..., -1] = learnt.series[:, number].T
    change: Floats = np.add.accumulate(terms, axis=2)[..., -1]
    return change + rows.last[:, None]


def _half_widths(spread: Spread, rows: Rows, forecast: Floats) -> Floats:
    """Return the half widths of the intervals, (n, H), as ``intervals.half_widths`` does."""
    size, steps, width = rows.matrix.shape
    if spread.trees is None:
        expected = np.full((size, steps), max(spread.usual, spread.floor))
    else:
        matrix = np.empty((size, steps, width + 2), dtype=np.float32)
        matrix[..., :width] = rows.matrix
        matrix[..., width] = forecast
        matrix[..., width + 1] = forecast - rows.last[:, None]
        answer = spread.trees.predict(matrix.reshape(size * steps, width + 2)).reshape(size, steps)
        expected = np.maximum(answer, spread.floor)
    half: Floats = expected * np.array(spread.quantiles)
    return half


_MEMBERS: dict[str, Callable[[Fitted, Sequence[str]], Forecast]] = {
    "persistence": _persistence,
    "seasonal_naive": _seasonal,
    "ridge": _ridge,
    "lightgbm_level": _boosted,
    "lightgbm_change": _boosted,
    "lightgbm_seasonal": _boosted,
}
