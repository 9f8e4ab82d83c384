"""Prediction intervals: conformal, scaled by the error to be expected, and recalibrated by outcomes.

The half width of an interval is ``quantile[step] · expected |error| · multiplier``:

- the expected absolute error of each forecast is learnt from out-of-sample errors (locally weighted conformal
  prediction: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, 2018, section 5.2), so that BTC beside ETH and noon beside
  midnight each have their own width; its logarithm is what trees add to, by the objective of a Poisson regression;
- the quantile of |error| / expected |error| is taken for each step ahead, with the finite-sample correction
  ⌈(n + 1)·coverage⌉ of split conformal prediction, the expectation cross-fitted by fold;
- the multiplier follows the outcomes (adaptive conformal inference: Gibbs and Candès, 2021, here on the logarithm of
  the width): every outcome moves it by a small step up if it was missed, down if it was covered, for its series and a
  little more for its step ahead of that series; no series moves another's. Where k forecasts of a series are for the
  same time, one gust makes all of them wrong; each then counts 1/√k. What would move a width beyond its bounds moves
  nothing, so that a sensor that was stuck for a month leaves nothing behind that has to be worked off. Live and
  back-test share ``follow``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats, Integers
from forecastle.models.learning import BOOSTING, Pairs, all_pairs, at_once, binned, load_lightgbm, tamed
from forecastle.models.trees import Trees

SCALE: dict[str, Any] = {
    **BOOSTING,
    "objective": "poisson",  # errors are so many times as large, not larger by so much: BTC beside ETH
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.4,
}
SCALE_ROUNDS = 60
LEAST_CURVATURE = 1e-3  # of a leaf, where the usual error is one
SERIES_RATE = 0.05  # how far one outcome moves the logarithm of its series' width
STEP_RATE = 0.02  # and, further, of its own step ahead of that series
NARROWEST, WIDEST = -3.0, 5.0  # bounds of that logarithm
MOST = 40_000  # errors an expectation is learnt from
FEWEST = 100  # errors from which an expectation can be learnt; with fewer it is their mean


@dataclass(frozen=True)
class Spread:
    """How wide intervals are: a quantile for each step ahead, and how the expected error is found."""

    quantiles: tuple[float, ...]  # (H,)
    floor: float
    usual: float  # the expected error where no trees were learnt
    trees: Trees | None = None


@dataclass(frozen=True)
class Errors:
    """Out-of-sample forecasts of some pairs, beside what came true, in folds by time."""

    pairs: Pairs
    forecast: Floats  # (m,)
    truth: Floats  # (m,)
    fold: Integers  # (m,)


def calibrate(errors: Sequence[Errors], coverage: float, seed: int) -> Spread:
    """Learn the width of intervals from out-of-sample errors; every fold's errors are scaled by the other folds'.

    Where there is but one fold, its halves in time are two. Without any error the width is infinite in spirit and zero
    in numbers: raise nothing, promise nothing.
    """
    if len(folds := {int(fold) for one in errors for fold in np.unique(one.fold)}) == 1:
        errors = [_halved(one, folds.pop()) for one in errors]
    absolute = [np.abs(one.truth - one.forecast) for one in errors]
    every = np.concatenate(absolute) if absolute else np.empty(0)
    steps = errors[0].pairs.examples.steps if errors else 0
    if not len(every):
        return Spread((0.0,) * steps, 0.0, 0.0)
    floor = 0.5 * float(np.quantile(every, 0.05)) + 1e-12
    drawn = _Drawn.of(errors, floor, seed)
    numbers = np.unique(np.concatenate([one.fold for one in errors])).tolist()
    learnt, *without = at_once(drawn.learn, [None, *numbers])  # what is learnt from all, and from all but each fold
    ratios, ahead = [], []
    for one, size in zip(errors, absolute, strict=True):
        for number, apart in zip(numbers, without, strict=True):
            if (here := one.fold == number).any():
                ratios.append(size[here] / _expected(apart, _sub(one.pairs, here), one.forecast[here]))
                ahead.append(one.pairs.step[here])
    ratio, step = np.concatenate(ratios), np.concatenate(ahead)
    quantiles = tuple(_quantile(ratio[step == number], ratio, coverage) for number in range(1, steps + 1))
    return Spread(quantiles, floor, learnt.usual, learnt.trees)


def half_widths(spread: Spread, examples: Examples, forecast: Floats) -> Floats:
    """Return the half width of the interval of each forecast (n, H), before any outcome was seen."""
    pairs = all_pairs(examples)
    expected = pairs.spread(_expected(spread, pairs, pairs.pick(forecast)))
    half: Floats = expected * np.array(spread.quantiles)
    return half


def follow(series: float, step: float, missed: bool, weight: float, coverage: float) -> tuple[float, float]:
    """Return by how much a series' width, and further its own of a step ahead, has moved after one more outcome.

    Both are logarithms, zero at first. An outcome counts 1/√k where k forecasts of its series are for the same time
    (``outcome_weight``); one that would move their sum beyond the bounds moves nothing.
    """
    surprise = weight * (missed - (1 - coverage))
    after = series + step + (SERIES_RATE + STEP_RATE) * surprise
    if (surprise < 0 and after < NARROWEST) or (surprise > 0 and after > WIDEST):
        return series, step
    return series + SERIES_RATE * surprise, step + STEP_RATE * surprise


def multipliers(series: npt.ArrayLike, step: npt.ArrayLike) -> Floats:
    """Return what widths are multiplied by, (S, H), where they have moved so far: (S,) and (S, H), see ``follow``."""
    width: Floats = np.exp(np.clip(np.asarray(series)[:, None] + np.asarray(step), NARROWEST, WIDEST))
    return width


def outcome_weight(shared: npt.ArrayLike) -> Floats:
    """Return how much an outcome counts whose truth so many forecasts of its series share, itself included."""
    weight: Floats = 1 / np.sqrt(np.asarray(shared, dtype=np.float64))
    return weight


def adapt(examples: Examples, forecast: Floats, half: Floats, coverage: float) -> Floats:
    """Return half widths (n, H) as they would have been live: each origin uses the outcomes known when it was issued.

    Origins may come in any order. An outcome counts in the version that became known first, once both it and the
    forecast are there; as live, it counts once, and what became known together counts by its time, then step ahead.
    """
    if not len(examples):
        return half
    by_series = [0.0] * len(examples.series_ids)
    by_step = [[0.0] * examples.steps for _ in by_series]
    known_at = np.maximum(examples.outcome_at, examples.issued_at[:, None] + 1).ravel()
    ahead = np.tile(np.arange(examples.steps), len(examples))
    coming = np.lexsort((ahead, examples.times.ravel(), known_at))
    coming = coming[~np.isnan(examples.outcome.ravel()[coming])]
    row, step = np.divmod(coming, examples.steps)
    series = examples.series[row]
    _, truth, shared = np.unique(
        np.column_stack([series, examples.times[row, step]]), axis=0, return_inverse=True, return_counts=True
    )
    weight = outcome_weight(shared[truth.ravel()])
    error = np.abs(examples.outcome[row, step] - forecast[row, step])
    adapted, seen = half.copy(), 0
    order = np.argsort(examples.issued_at, kind="stable")
    moments, starts = np.unique(examples.issued_at[order], return_index=True)
    known = np.searchsorted(known_at[coming], moments, side="right")
    for until, now in zip(known.tolist(), np.split(order, starts[1:]), strict=True):
        new = slice(seen, until)
        missed = error[new] > adapted[row[new], step[new]]
        outcomes = zip(*(each.tolist() for each in (series[new], step[new], missed, weight[new])), strict=True)
        for one, place, miss, weighs in outcomes:
            moved = follow(by_series[one], by_step[one][place], miss, weighs, coverage)
            by_series[one], by_step[one][place] = moved
        adapted[now] = half[now] * multipliers(by_series, by_step)[examples.series[now]]
        seen = until
    return adapted


def _halved(one: Errors, fold: int) -> Errors:
    origins = one.pairs.examples.origins[one.pairs.row]
    return replace(one, fold=fold + (origins > np.median(origins)))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Errors that expectations are learnt from: all, or a draw of them where there are many, put into bins once."""

    goal: Floats  # (d,) their sizes
    fold: Integers  # (d,)
    floor: float
    parameters: dict[str, Any]
    data: Any  # LightGBM's Dataset of their features; None where they are too few for trees

    @classmethod
    def of(cls, errors: Sequence[Errors], floor: float, seed: int) -> _Drawn:
        """Draw from some errors."""
        draw, share = np.random.default_rng(seed), MOST / sum(len(one.truth) for one in errors)
        chosen = [draw.random(len(one.truth)) < share for one in errors]
        goal = tamed(
            np.concatenate([np.abs(one.truth - one.forecast)[here] for one, here in zip(errors, chosen, strict=True)])
        )
        fold = np.concatenate([one.fold[here] for one, here in zip(errors, chosen, strict=True)])
        usual = float(goal.mean()) if len(goal) else 0.0
        parameters = {**SCALE, "num_threads": 1, "seed": seed + 1}
        # in the target's unit, as the curvature of the objective is: so no unit changes what is learnt
        parameters |= {"lambda_l2": SCALE["lambda_l2"] * usual, "min_sum_hessian_in_leaf": LEAST_CURVATURE * usual}
        if len(goal) < FEWEST or not usual:
            return cls(goal, fold, floor, parameters, None)
        matrix = np.vstack(
            [_features(_sub(one.pairs, here), one.forecast[here]) for one, here in zip(errors, chosen, strict=True)]
        )
        names = (*errors[0].pairs.names, "forecast", "forecast_change")
        return cls(goal, fold, floor, parameters, binned(matrix, names, goal, parameters))

    def learn(self, without: int | None) -> Spread:
        """Learn the expected error from all folds, or all but one; from very few errors it is their mean."""
        rows = np.flatnonzero(self.fold != without) if without is not None else np.arange(len(self.goal))
        usual = float(self.goal[rows].mean()) if len(rows) else 1.0
        if self.data is None or len(rows) < FEWEST or not usual:
            return Spread((), self.floor, usual)
        booster = load_lightgbm().train(self.parameters, self.data.subset(rows).construct(), SCALE_ROUNDS)
        return Spread((), self.floor, usual, Trees(booster.model_to_string()))


def _expected(learnt: Spread, pairs: Pairs, forecast: Floats) -> Floats:
    if learnt.trees is None:
        return np.full(len(forecast), max(learnt.usual, learnt.floor))
    return np.maximum(learnt.trees.predict(_features(pairs, forecast)), learnt.floor)


def _features(pairs: Pairs, forecast: Floats) -> npt.NDArray[np.float32]:
    change = forecast - pairs.pick(pairs.examples.last)
    return np.hstack([pairs.matrix, np.column_stack([forecast, change]).astype(np.float32)])


def _sub(pairs: Pairs, chosen: npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.examples, pairs.row[chosen], pairs.step[chosen])


def _quantile(ratios: Floats, every: Floats, coverage: float) -> float:
    """Return the conformal quantile of a step's ratios, or of all steps' where it has too few of its own."""
    ratios = np.sort(ratios if len(ratios) >= FEWEST else every)
    place = min(len(ratios) - 1, int(np.ceil((len(ratios) + 1) * coverage)) - 1)
    return float(ratios[place])
