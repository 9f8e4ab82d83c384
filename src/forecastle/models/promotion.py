"""Whether a challenger becomes champion: a pure decision over forecasts of the same rows, with its reasons.

The champion is scored again on the challenger's rows, never by its old figures. "Better" is a paired test on the
squared errors, robust to errors that resemble those of the hour before: ``models/paired.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from forecastle.models.paired import Floats, above_zero, smaller_errors
from forecastle.task import Task

SIGNIFICANCE = 0.05
MIN_ORIGINS = 30
COVERAGE_ROOM = 0.05
"""How far the share covered may lie from what the task promises."""
KEYS = ("series_id", "origin", "horizon")
CHALLENGER, CHAMPION = "challenger", "champion"
NO_CHAMPION = "There is no champion yet."
NAIVE = {"persistence": "last", "seasonal_naive": "naive"}  # a method and the column of what it forecasts


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why in sentences, and the figures the sentences rest on.

    ``worse`` says that the challenger does harm: worse than the champion by the paired test, or a series beyond its
    tolerance by the same test, or intervals that do not cover what they promise. What is neither promoted nor worse
    makes no difference that chance would not make.
    """

    promote: bool
    reasons: tuple[str, ...]
    rows: int
    rmse: dict[str, float]
    p_value: float | None = None
    worse: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Return the Decision that ``as_dict`` wrote."""
        return cls(**{one.name: data[one.name] for one in fields(cls)} | {"reasons": tuple(data["reasons"])})


def decide(
    task: Task, challenger: pl.DataFrame, champion: pl.DataFrame | None = None, alone: str = NO_CHAMPION
) -> Decision:
    """Decide whether the challenger becomes champion.

    ``challenger`` holds its back-tested forecasts: series_id, origin, horizon, actual, value, perhaps lower and upper,
    and beside them what the naive methods forecast for the row (NAIVE: ``last``, ``naive``); ``champion`` the
    champion's forecasts (keys and value). Only rows that every method has are judged. The challenger must beat each
    naive method (or serve the very forecasts of one that nothing trained beat); where there is a champion it must,
    besides, have the smaller errors by ``smaller_errors`` at 5 %, and no series whose RMSE is, by the same test, worse
    by more than the task's ``training.series_tolerance``, and intervals that cover what they promise. (Intervals too
    wide or too narrow do not keep a first model from serving where nothing served: they are said.) ``alone`` is the
    reason why there is no champion to be compared with.
    """
    rows = same_rows(challenger, champion)
    methods = [CHALLENGER, *NAIVE, *([] if champion is None else [CHAMPION])]
    origins = rows["origin"].n_unique()
    if origins < MIN_ORIGINS:
        few = f"Only {origins} origins have forecasts of every method; {MIN_ORIGINS} are needed to judge."
        return Decision(False, (few,), rows.height, {})
    errors = {method: (rows[method] - rows["actual"]).to_numpy() for method in methods}
    rmse = {method: float(np.sqrt(np.mean(error**2))) for method, error in errors.items()}
    verdicts = [_against_naive(task, name, errors, rmse) for name in NAIVE]
    harms = [_coverage(task, rows)]
    p_value = None
    if champion is None:
        verdicts.append((True, alone))
    else:
        p_value = smaller_errors(rows, errors[CHALLENGER], errors[CHAMPION], task.steps)
        worse = smaller_errors(rows, errors[CHAMPION], errors[CHALLENGER], task.steps)
        verdicts.append(_against_champion(task, rmse, p_value, worse))
        harms.append((worse >= SIGNIFICANCE, ""))
        harms.append(_series(task, rows))
    reasons = tuple(reason for _, reason in (*verdicts, *harms) if reason)
    harmless = all(good for good, _ in harms)
    good = all(good for good, _ in verdicts) and (harmless or champion is None)
    return Decision(good, reasons, rows.height, rmse, p_value, not harmless)


def keep(rows: pl.DataFrame, why: str) -> Decision:
    """Return the decision that the champion stays whatever the rows say, and why."""
    return Decision(False, (why,), rows.height, {})


def same_rows(challenger: pl.DataFrame, champion: pl.DataFrame | None) -> pl.DataFrame:
    """Return the rows that have the truth and a finite forecast of every method, a column a method; beside them the
    challenger's ``lower`` and ``upper`` where it has them."""
    renamed = {"value": CHALLENGER, **{column: method for method, column in NAIVE.items()}}
    bounds = [name for name in ("lower", "upper") if name in challenger.columns]
    named = (pl.col(column).alias(name) for column, name in renamed.items())
    rows = challenger.select(*KEYS, "actual", *named, *bounds)
    if champion is not None:
        rows = rows.join(champion.select(*KEYS, pl.col("value").alias(CHAMPION)), on=KEYS)
    numbers = pl.col([name for name in rows.columns if name not in (*KEYS, *bounds)])
    return rows.filter(pl.all_horizontal(numbers.is_not_null() & numbers.is_finite())).sort(KEYS)


