"""What the training data looks like, in numbers: the Reference.

It is computed once, from the features a model is trained on, and kept with the model: the profile page shows it, and
drift is measured against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]
MARGIN = 0.1  # where none has been found out
LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
CHUNK = 65_536  # rows that are correlated at once, to bound memory


@dataclass(frozen=True, eq=False)
class Reference:
    """Numbers about the features of a training table; where a feature was never seen they are NaN.

    ``null_share``, ``minimum`` and ``maximum`` have one number a feature, shape (F,); ``quantiles`` has a row for each
    of LEVELS, shape (L, F). ``correlations`` (F, F) are Pearson's, of the rows that have both features. ``margin`` says
    how far past the range of a feature a value is still as in training, as a share of that range (``drift.margin_of``).
    """

    names: tuple[str, ...]
    rows: int
    null_share: Numbers
    minimum: Numbers
    maximum: Numbers
    quantiles: Numbers
    correlations: Numbers
    margin: float = MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Return the Reference as plain data for JSON; a number that is missing is None."""
        arrays = {name: _plain(getattr(self, name)) for name in ("null_share", "minimum", "maximum", "quantiles")}
        pairs = [_shortest(value) for value in self.correlations[np.tril_indices(len(self.names))]]
        levels = list(LEVELS)
        told = {"names": list(self.names), "rows": self.rows, "levels": levels, "margin": self.margin}
        return {**told, **arrays, "correlations": pairs}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reference:
        """Return the Reference that ``to_dict`` wrote, bit for bit; one from before there were correlations has
        none."""
        null_share, minimum, maximum, quantiles = (
            np.array(data[name], dtype=np.float32) for name in ("null_share", "minimum", "maximum", "quantiles")
        )
        quantiles = quantiles.reshape(len(LEVELS), len(data["names"]))
        correlations = np.full((len(data["names"]),) * 2, np.nan, dtype=np.float32)
        if "correlations" in data:
            correlations[np.tril_indices(len(correlations))] = np.array(data["correlations"], dtype=np.float32)
            correlations = np.where(np.tri(len(correlations), dtype=bool), correlations, correlations.T)
        margin = float(data.get("margin", MARGIN))
        return cls(
            tuple(data["names"]), int(data["rows"]), null_share, minimum, maximum, quantiles, correlations, margin
        )


def reference(names: Sequence[str], matrix: Numbers) -> Reference:
    """Compute the Reference of a feature matrix: rows x features, float32, NaN where a value is missing."""
    values = np.asarray(matrix, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"expected a matrix of {len(names)} features, found the shape {values.shape}")
    seen = [column[~np.isnan(column)] for column in values.T]
    quantiles = np.full((len(LEVELS), len(names)), np.nan, dtype=np.float32)
    for number, column in enumerate(seen):
        if column.size:
            quantiles[:, number] = np.quantile(column, LEVELS)
    rows = values.shape[0]
    return Reference(
        names=tuple(names),
        rows=rows,
        null_share=_each(1 - column.size / rows if rows else np.nan for column in seen),
        minimum=_each(column.min() if column.size else np.nan for column in seen),
        maximum=_each(column.max() if column.size else np.nan for column in seen),
        quantiles=quantiles,
        correlations=_correlations(values),
    )


def _correlations(values: Numbers) -> Numbers:
    """Return Pearson's correlation of each two columns over the rows that have both, NaN where one does not vary."""
    width = values.shape[1]
    count, first, second, product = (np.zeros((width, width)) for _ in range(4))
    there = ~np.isnan(values)
    # About the mean, so that squares of large numbers do not swallow their differences.
    centre = np.where(there, values, 0).sum(axis=0, dtype=np.float64) / np.maximum(there.sum(axis=0), 1)
    for start in range(0, len(values), CHUNK):
        known = there[start : start + CHUNK].astype(np.float64)
        moved = np.where(there[start : start + CHUNK], values[start : start + CHUNK] - centre, 0.0)
        count += known.T @ known
        first += moved.T @ known
        second += (moved * moved).T @ known
        product += moved.T @ moved
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = second - first * first / count
        covered = product - first * first.T / count
        found = covered / np.sqrt(spread * spread.T)
    least = 1e-9 * np.maximum(second, np.finfo(np.float64).tiny)
    found[~((spread > least) & (spread.T > least.T))] = np.nan  # of one bit pattern, whatever made them
    lower = np.tril(np.clip(found, -1.0, 1.0)).astype(np.float32)
    return np.where(np.tri(width, dtype=bool), lower, lower.T)


def _shortest(value: np.float32) -> float | None:
    """Return the shortest decimal that reads as the same float32, None for NaN."""
    return None if np.isnan(value) else float(str(value))


def _each(numbers: Any) -> Numbers:
    return np.fromiter(numbers, dtype=np.float32)


def _plain(array: Numbers) -> list[Any]:
    return [_plain(item) if item.ndim else None if np.isnan(item) else float(item) for item in array]
