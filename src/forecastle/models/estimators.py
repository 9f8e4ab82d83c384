"""The candidates: each learns from examples and forecasts every step ahead of every origin.

An estimator is a pair of functions, ``learn(lesson) -> Fitted`` and ``predict(fitted, examples)``, and one line in
``ESTIMATORS``. What was learnt is plain: numbers (JSON) and, for boosted trees, LightGBM's own text; loading it runs
nothing that was stored.

Boosted trees are one booster over all series and steps ahead (the step is a feature); the target is the level, its
change since the last value, or its change since the season before. All fits are deterministic for given examples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.examples import Examples
from forecastle.data.panel import Booleans, Floats
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import CALENDAR
from forecastle.models import har
from forecastle.models.learning import (  # noqa: F401  # where others look for them
    BOOSTING,
    MANY_STEPS,
    Fitted,
    Lesson,
    Options,
    Pairs,
    all_pairs,
    at_once,
    labelled,
    load_lightgbm,
    one_thread_each,
    tamed,
)
from forecastle.models.trees import Trees

LOG = logging.getLogger("forecastle.training")
FITTING = "fitting %s on %s origins"  # is logged where a fit begins

DAY_MINUTES = 1440
DAY_HOURS = 24
RIDGE_PENALTY = 10.0
RIDGE_CLIP = 8.0  # standard deviations
_ONE_RIDGE = Lock()  # at a time: with a thousand series its design has as many columns
AT_ONCE = 256  # rows whose ridge sums run side by side


def learn_naive(name: str) -> Callable[[Lesson], Fitted]:
    """Return the fit of a naive method: there is nothing to learn."""
    return lambda lesson: Fitted(name)


def predict_persistence(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast the last value known, (n, H)."""
    return np.repeat(examples.last[:, None], examples.steps, axis=1)


