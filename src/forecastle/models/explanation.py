"""Which features moved a forecast, exactly: what every member of a model adds up, feature by feature.

Boosted trees are taken apart by LightGBM's own exact contributions (Lundberg et al. 2020, Nature Machine Intelligence
2, 56-67), ridge by its terms. What is left when no feature says anything is where the forecast starts from: the last
value, the season before, or the average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from forecastle.data.examples import Examples
from forecastle.data.panel import Floats, moment
from forecastle.models import har
from forecastle.models.estimators import offset_of, ridge_terms
from forecastle.models.learning import Fitted, Pairs
from forecastle.models.model import Model, apply

AVERAGE, LAST, SEASON, STAND_IN = "average", "last value", "season before", "stand-in"
STEP_AHEAD = "step_ahead"
STARTS = {"level": AVERAGE, "change": LAST, "seasonal": SEASON}


@dataclass(frozen=True)
class Explanation:
    """A forecast as a sum, in the target's unit: where it starts from, and what each feature adds."""

    series_id: str
    origin: datetime
    timestamp: datetime
    horizon: int
    value: float
    start: dict[str, float]
    features: dict[str, float]  # largest first; features that add nothing are left out
    inputs: dict[str, float]  # what those features were, NaN where they were missing

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: start and features as lists of names and what they add, in order."""
        told = {name: getattr(self, name) for name in ("series_id", "origin", "timestamp", "horizon", "value")}
        return told | {
            "start": [{"name": name, "adds": part} for name, part in self.start.items()],
            "features": [
                {"name": name, "value": self.inputs.get(name), "adds": part} for name, part in self.features.items()
            ],
        }


def explain(model: Model, examples: Examples, horizon: int) -> tuple[Explanation, ...]:
    """Return for each origin why its forecast so many steps ahead (1…H) is what it is.

    Start and features sum to the forecast. Where a member could not say, the whole is a stand-in (see
    ``model.combine``).
    """
    value = apply(model, examples).value[:, horizon - 1]
    starts = [Counter[str]() for _ in range(len(examples))]
    parts = [Counter[str]() for _ in range(len(examples))]
    for member, weight in zip(model.members, model.weights, strict=True):
        for name, numbers in _start(member, examples, horizon).items():
            _add(starts, name, weight * numbers)
        for name, numbers in _features(member, examples, horizon).items():
            _add(parts, name, weight * numbers)
    names = (*examples.names, STEP_AHEAD)
    table = np.hstack([examples.at(horizon).astype(float), np.full((len(examples), 1), float(horizon))])
    sums = map(_sum, value.tolist(), starts, parts)
    return tuple(
        Explanation(
            examples.series_ids[examples.series[row]],
            moment(examples.origins[row]),
            moment(examples.times[row, horizon - 1]),
            horizon,
            float(value[row]),
            start,
            features,
            {name: number for name, number in zip(names, table[row].tolist(), strict=True) if name in features},
        )
        for row, (start, features) in enumerate(sums)
    )


def importance(model: Model, features: Sequence[str]) -> dict[str, float]:
    """Return each feature's share in what a model's trees have learnt, the largest first; without trees, nothing.

    It is the share of the squared error that splits on the feature saved (LightGBM's gain), members counting by their
    weights. ``features`` are the names the model was trained with (``Bundle.features``).
    """
    shares = Counter[str]()
    for member, weight in zip(model.members, model.weights, strict=True):
        if member.trees is None:
            continue
        gains = member.trees.gains()
        for name, gain in zip((*features, STEP_AHEAD), gains.tolist(), strict=True):
            shares[name] += weight * gain / (gains.sum() or 1.0)
    whole = sum(shares.values())
    return {name: share / whole for name, share in shares.most_common() if share > 0}


def _start(member: Fitted, examples: Examples, horizon: int) -> dict[str, Floats]:
    """Return where a member's forecast starts from."""
    if member.name == "persistence":
        return {LAST: examples.last}
    if member.name == "seasonal_naive":
        return {SEASON: examples.seasonal[:, horizon - 1]}
    if member.name in har.NAMES:
        return {AVERAGE: har.har_terms(member, examples, horizon)[0]}
    if member.trees is not None:
        kind = member.numbers["offset"]
        bias = _contributions(member, examples, horizon)[:, -1]
        if kind == "level":
            return {AVERAGE: bias}
        return {STARTS[kind]: offset_of(kind, examples)[:, horizon - 1], AVERAGE: bias}
    return {LAST: examples.last, AVERAGE: np.full(len(examples), member.numbers["steps"][horizon - 1]["intercept"])}


def _features(member: Fitted, examples: Examples, horizon: int) -> Mapping[str, Floats]:
    if member.trees is not None:
        names = (*examples.names, STEP_AHEAD)
        table = _contributions(member, examples, horizon)
        return {name: table[:, place] for place, name in enumerate(names)}
    if member.name == "ridge":
        return ridge_terms(member, examples, horizon)
    if member.name in har.NAMES:
        return har.har_terms(member, examples, horizon)[1]
    return {}


def _contributions(member: Fitted, examples: Examples, horizon: int) -> Floats:
    """Return LightGBM's contributions of each feature, the bias last: (n, F + G + 2)."""
    assert member.trees is not None
    pairs = Pairs(examples, np.arange(len(examples)), np.full(len(examples), horizon))
    return member.trees.contributions(pairs.matrix)


def _add(sums: list[Counter[str]], name: str, numbers: Floats) -> None:
    for own, number in zip(sums, numbers.tolist(), strict=True):
        own[name] += number


def _sum(
    value: float, start: Mapping[str, float], features: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what the parts of a forecast are: those that add something, the largest first."""
    if not np.isfinite(sum(start.values()) + sum(features.values())):
        return {STAND_IN: value}, {}
    told = sorted(features.items(), key=lambda item: abs(item[1]), reverse=True)
    return dict(start), {name: part for name, part in told if part}
