"""Data drift: are predictions asked for with feature values that the training data never held?

A prediction (one series at one origin) is flagged on its own, against the Reference written down when the model was
trained; the drift ratio is the share of flagged ones among the newest predictions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.examples import Examples
from forecastle.data.transformation import CALENDAR, Matrix
from forecastle.frame import SERIES, TIME

WINDOW = 500
MINIMUM = 50
MARGINS = (0.1, 0.2, 0.4, 0.8, 1.6)  # how far past the training range a value may lie, as a share of that range
TOLERATED = 0.025  # share of unseen rows like those in training that may be flagged: half of what is promised
BLOCKS, FOLDS = 20, 5  # of time, and how often a part of them is held out
MOST_ROWS = 200_000  # that a margin is found on


class Bounds(Protocol):
    """What drift needs of a Reference: names and the range of each feature in training (NaN: never seen), (F,)."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def minimum(self) -> npt.NDArray[np.float32]: ...

    @property
    def maximum(self) -> npt.NDArray[np.float32]: ...

    @property
    def margin(self) -> float: ...


def out_of_distribution(reference: Bounds, matrix: Matrix) -> npt.NDArray[np.bool_]:
    """Flag the rows (n, F) that hold a value outside the training range by more than its margin, (n,).

    Calendar features are left out: their values come round by themselves. A missing value is no evidence of drift.
    """
    low, high = limits(reference)
    return np.asarray(((matrix < low) | (matrix > high)).any(axis=1), dtype=np.bool_)


def limits(reference: Bounds) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return between which numbers each feature is as in training, (F,) each; infinite ones where any will do."""
    least, most = np.asarray(reference.minimum, float), np.asarray(reference.maximum, float)
    room = reference.margin * (most - least)
    free = np.isnan(room) | np.array([name in CALENDAR for name in reference.names], dtype=bool)
    return np.where(free, -np.inf, least - room), np.where(free, np.inf, most + room)


def margin_of(names: Sequence[str], matrix: Matrix, origins: npt.NDArray[np.int64]) -> float:
    """Return the least of MARGINS by which rows that were not seen, but are like those in training, stay unflagged.

    Time is cut into blocks; a fifth of them is held out in turn and held against the range of the others. ``origins``
    are the rows' times, (n,).
    """
    thin = slice(None, None, max(1, -(-len(matrix) // MOST_ROWS)))
    judged = np.array([name not in CALENDAR for name in names])
    values, times = matrix[thin][:, judged].astype(float), np.asarray(origins)[thin]
    if len(np.unique(times)) < BLOCKS:
        return MARGINS[0]
    fold = np.searchsorted(np.quantile(times, np.linspace(0, 1, BLOCKS + 1)[1:-1]), times, side="right") % FOLDS
    parts = []
    for number in range(FOLDS):
        seen = values[fold != number]
        known = ~np.isnan(seen).all(axis=0)
        parts.append((values[fold == number][:, known], np.nanmin(seen[:, known], 0), np.nanmax(seen[:, known], 0)))
    for margin in MARGINS:
        flagged = sum(int(_outside(held, least, most, margin).sum()) for held, least, most in parts)
        if flagged <= TOLERATED * len(values):
            return margin
    return MARGINS[-1]


def _outside(
    values: npt.NDArray[np.float64], least: npt.NDArray[np.float64], most: npt.NDArray[np.float64], margin: float
) -> npt.NDArray[np.bool_]:
    room = margin * (most - least)
    return np.asarray(((values < least - room) | (values > most + room)).any(axis=1), dtype=np.bool_)


def mark(forecasts: pl.DataFrame, examples: Examples, reference: Bounds) -> pl.DataFrame:
    """Return the forecasts with ``drifted``, whether their origin's features were out of distribution, and with
    ``feature_digest``, which is the same for the same features alone."""
    flags = {
        SERIES: pl.Series([examples.series_ids[number] for number in examples.series], dtype=pl.String),
        "origin": pl.Series(examples.origins).cast(TIME),
        "drifted": pl.Series(out_of_distribution(reference, examples.origin)),
        "feature_digest": pl.Series(digests(examples), dtype=pl.String),
    }
    return forecasts.join(pl.DataFrame(flags), on=[SERIES, "origin"], how="left", maintain_order="left", validate="m:1")


def digests(examples: Examples) -> list[str]:
    """Return for each origin twelve hex digits of all its features, in the model's order, to the bit."""
    steps = examples.step.transpose(1, 0, 2)
    whole = zip(examples.origin + 0.0, steps + 0.0, strict=True)  # adding zero turns -0 into 0
    return [hashlib.sha256(origin.tobytes() + step.tobytes()).hexdigest()[:12] for origin, step in whole]


def drift_ratio(flags: Iterable[bool], window: int = WINDOW, minimum: int = MINIMUM) -> float | None:
    """Return the share of flagged predictions among the newest ``window`` (newest first); None below ``minimum``."""
    newest = list(islice(flags, window))
    return sum(newest) / len(newest) if len(newest) >= minimum else None
