"""Data drift: are predictions asked for with feature values that the training data never held?

A prediction (one series at one origin) is flagged on its own, against the Reference written down when the model was
trained; the drift ratio is the share of flagged ones among the newest predictions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
MARGIN = 0.1  # how far past the training range a value may lie, as a share of that range


class Bounds(Protocol):
    """What drift needs of a Reference: names and the range of each feature in training (NaN: never seen), (F,)."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def minimum(self) -> npt.NDArray[np.float32]: ...

    @property
    def maximum(self) -> npt.NDArray[np.float32]: ...


def out_of_distribution(reference: Bounds, matrix: Matrix) -> npt.NDArray[np.bool_]:
    """Flag the rows (n, F) that hold a value outside the training range by more than MARGIN of its width, (n,).

    Calendar features are left out: their values come round by themselves. A missing value is no evidence of drift.
    """
    judged = np.array([name not in CALENDAR for name in reference.names])
    least, most = np.asarray(reference.minimum, float)[judged], np.asarray(reference.maximum, float)[judged]
    room = MARGIN * (most - least)
    values = matrix[:, judged].astype(float)
    outside: npt.NDArray[np.bool_] = ((values < least - room) | (values > most + room)).any(axis=1)
    return outside


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