def _against_naive(task: Task, name: str, errors: Mapping[str, Floats], rmse: Mapping[str, float]) -> tuple[bool, str]:
    own, other, said = rmse[CHALLENGER], rmse[name], name.replace("_", " ")
    if np.array_equal(errors[CHALLENGER], errors[name]):
        return True, f"The challenger serves the forecasts of {said} itself: nothing trained beat it."
    figures = f"RMSE {_number(task, own)} against {_number(task, other)}"
    if own < other:
        return True, f"The challenger beats {said}: {figures}."
    return False, f"The challenger does not beat {said}: {figures}."


def _against_champion(task: Task, rmse: Mapping[str, float], better: float, worse: float) -> tuple[bool, str]:
    figures = f"RMSE {_number(task, rmse[CHALLENGER])} against {_number(task, rmse[CHAMPION])}"
    if better < SIGNIFICANCE:
        return True, f"The challenger is better than the champion on the same rows: {figures}, {_p(better)}."
    if worse < SIGNIFICANCE:
        return False, f"The challenger is worse than the champion on the same rows: {figures}, {_p(worse)}."
    said = f"{figures}, {_p(better)}"
    return False, f"There is no difference that chance would not make, so the champion stays: {said}."


def _series(task: Task, rows: pl.DataFrame) -> tuple[bool, str]:
    """Judge whether a series got worse by more than the task tolerates, by the paired test.

    All series together are called worse by chance in 5 % at most (Bonferroni): of a hundred, each tested at 5 %, one
    would often be.
    """
    tolerance = task.training.series_tolerance
    long_enough = pl.col("origin").n_unique().over("series_id") >= MIN_ORIGINS
    judged = sorted(rows.filter(long_enough).group_by("series_id"))
    worse = []
    for (name,), own in judged:
        errors = {one: (own[one] - own["actual"]).to_numpy() for one in (CHALLENGER, CHAMPION)}
        chance = smaller_errors(own, errors[CHAMPION] * (1 + tolerance), errors[CHALLENGER], task.steps)
        if chance < SIGNIFICANCE / len(judged):
            before, after = (float(np.sqrt(np.mean(errors[one] ** 2))) for one in (CHAMPION, CHALLENGER))
            worse.append(f"{name} from {_number(task, before)} to {_number(task, after)}")
    if worse:
        return False, f"The RMSE of a series gets worse by more than {tolerance:.0%}: {', '.join(worse)}."
    return True, f"No series gets worse by more than {tolerance:.0%}."


def _coverage(task: Task, rows: pl.DataFrame) -> tuple[bool, str]:
    """Judge whether the share the challenger's intervals cover is, by the paired test, beyond the room it has."""
    if not {"lower", "upper"} <= set(rows.columns):
        return True, ""
    inside = rows.select(pl.col("actual").is_between("lower", "upper").fill_null(False).cast(pl.Float64)).to_series()
    promised, covered = task.training.coverage, float(inside.to_numpy().mean())
    beyond = np.abs(covered - promised) - COVERAGE_ROOM
    excess = np.sign(covered - promised) * (inside.to_numpy() - promised) - COVERAGE_ROOM
    said = f"{covered:.1%} of the outcomes lie inside the challenger's intervals, {promised:.0%} promised"
    if beyond > 0 and above_zero(rows["origin"], excess, task.steps) < SIGNIFICANCE:
        return False, f"{said}: more than {100 * COVERAGE_ROOM:.0f} points beside it."
    return True, f"{said}."


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def _number(task: Task, value: float) -> str:
    return f"{value:.4g} {task.unit}".strip()
