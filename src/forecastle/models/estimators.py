"""The candidates: each learns from examples and forecasts every step ahead of every origin.

An estimator is a pair of functions, ``fit(examples, until, options) -> Fitted`` and ``predict(fitted, examples)``, and
one line in ``ESTIMATORS``. What was learnt is plain: numbers (JSON) and, for boosted trees, LightGBM's own text;
loading it runs nothing that was stored.

Boosted trees are one booster over all series and steps ahead (the step is a feature); the target is the level, its
change since the last value, or its change since the season before. All fits are deterministic for given examples.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.examples import Examples
from forecastle.data.panel import Booleans, Floats, Integers
from forecastle.data.transformation import CALENDAR, Matrix
from forecastle.models.trees import THREADS, Trees
from forecastle.settings import apply_library_defaults

LOG = logging.getLogger("forecastle.training")

DAY_MINUTES = 1440
DAY_HOURS = 24
MANY = 200_000  # pairs learnt from
ENOUGH = 100_000  # pairs from which a second thread is worth its waiting
TAME = 30.0  # spreads of the middle 95 %
RIDGE_PENALTY = 10.0
RIDGE_CLIP = 8.0  # standard deviations
MANY_STEPS = 6  # steps ahead up to which each may see all its rows
AT_ONCE = 256  # rows whose ridge sums run side by side
FEWEST_PAIRS = 120_000  # that boosters see of more steps, where there are so many


@dataclass(frozen=True)
class Options:
    """How much an estimator may learn from, and how long: the defaults are the same for every task."""

    rows: int = 300_000  # (origin, step) pairs boosters see at most, evenly thinned
    ridge_rows: int = 60_000  # origins a step ahead ridge sees at most, fewer where there are many steps
    rounds: int = 300
    seed: int = 0
    threads: int = THREADS

    def pairs(self, steps: int) -> int:
        """Return how many pairs boosters see of so many steps ahead.

        Steps of one origin lie the closer together the more there are, and tell the less that is new.
        """
        return self.rows if steps <= MANY_STEPS else min(self.rows, max(FEWEST_PAIRS, self.rows * MANY_STEPS // steps))


@dataclass(frozen=True)
class Fitted:
    """What an estimator learnt: its name, numbers that survive JSON, and trees where it has any."""

    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    trees: Trees | None = None

    @cached_property
    def by_step(self) -> tuple[tuple[Floats, Floats, Floats], ...]:
        """Mean, deviation and weights of what was learnt for each step ahead, as arrays."""
        names = ("mean", "deviation", "weights")
        return tuple(
            (np.array(one[names[0]]), np.array(one[names[1]]), np.array(one[names[2]])) for one in self.numbers["steps"]
        )


BOOSTING: dict[str, Any] = {
    "objective": "l2",
    "learning_rate": 0.06,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True)
class Pairs:
    """(origin, step ahead) pairs of some examples: the rows a booster sees."""

    examples: Examples
    row: Integers  # (m,)
    step: Integers  # (m,) 1…H

    @property
    def matrix(self) -> Matrix:
        """The features of each pair, the step ahead last: (m, F + G + 1)."""
        width = len(self.examples.origin_names)
        found = np.empty((len(self.row), len(self.names)), dtype=np.float32)
        found[:, :width] = self.examples.origin[self.row]
        found[:, width:-1] = self.examples.step[self.step - 1, self.row]
        found[:, -1] = self.step
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return (*self.examples.names, "step_ahead")

    def pick(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return of values (n, H), or (n,), the one that belongs to each pair."""
        return values[self.row] if values.ndim == 1 else values[self.row, self.step - 1]

    def spread(self, values: Floats) -> Floats:
        """Return values of all pairs of all examples (m = n · H, by step then row) as a matrix (n, H)."""
        return values.reshape(self.examples.steps, len(self.examples)).T


def all_pairs(examples: Examples) -> Pairs:
    """Return every pair, step by step."""
    size, steps = len(examples), examples.steps
    return Pairs(examples, np.tile(np.arange(size), steps), np.repeat(np.arange(1, steps + 1), size))


