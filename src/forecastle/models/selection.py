"""Which candidates serve, and with what weight: decided on rolling origins inside the training part.

A fold trains on what was known up to its cut and forecasts origins after it, so every error here is out of sample, with
a gap of at least the step ahead between what was learnt and what is forecast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats, Integers
from forecastle.models.estimators import NAIVE, candidates, fit_all, predict
from forecastle.models.intervals import Errors
from forecastle.models.learning import Fitted, Options, Pairs, at_once, labelled, spread_out, tamed, thinned

FOLDS = ((0.6, 0.8), (0.8, 1.0))  # train until, validate until: shares of the training span
VALIDATION_PAIRS = 30_000  # (origin, step) pairs a fold, all series, evenly thinned
FOLD_PAIRS = 60_000  # pairs boosters learn from inside a fold: a quarter of all there are, between this
FOLD_SHARE = 0.4  # and this share of what they may see in the end
LEAST_WEIGHT = 0.1  # a member that counts for less is left out
SHRINKAGE = 0.02  # of the errors' covariance, towards equal weights
DAY = 86_400_000_000  # microseconds
BLOCK_LAGS = 3  # days over which losses may be correlated


@dataclass(frozen=True)
class Choice:
    """What serves: members and weights (persistence alone where nothing earned more), and how that was found."""

    weights: dict[str, float]
    gain: float  # mean squared error saved against persistence
    gain_error: float  # its standard error
    errors: tuple[Errors, ...]  # out-of-sample errors of what serves
    rmse: dict[str, float]  # of every candidate, on the validated pairs

    @property
    def estimator(self) -> str:
        """The name of what serves: ``persistence``, a single candidate's, or ``blend``."""
        return "blend" if len(self.weights) > 1 else next(iter(self.weights))


def choose(examples: Examples, until: int, options: Options) -> Choice:
    """Validate every candidate on rolling origins up to ``until`` and decide what serves.

    The blend's weights are those of least squared error, none negative, summing to one. Persistence serves unless the
    blend saves more squared error than one standard error of the saving, and where there is too little to validate on.
    What it saves, and how wide its intervals are, is judged on each fold by the weights of the other: the weights that
    serve have seen them all.
    """
    validated = at_once(lambda share: validate(examples, until, share, options), FOLDS)
    folds = [fold for fold in validated if fold is not None]
    if not folds:
        return _persistence(examples, until)
    truth = np.concatenate([pairs.pick(examples.truth) for pairs, _ in folds])
    made = {name: np.concatenate([forecasts[name] for _, forecasts in folds]) for name in folds[0][1]}
    learners = [name for name in made if name not in NAIVE]
    rmse = {name: float(np.sqrt(np.mean((values - truth) ** 2))) for name, values in made.items()}
    own = np.column_stack([tamed(made[name] - truth) for name in learners])
    part = np.repeat(np.arange(len(folds)), [len(pairs.row) for pairs, _ in folds])
    blend = np.empty(len(truth))
    for number in range(len(folds)):
        here, others = part == number, part != number
        found = _weights(learners, own[others] if others.any() else own)
        blend[here] = sum(weight * made[name][here] for name, weight in found.items())
    rmse["blend"] = float(np.sqrt(np.mean((blend - truth) ** 2)))
    rows = np.concatenate([pairs.row for pairs, _ in folds])
    saved = tamed(made["persistence"] - truth) ** 2 - tamed(blend - truth) ** 2
    gain, error = mean_and_error(examples, rows, saved)
    serving, served = {"persistence": 1.0}, made["persistence"]
    if gain > error:
        serving, served = _weights(learners, own), blend
    errors = tuple(
        Errors(pairs, served[part == number], pairs.pick(examples.truth), np.full(len(pairs.row), number))
        for number, (pairs, _) in enumerate(folds)
    )
    return Choice(serving, gain, error, errors, rmse)


def _weights(learners: list[str], errors: Floats) -> dict[str, float]:
    """Return the weights of those that count for something, by the errors (m, M) of all."""
    weights = zip(learners, blend_weights(errors).tolist(), strict=True)
    kept = {name: weight for name, weight in weights if weight >= LEAST_WEIGHT}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}


