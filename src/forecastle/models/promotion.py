"""Whether a challenger becomes champion: a pure decision over forecasts of the same rows, with its reasons.

The champion is scored again on the challenger's rows, never by its old figures. "Better" is a paired test on the
squared errors, robust to errors that resemble those of the hour before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.task import Task

SIGNIFICANCE = 0.05
MIN_ORIGINS = 30
KEYS = ("series_id", "origin", "horizon")
CHALLENGER, CHAMPION = "challenger", "champion"
NAIVE = {"persistence": "last", "seasonal_naive": "naive"}  # a method and the column of what it forecasts
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why in sentences, and the figures the sentences rest on."""

    promote: bool
    reasons: tuple[str, ...]
    rows: int
    rmse: dict[str, float]
    p_value: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def decide(task: Task, challenger: pl.DataFrame, champion: pl.DataFrame | None = None) -> Decision:
    """Decide whether the challenger becomes champion.

    ``challenger`` holds its back-tested forecasts: series_id, origin, horizon, actual, value, and beside them what the
    naive methods forecast for the row (NAIVE: ``last``, ``naive``); ``champion`` the champion's forecasts (keys and
    value). Only rows that every method has are judged. Without a champion the challenger must beat each naive method
    (or serve the very forecasts of one that nothing trained beat); with one it must, besides, have a smaller squared
    error than the champion by ``diebold_mariano`` at 5 %.
    """
    rows = _same_rows(challenger, champion)
    methods = [CHALLENGER, *NAIVE, *([] if champion is None else [CHAMPION])]
    origins = rows["origin"].n_unique()
    if origins < MIN_ORIGINS:
        few = f"Only {origins} origins have forecasts of every method; {MIN_ORIGINS} are needed to judge."
        return Decision(False, (few,), rows.height, {})
    errors = {method: (rows[method] - rows["actual"]).to_numpy() for method in methods}
    rmse = {method: float(np.sqrt(np.mean(error**2))) for method, error in errors.items()}
    verdicts = [_against_naive(task, name, errors, rmse) for name in NAIVE]
    p_value = None
    if champion is None:
        verdicts.append((True, "There is no champion yet."))
    else:
        gain = errors[CHAMPION] ** 2 - errors[CHALLENGER] ** 2
        by_origin = rows.select("origin", gain=pl.Series(gain)).group_by("origin").agg(pl.col("gain").mean())
        p_value = diebold_mariano(by_origin.sort("origin")["gain"].to_numpy(), task.steps)
        verdicts.append(_against_champion(task, rmse, p_value))
    reasons = tuple(reason for _, reason in verdicts)
    return Decision(all(good for good, _ in verdicts), reasons, rows.height, rmse, p_value)


def diebold_mariano(gain: Floats, horizon: int) -> float:
    """Return the one-sided p-value that the mean of a series of loss differences in time order is above zero.

    Diebold & Mariano (1995) with the small-sample correction of Harvey, Leybourne & Newbold (1997), Student's t with
    n - 1 degrees of freedom. The long-run variance uses Bartlett weights (Newey & West 1987), which keep it positive,
    over at least ``horizon`` - 1 lags. Without any variation the p-value is 0, 1 or, for no difference, 0.5.
    """
    from scipy.special import stdtr  # type: ignore[import-untyped]  # scipy ships no types

    size = len(gain)
    lags = min(max(horizon - 1, int(4 * (size / 100) ** (2 / 9))), size - 1)
    centred = gain - gain.mean()
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    covariances = np.array([centred[lag:] @ centred[:-lag] for lag in range(1, lags + 1)]) / size
    variance = float(centred @ centred / size + 2 * weights @ covariances) / size
    if variance <= 1e-12 * float(np.mean(gain**2)):
        return 0.5 if not gain.mean() else float(gain.mean() < 0)
    steps = min(horizon, size // 2)
    correction = (size + 1 - 2 * steps + steps * (steps - 1) / size) / size
    statistic = float(gain.mean()) / variance**0.5 * correction**0.5
    return float(stdtr(size - 1, -statistic))


def _same_rows(challenger: pl.DataFrame, champion: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows that have the truth and a finite forecast of every method, a column a method."""
    renamed = {"value": CHALLENGER, **{column: method for method, column in NAIVE.items()}}
    rows = challenger.select(*KEYS, "actual", *(pl.col(column).alias(name) for column, name in renamed.items()))
    if champion is not None:
        rows = rows.join(champion.select(*KEYS, pl.col("value").alias(CHAMPION)), on=KEYS)
    numbers = pl.col([name for name in rows.columns if name not in KEYS])
    return rows.filter(pl.all_horizontal(numbers.is_not_null() & numbers.is_finite())).sort(KEYS)


def _against_naive(task: Task, name: str, errors: Mapping[str, Floats], rmse: Mapping[str, float]) -> tuple[bool, str]:
    own, other, said = rmse[CHALLENGER], rmse[name], name.replace("_", " ")
    if np.array_equal(errors[CHALLENGER], errors[name]):
        return CHAMPION not in rmse, f"The challenger serves the forecasts of {said} itself: nothing trained beat it."
    figures = f"RMSE {_number(task, own)} against {_number(task, other)}"
    if own < other:
        return True, f"The challenger beats {said}: {figures}."
    return False, f"The challenger does not beat {said}: {figures}."


def _against_champion(task: Task, rmse: Mapping[str, float], p_value: float) -> tuple[bool, str]:
    figures = f"RMSE {_number(task, rmse[CHALLENGER])} against {_number(task, rmse[CHAMPION])}, p = {p_value:.3f}"
    if p_value < SIGNIFICANCE:
        return True, f"The challenger is better than the champion on the same rows: {figures}."
    if p_value > 1 - SIGNIFICANCE:
        return False, f"The challenger is worse than the champion on the same rows: {figures}."
    return False, f"There is no difference that chance would not make, so the champion stays: {figures}."


def _number(task: Task, value: float) -> str:
    return f"{value:.4g} {task.unit}".strip()