def predict_seasonal(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast the value of the season before, (n, H)."""
    return examples.seasonal


def learn_boosted(offset: str) -> Callable[[Lesson], Fitted]:
    """Return the fit of boosted trees on the target minus an offset: ``level``, ``change`` or ``seasonal``."""

    def learn(lesson: Lesson) -> Fitted:
        pairs = lesson.pairs
        goal = tamed(pairs.pick(lesson.examples.truth) - pairs.pick(offset_of(offset, lesson.examples)))
        booster = load_lightgbm().train(lesson.parameters, lesson.labelled_with(goal))
        grown = {name: value for name, value in lesson.parameters.items() if name != "num_threads"}
        return Fitted(f"lightgbm_{offset}", {"offset": offset, "parameters": grown}, Trees(booster.model_to_string()))

    return learn


def predict_boosted(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast by boosted trees, (n, H)."""
    pairs = all_pairs(examples)
    answer = _trees(fitted).predict(pairs.matrix)
    return pairs.spread(answer) + offset_of(fitted.numbers["offset"], examples)


def learn_ridge(lesson: Lesson) -> Fitted:
    """Fit a ridge regression for each step ahead on the change since the last value.

    Columns are standardised and clipped, a missing one counts as its mean; the hour of the day (apart on weekends) and
    the series come in as indicators.
    """
    examples, most = lesson.examples, lesson.options.ridge_rows
    known = labelled(examples, lesson.until)
    most = min(most, MANY_STEPS * most // examples.steps)
    with _ONE_RIDGE, one_thread_each():  # threads that spin for each other take ten times as long
        steps = [_ridge(examples, known, step, most) for step in range(1, examples.steps + 1)]
    return Fitted("ridge", {"steps": steps})


def predict_ridge(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast by ridge regression, (n, H)."""
    answer = np.empty((len(examples), examples.steps))
    for step, (mean, deviation, weights) in enumerate(fitted.by_step, start=1):
        design = _design(examples, step, _continuous(examples, step), mean, deviation)
        # a sum in fixed order, so that one row alone has the bits it has among many (a matrix product would not)
        change = np.full(len(examples), fitted.numbers["steps"][step - 1]["intercept"])
        if len(examples) <= AT_ONCE:
            change = np.add.accumulate(np.column_stack([change, design * weights]), axis=1)[:, -1]
        else:
            for column, weight in enumerate(weights.tolist()):
                change += design[:, column] * weight
        answer[:, step - 1] = change + examples.last
    return answer


def ridge_terms(fitted: Fitted, examples: Examples, step: int) -> dict[str, Floats]:
    """Return what each feature adds to a ridge forecast so many steps ahead, (n,) each; the hour of the day, apart on
    weekends, counts as one, and so does the series."""
    learnt = fitted.numbers["steps"][step - 1]
    mean, deviation = np.array(learnt["mean"]), np.array(learnt["deviation"])
    terms = _design(examples, step, _continuous(examples, step), mean, deviation) * np.array(learnt["weights"])
    kept = [name for name in examples.names if name not in CALENDAR]
    hours = len(kept) + 2 * DAY_HOURS
    grouped = {"hour": terms[:, len(kept) : hours].sum(axis=1), "series": terms[:, hours:].sum(axis=1)}
    return {name: terms[:, place] for place, name in enumerate(kept)} | grouped


@dataclass(frozen=True)
class Estimator:
    """A candidate: how it learns, and how it forecasts."""

    learn: Callable[[Lesson], Fitted]
    predict: Callable[[Fitted, Examples], Floats]
    applies: Callable[[Recipe], bool] = lambda recipe: True

    def fit(self, examples: Examples, until: int, options: Options) -> Fitted:
        """Learn from the examples whose truth is not after ``until`` (microseconds)."""
        return self.learn(Lesson(examples, until, options))


ESTIMATORS: dict[str, Estimator] = {
    "persistence": Estimator(learn_naive("persistence"), predict_persistence),
    "seasonal_naive": Estimator(learn_naive("seasonal_naive"), predict_seasonal),
    "ridge": Estimator(learn_ridge, predict_ridge),
    "lightgbm_level": Estimator(learn_boosted("level"), predict_boosted),
    "lightgbm_change": Estimator(learn_boosted("change"), predict_boosted),
    "lightgbm_seasonal": Estimator(learn_boosted("seasonal"), predict_boosted),
    "har": Estimator(har.learn_har("har"), har.predict_har, har.applies),
    "har_log": Estimator(har.learn_har("har_log"), har.predict_har, har.applies),
}


def candidates(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the estimators that compete for a task."""
    return tuple(name for name, one in ESTIMATORS.items() if one.applies(recipe))


def fit_all(names: Iterable[str], examples: Examples, until: int, options: Options) -> dict[str, Fitted]:
    """Fit several estimators, two at a time, each by one thread: that is sooner done than one after the other by two.

    What is learnt does not depend on it: every fit has labels of its own and is deterministic.
    """
    chosen, boosted = list(names), [name for name in names if name in BOOSTED]
    one_each = replace(options, threads=1) if len(chosen) > 1 else options
    lesson = Lesson(examples, until, one_each, shared=len(boosted) > 1)
    load_lightgbm()  # once, before threads that would both import it
    if boosted:  # likewise
        LOG.info("binned %s pairs", f"{lesson.binned.num_data():,}")

    def learn(name: str) -> Fitted:
        LOG.info(FITTING, name, f"{len(examples):,}")
        return ESTIMATORS[name].learn(lesson)

    return dict(zip(chosen, at_once(learn, chosen), strict=True))


@contextmanager
def heard(told: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Hand over what training logs, such as which candidate it fits (FITTING), while the block runs."""
    handler, level = logging.Handler(logging.INFO), LOG.level
    handler.emit = told  # type: ignore[method-assign, assignment]
    LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


NAIVE = ("persistence", "seasonal_naive")
LEARNERS = tuple(name for name in ESTIMATORS if name not in NAIVE)
BOOSTED = tuple(name for name in ESTIMATORS if name.startswith("lightgbm_"))


def predict(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast every step ahead of every origin with what an estimator learnt, (n, H)."""
    return ESTIMATORS[fitted.name].predict(fitted, examples)


def offset_of(kind: str, examples: Examples) -> Floats:
    """Return what boosted trees of a kind (level, change, seasonal) are added to, (n, H)."""
    if kind == "level":
        return np.zeros((len(examples), examples.steps))
    if kind == "change":
        return predict_persistence(Fitted("persistence"), examples)
    return examples.seasonal


def _trees(fitted: Fitted) -> Trees:
    if fitted.trees is None:
        raise ValueError(f"{fitted.name} has no trees")
    return fitted.trees


def _continuous(examples: Examples, step: int) -> npt.NDArray[np.float64]:
    """Return the features that are not calendar or identity, (n, K)."""
    kept = [place for place, name in enumerate(examples.names) if name not in CALENDAR]
    return examples.at(step)[:, kept].astype(np.float64)


def _ridge(examples: Examples, known: Booleans, step: int, most: int) -> dict[str, Any]:
    """Fit the ridge regression of one step ahead on at most so many origins; without any it forecasts no change."""
    from sklearn.linear_model import Ridge

    rows = np.flatnonzero(known[:, step - 1])
    if len(rows) > most:
        rows = rows[np.arange(most) * len(rows) // most]
    here = examples.take(rows)
    raw = _continuous(here, step)
    mean, deviation = _moments(raw)
    design = _design(here, step, raw, mean, deviation)
    weights, intercept = np.zeros(design.shape[1]), 0.0
    if len(rows):
        goal = tamed(here.truth[:, step - 1] - here.last)
        fitted = Ridge(alpha=RIDGE_PENALTY + 1e-3 * len(rows)).fit(design, goal)
        weights, intercept = fitted.coef_, float(fitted.intercept_)
    learnt = {"mean": mean, "deviation": deviation, "weights": weights}
    return {name: values.tolist() for name, values in learnt.items()} | {"intercept": intercept}


def _moments(raw: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each column over the values present; 0 and 1 where they say nothing."""
    raw = np.column_stack([tamed(column) for column in raw.T]) if len(raw) else raw
    present = ~np.isnan(raw)
    count = np.maximum(present.sum(axis=0), 1)
    mean: Floats = np.where(present, raw, 0.0).sum(axis=0) / count
    deviation: Floats = np.sqrt((np.where(present, raw - mean, 0.0) ** 2).sum(axis=0) / count)
    deviation[deviation <= 1e-12] = 1.0
    return mean, deviation


def _design(
    examples: Examples, step: int, raw: npt.NDArray[np.float64], mean: Floats, deviation: Floats
) -> npt.NDArray[np.float64]:
    """Return standardised features beside indicators of hour × weekend and series."""
    at_step = examples.step[step - 1]
    minute = at_step[:, examples.step_names.index("minute")].astype(np.int64)
    weekend = at_step[:, examples.step_names.index("weekday")] >= 5
    series = examples.origin[:, examples.origin_names.index("series")]
    hours, kinds = DAY_HOURS, len(examples.recipe.series_ids)
    indicators = np.zeros((len(examples), 2 * hours + kinds))
    row = np.arange(len(examples))
    indicators[row, minute * hours // DAY_MINUTES + hours * weekend] = 1
    seen = ~np.isnan(series)
    indicators[row[seen], 2 * hours + series[seen].astype(np.int64)] = 1
    standard = np.clip(np.nan_to_num((raw - mean) / deviation), -RIDGE_CLIP, RIDGE_CLIP)
    return np.hstack([standard, indicators])