def blend_weights(errors: Floats) -> Floats:
    """Return the weights, none negative and summing to one, that minimise the blend's mean squared error.

    ``errors`` is (m, M). The covariance is shrunk a little towards a multiple of the identity, which pulls the weights
    towards equal ones. Exact over all subsets of the few members.
    """
    count = errors.shape[1]
    covariance = errors.T @ errors / len(errors)
    covariance += SHRINKAGE * np.trace(covariance) / count * np.eye(count)
    best, least = np.full(count, 1 / count), np.inf
    for size in range(1, count + 1):
        for members in combinations(range(count), size):
            part = covariance[np.ix_(members, members)]
            solved = np.linalg.lstsq(part, np.ones(size), rcond=None)[0]
            weights = solved / solved.sum() if solved.sum() > 0 else np.full(size, -1.0)
            if (weights >= 0).all() and weights @ part @ weights < least:
                least = float(weights @ part @ weights)
                best = np.zeros(count)
                best[list(members)] = weights
    return best


def mean_and_error(examples: Examples, rows: Integers, values: Floats) -> tuple[float, float]:
    """Return the mean of values at origin rows and its standard error, robust to correlation in time.

    Values of all series within one season, at least a day, are one block; blocks may be correlated over BLOCK_LAGS
    (Newey and West's Bartlett weights). Of a single block the error is not known: infinite.
    """
    recipe = examples.recipe
    length = max(recipe.season * recipe.step, DAY)
    _, block = np.unique(examples.origins[rows] // length, return_inverse=True)
    total, count = np.bincount(block, values), np.bincount(block)
    mean = total.sum() / count.sum()
    if len(total) == 1:
        return float(mean), float("inf")
    deviation = total - mean * count
    variance = deviation @ deviation
    for lag in range(1, min(BLOCK_LAGS, len(deviation) - 1) + 1):
        variance += 2 * (1 - lag / (BLOCK_LAGS + 1)) * (deviation[lag:] @ deviation[:-lag])
    return float(mean), float(np.sqrt(max(variance, 0.0)) / count.sum())


def _persistence(examples: Examples, until: int) -> Choice:
    """Choose persistence without validation: it learns nothing, so that all its errors are out of sample."""
    pairs = thinned(labelled(examples, until), examples, VALIDATION_PAIRS)
    forecast = pairs.pick(predict(Fitted("persistence"), examples))
    errors = Errors(pairs, forecast, pairs.pick(examples.truth), np.zeros(len(pairs.row), dtype=np.int64))
    return Choice({"persistence": 1.0}, 0.0, 0.0, (errors,), {})


def validate(
    examples: Examples, until: int, share: tuple[float, float], options: Options, names: Iterable[str] | None = None
) -> tuple[Pairs, dict[str, Floats]] | None:
    """Fit every candidate (or those named) up to a fold's cut and forecast the pairs after it; None where none are.

    Nothing is learnt from a truth that was not known yet when the first of them was forecast.
    """
    start = int(examples.origins.min())
    cut, stop = (start + int((until - start) * part) for part in share)
    known = labelled(examples, stop) & (examples.origins >= cut)[:, None]
    if not known.any():
        return None
    asked = np.lexsort((examples.series, examples.origins))  # in time order: what bagging draws hangs on the order
    asked = asked[known[asked].any(axis=1)]
    asked = asked[spread_out(examples.origins[asked], VALIDATION_PAIRS // examples.steps)]
    step, place = np.nonzero(known[asked].T)
    pairs = Pairs(examples, asked[place], step + 1)
    most = max(FOLD_PAIRS, int(FOLD_SHARE * options.pairs(examples.steps)))
    rows = min(max(FOLD_PAIRS, int(labelled(examples, until).sum()) // 4), most, options.rows)
    within = replace(options, rows=rows)
    few = examples.take(asked)
    past = examples.known_by(int(few.issued_at.min()))
    if not labelled(past, cut).any():
        return None
    local = Pairs(few, place, pairs.step)
    fitted = fit_all(names or candidates(examples.recipe), past, cut, within)
    return pairs, {name: local.pick(predict(one, few)) for name, one in fitted.items()}