def labelled(examples: Examples, until: int) -> Booleans:
    """Return which pairs (n, H) have a truth not after ``until`` (microseconds) and a last value to start from."""
    return (examples.times <= until) & ~np.isnan(examples.truth) & ~np.isnan(examples.last)[:, None]


def thinned(chosen: Booleans, examples: Examples, most: int) -> Pairs:
    """Return the chosen pairs (n, H), evenly thinned over time to at most ``most``, each step with its own phase."""
    order = np.lexsort((examples.series, examples.origins))
    rows, steps, share = [], [], most // examples.steps
    for step in range(1, examples.steps + 1):
        here = order[chosen[order, step - 1]]
        if len(here) > share:
            phase = (step - 1) / examples.steps
            here = here[((np.arange(share) + phase) * len(here) / share).astype(np.int64)]
        rows.append(here)
        steps.append(np.full(len(here), step))
    return Pairs(examples, np.concatenate(rows), np.concatenate(steps))


def load_lightgbm() -> Any:
    """Import LightGBM, its threads told first not to spin while they wait."""
    apply_library_defaults()
    import lightgbm

    return lightgbm


def spread_out(origins: Integers, most: int) -> Booleans:
    """Tell which of some origins make an even share of their moments, of about ``most`` origins, all series alike.

    The stride shares no factor with 24 or 7, so that every hour and weekday is met.
    """
    stride = max(1, -(-len(origins) // max(most, 1)))
    while stride > 1 and any(stride % prime == 0 for prime in (2, 3, 7)):
        stride += 1
    chosen: Booleans = np.isin(origins, np.unique(origins)[::stride])
    return chosen


def tamed(values: Floats) -> Floats:
    """Return values with those a sensor's fault alone can explain moved to the edge of what may be.

    The edge lies thirty times the spread of the middle 95 % away from it: no weather and no market goes there, and a
    single fault beyond it would outweigh all else in a squared error. Where the middle has no spread, nothing is moved.
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return values
    low, high = np.quantile(present, (0.025, 0.975))
    room = TAME * (high - low)
    found: Floats = np.clip(values, low - room, high + room) if room > 0 else values
    return found


def fit_naive(name: str) -> Callable[[Examples, int, Options], Fitted]:
    """Return the fit of a naive method: there is nothing to learn."""
    return lambda examples, until, options: Fitted(name)


def predict_persistence(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast the last value known, (n, H)."""
    return np.repeat(examples.last[:, None], examples.steps, axis=1)


def predict_seasonal(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast the value of the season before, (n, H)."""
    return examples.seasonal


def fit_boosted(offset: str) -> Callable[[Examples, int, Options], Fitted]:
    """Return the fit of boosted trees on the target minus an offset: ``level``, ``change`` or ``seasonal``."""

    def fit(examples: Examples, until: int, options: Options) -> Fitted:
        pairs = thinned(labelled(examples, until), examples, options.pairs(examples.steps))
        parameters = _parameters(options, len(pairs.row))
        data = load_lightgbm().Dataset(
            pairs.matrix,
            tamed(pairs.pick(examples.truth) - pairs.pick(offset_of(offset, examples))),
            feature_name=tree_names(pairs.names),
            categorical_feature=[pairs.names.index("series")],
            params=parameters,
        )
        booster = load_lightgbm().train(parameters, data, options.rounds)
        return Fitted(f"lightgbm_{offset}", {"offset": offset}, Trees(booster.model_to_string()))

    return fit


def predict_boosted(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast by boosted trees, (n, H)."""
    pairs = all_pairs(examples)
    answer = _trees(fitted).predict(pairs.matrix)
    return pairs.spread(answer) + offset_of(fitted.numbers["offset"], examples)


def fit_ridge(examples: Examples, until: int, options: Options) -> Fitted:
    """Fit a ridge regression for each step ahead on the change since the last value.

    Columns are standardised and clipped, a missing one counts as its mean; the hour of the day (apart on weekends) and
    the series come in as indicators.
    """
    apply_library_defaults()
    from sklearn.linear_model import Ridge
    from threadpoolctl import threadpool_limits

    known = labelled(examples, until)
    most = min(options.ridge_rows, MANY_STEPS * options.ridge_rows // examples.steps)
    steps = []
    for step in range(1, examples.steps + 1):
        rows = np.flatnonzero(known[:, step - 1])
        if len(rows) > most:
            rows = rows[np.arange(most) * len(rows) // most]
        here = examples.take(rows)
        raw = _continuous(here, step)
        mean, deviation = _moments(raw)
        goal = tamed(here.truth[:, step - 1] - here.last)
        design = _design(here, step, raw, mean, deviation)
        weights, intercept = np.zeros(design.shape[1]), 0.0  # a step without any truth forecasts no change
        if len(rows):
            with threadpool_limits(1, "blas"):  # threads that spin for each other take ten times as long
                fitted = Ridge(alpha=RIDGE_PENALTY + 1e-3 * len(rows)).fit(design, goal)
            weights, intercept = fitted.coef_, float(fitted.intercept_)
        learnt = {"mean": mean, "deviation": deviation, "weights": weights}
        steps.append({name: values.tolist() for name, values in learnt.items()} | {"intercept": intercept})
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

    fit: Callable[[Examples, int, Options], Fitted]
    predict: Callable[[Fitted, Examples], Floats]


ESTIMATORS: dict[str, Estimator] = {
    "persistence": Estimator(fit_naive("persistence"), predict_persistence),
    "seasonal_naive": Estimator(fit_naive("seasonal_naive"), predict_seasonal),
    "ridge": Estimator(fit_ridge, predict_ridge),
    "lightgbm_level": Estimator(fit_boosted("level"), predict_boosted),
    "lightgbm_change": Estimator(fit_boosted("change"), predict_boosted),
    "lightgbm_seasonal": Estimator(fit_boosted("seasonal"), predict_boosted),
}


def fit(name: str, examples: Examples, until: int, options: Options) -> Fitted:
    """Fit the estimator of that name, and log that it is at it."""
    LOG.info("fitting %s on %s origins", name, f"{len(examples):,}")
    return ESTIMATORS[name].fit(examples, until, options)


def fit_all(names: Iterable[str], examples: Examples, until: int, options: Options) -> dict[str, Fitted]:
    """Fit several estimators, two at a time, each by one thread: that is sooner done than one after the other by two.

    What is learnt does not depend on it: every fit has data of its own and is deterministic.
    """
    alone = replace(options, threads=1)
    load_lightgbm()  # once, before threads that would both import it
    with ThreadPoolExecutor(THREADS) as pool:
        fits = {name: pool.submit(fit, name, examples, until, alone) for name in names}
        return {name: one.result() for name, one in fits.items()}


NAIVE = ("persistence", "seasonal_naive")
LEARNERS = tuple(name for name in ESTIMATORS if name not in NAIVE)


def predict(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast every step ahead of every origin with what an estimator learnt, (n, H)."""
    return ESTIMATORS[fitted.name].predict(fitted, examples)


def fit_threads(rows: int, most: int = THREADS) -> int:
    """Return how many threads learn from so many rows; little work is done sooner by one than by two that wait."""
    return most if rows >= ENOUGH else 1


def tree_names(names: Sequence[str]) -> list[str]:
    """Return names that LightGBM's text can hold, each once: a column of the user's may be called anything."""
    plain = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in names]
    return [name if plain.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(plain)]


def _parameters(options: Options, rows: int) -> dict[str, Any]:
    """Return LightGBM's parameters; where there is much to learn from, trees are larger."""
    leaves = 63 if rows >= MANY else 31
    return {
        **BOOSTING,
        "num_leaves": leaves,
        "num_threads": fit_threads(rows, options.threads),
        "seed": options.seed + 1,
    }


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
