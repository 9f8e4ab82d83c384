"""HAR-RV, the baseline of volatility's own literature: tomorrow is explained by the last value, day, week and month.

F. Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility", Journal of Financial Econometrics 7 (2009),
pages 174 to 196, equation 9 (RV is a volatility, and the sum runs over how far back a trader looks):

    RV[t + h] = c + b_last · RV[t] + b_day · mean RV of a day + b_week · that of a week + b_month · that of a month

fitted by least squares for each step ahead h (a direct forecast). On daily bars the last value is the day itself, and
this is his model to the letter; on finer bars the step is one more, shorter, look back. On logarithms the same equation
holds for log RV, and its forecast is exp(· + s²/2) with s² the variance of the residuals, the mean of a lognormal. No
forecast leaves the range seen in training (T. Bollerslev, A. Patton and R. Quaedvlieg, Journal of Econometrics 192
(2016), page 10, replace such forecasts too).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats
from forecastle.data.recipe import Recipe
from forecastle.models.learning import MANY_STEPS, Fitted, Lesson, labelled

NAMES = ("har", "har_log")
FLOOR = 0.01  # of the middle positive value: what a logarithm takes a smaller one for
SHRINKAGE = 1e-6  # of the mean variance: two means of the same steps may be one column twice


def applies(recipe: Recipe) -> bool:
    """Tell whether a task's recipe has the means over a day, a week and a month: its target may be a volatility."""
    return bool(recipe.cascade)


def learn_har(name: str) -> Callable[[Lesson], Fitted]:
    """Return the fit of ``har``, on levels, or of ``har_log``, on logarithms."""

    def learn(lesson: Lesson) -> Fitted:
        examples, most = lesson.examples, lesson.options.ridge_rows
        known = labelled(examples, lesson.until)
        most = min(most, MANY_STEPS * most // examples.steps)
        seen = examples.truth[known]
        positive = seen[seen > 0]
        floor = FLOOR * float(np.median(positive)) if name == "har_log" and len(positive) else None
        looks = _looks(examples, floor)
        steps = []
        for step in range(1, examples.steps + 1):
            rows = np.flatnonzero(known[:, step - 1])
            rows = rows[np.arange(most) * len(rows) // most] if len(rows) > most else rows
            steps.append(_least_squares(looks[rows], _scaled(examples.truth[rows, step - 1], floor)))
        limits = [float(seen.min()), float(seen.max())] if len(seen) else [0.0, 0.0]
        return Fitted(name, {"floor": floor, "limits": limits, "steps": steps})

    return learn


def predict_har(fitted: Fitted, examples: Examples) -> Floats:
    """Forecast by HAR, (n, H); a mean that is missing counts as it usually is."""
    answer = np.empty((len(examples), examples.steps))
    for step in range(1, examples.steps + 1):
        base, terms = _terms(fitted, examples, step)
        for term in terms.values():  # in a fixed order, so that one row alone has the bits it has among many
            base = base + term
        answer[:, step - 1] = _levels(fitted, base, step)
    low, high = fitted.numbers["limits"]
    within: Floats = np.clip(answer, low, high)
    return within


def har_terms(fitted: Fitted, examples: Examples, step: int) -> tuple[Floats, dict[str, Floats]]:
    """Return the usual forecast so many steps ahead (n,), and what each look back adds to it, (n,) each.

    What a logarithm, or the range seen in training, makes of their sum is shared out in proportion.
    """
    base, terms = _terms(fitted, examples, step)
    usual, whole = _levels(fitted, base, step), np.sum(list(terms.values()), axis=0)
    added = predict_har(fitted, examples)[:, step - 1] - usual
    share = np.divide(added, whole, out=np.zeros(len(examples)), where=whole != 0)
    return usual, {name: term * share for name, term in terms.items()}


def _terms(fitted: Fitted, examples: Examples, step: int) -> tuple[Floats, dict[str, Floats]]:
    learnt, looks = fitted.numbers["steps"][step - 1], _looks(examples, fitted.numbers["floor"])
    names = ("last", *(f"cascade_{width}" for width in examples.recipe.cascade))
    columns = zip(names, looks.T, learnt["mean"], learnt["weights"], strict=True)
    terms = {name: weight * (np.where(np.isnan(look), usual, look) - usual) for name, look, usual, weight in columns}
    return np.full(len(examples), learnt["intercept"]), terms


def _levels(fitted: Fitted, sums: Floats, step: int) -> Floats:
    """Return forecasts in the target's unit from what the equation says."""
    if fitted.numbers["floor"] is None:
        return sums
    found: Floats = np.exp(sums + fitted.numbers["steps"][step - 1]["variance"] / 2)
    return found


def _looks(examples: Examples, floor: float | None) -> Floats:
    """Return the last value and the means over a day, a week and a month, as far as there are any: (n, K)."""
    places = [examples.origin_names.index(f"cascade_{width}") for width in examples.recipe.cascade]
    return _scaled(np.column_stack([examples.last, examples.origin[:, places]]).astype(np.float64), floor)


def _scaled(values: Floats, floor: float | None) -> Floats:
    return values if floor is None else np.log(np.maximum(values, floor))


def _least_squares(looks: Floats, goal: Floats) -> dict[str, object]:
    """Return what least squares finds; where there is nothing to learn from, a forecast of zero."""
    count = looks.shape[1]
    if not len(goal):
        return {"mean": [0.0] * count, "weights": [0.0] * count, "intercept": 0.0, "variance": 0.0}
    present = ~np.isnan(looks)
    mean = np.where(present, looks, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    centred, intercept = np.where(present, looks - mean, 0.0), float(goal.mean())
    covariance = centred.T @ centred / len(goal)
    covariance += (SHRINKAGE * np.trace(covariance) / count + 1e-300) * np.eye(count)
    weights = np.linalg.solve(covariance, centred.T @ (goal - intercept) / len(goal))
    variance = float(np.mean((goal - intercept - centred @ weights) ** 2))
    return {"mean": mean.tolist(), "weights": weights.tolist(), "intercept": intercept, "variance": variance}
