"""Derived columns: what a step of the task says, computed from the observations inside it, in this one place.

The history keeps what the source said, row by row; a task whose source has finer rows, or whose target the source does
not say, reads that history through ``DerivedHistory``. A step is computed from its own rows alone, slot by slot in
time order, so that one step read by itself has the same bits as the same step among a million. docs/derived-columns.md
explains each formula. To add one: write a function of arrays and name it in ``DERIVATIONS``.

A derived version is known from the moment the newest of its rows was, and never before its step has ended. Until the
target can be computed (enough slots have all their inputs) a step has no version: it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.history import History
from forecastle.data.store import Place
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, KEYS, SERIES, TIMESTAMP, conform
from forecastle.task import Column, Task

Floats = npt.NDArray[np.float64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP, _SLOT, _KNOWN, _GROUP = "__step", "__slot", "__known", "__group"


def realised_volatility(open_: Floats, close: Floats) -> Floats:
    """Return 100 √Σ r² of each step (G, K), r being the log returns of its candles, in percent.

    r₁ = ln(close₁ / open₁) and rᵢ = ln(closeᵢ / closeᵢ₋₁): the step is seen by itself, so that no night or weekend
    before it counts. Andersen and Bollerslev (1998), Answering the Skeptics, International Economic Review 39 (4).
    A price that is not above zero is missing.
    """
    total, before = np.zeros(len(close)), np.full(len(close), np.nan)
    for slot in range(close.shape[1]):
        opened, now = _positive(open_[:, slot]), _positive(close[:, slot])
        first = np.where(np.isnan(before), opened, before)
        change = np.log(now / first)
        total = total + np.where(np.isnan(change), 0.0, change * change)
        before = np.where(np.isnan(now), before, now)
    return np.where(np.isnan(before), np.nan, 100.0 * np.sqrt(total))


def share(part: Floats, whole: Floats) -> Floats:
    """Return 100 × part / whole, the mean over the slots of each step (G, K), in percent; a whole of zero is missing."""
    return mean(100.0 * part / _positive(whole))


def mean(values: Floats) -> Floats:
    """Return the mean of the values present in each step (G, K), summed in time order; NaN where there is none."""
    total, count = np.zeros(len(values)), np.zeros(len(values))
    for slot in range(values.shape[1]):
        there = ~np.isnan(values[:, slot])
        total = total + np.where(there, values[:, slot], 0.0)
        count = count + there
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def last(values: Floats) -> Floats:
    """Return the last value present in each step (G, K), NaN where there is none."""
    found = np.full(len(values), np.nan)
    for slot in range(values.shape[1]):
        found = np.where(np.isnan(values[:, slot]), found, values[:, slot])
    return found


def total(values: Floats) -> Floats:
    """Return the sum of the values present in each step (G, K), in time order; NaN where there is none."""
    count: Floats = np.sum(~np.isnan(values), axis=1).astype(np.float64)
    return mean(values) * count


DERIVATIONS: dict[str, Callable[..., Floats]] = {
    "realised-volatility": realised_volatility,
    "share": share,
    "mean": mean,
}
PER_STEP: dict[str, Callable[[Floats], Floats]] = {
    "last": last,
    "mean": mean,
    "sum": total,
    "least": lambda values: np.fmin.reduce(values, axis=1),
    "greatest": lambda values: np.fmax.reduce(values, axis=1),
}


@dataclass(frozen=True)
class DerivedHistory(History):
    """A history of what the source said, read as the task's steps; what is appended is what the source said."""

    task: Task

    def versions(
        self, as_of: datetime | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Return every version of every step, as ``History.versions`` does of observations."""
        reach = None if start is None else start - (start - _EPOCH) % self.task.frequency
        until = None if end is None else end + self.task.frequency
        steps = derive(self.task, super().versions(as_of, reach, until), as_of)
        inside = [pl.lit(True)] if start is None else [pl.col(TIMESTAMP) >= start]
        return steps.filter(*inside, *([] if end is None else [pl.col(TIMESTAMP) < end]))

    def read(
        self, as_of: datetime | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Return the steps as known at ``as_of``: of each its newest version, by series and timestamp."""
        return self.versions(as_of, start, end).unique(KEYS, keep="last", maintain_order=True)

    def newest(self) -> datetime | None:
        """Return the newest step of any series, or None where there is none."""
        newest = super().newest()
        if newest is None:
            return None
        recent: datetime | None = self.versions(start=newest - 2 * self.task.frequency)[TIMESTAMP].max()  # type: ignore[assignment]
        return recent if recent is not None else self.versions()[TIMESTAMP].max()  # type: ignore[return-value]


def open_history(task: Task, root: Place, target_only: bool = False) -> History:
    """Return the history in a folder or store as the task reads it: its steps, derived where the source does not say them."""
    if task.is_derived:
        measured = task.measured
        return DerivedHistory(root, (measured.target, *measured.covariates), task)
    return History(root, (task.target,) if target_only else (task.target, *task.covariates))


def derive(task: Task, versions: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
    """Return the versions of the task's steps that these versions of observations tell, known at ``as_of``.

    By default that is when each series was last collected. A task that derives nothing gets its observations back.
    """
    if not task.is_derived:
        return versions
    columns = (task.target, *task.covariates)
    told = _by_slot(task, versions)
    now = pl.col(COLLECTED_AT).max().over(SERIES) if as_of is None else pl.lit(as_of)
    moments = told.filter(pl.col(_KNOWN) <= now).select(SERIES, _STEP, _KNOWN).unique().sort(SERIES, _STEP, _KNOWN)
    moments = moments.with_row_index(_GROUP)
    seen = (
        moments.join(told, on=[SERIES, _STEP], suffix="_row")
        .filter(pl.col(f"{_KNOWN}_row") <= pl.col(_KNOWN))
        .sort(_GROUP, _SLOT, AVAILABLE_AT, TIMESTAMP, COLLECTED_AT)
    )
    newest = seen.unique([_GROUP, _SLOT], keep="last", maintain_order=True)
    collected = seen.group_by(_GROUP).agg(pl.col(COLLECTED_AT).max())
    cells = {name: _laid_out(task, moments.height, newest, name) for name in task.measured.columns}
    values = {name: _value(column, name, cells) for name, column in task.columns.items()}
    steps = moments.join(collected, on=_GROUP, maintain_order="left").select(
        SERIES,
        pl.col(_STEP).alias(TIMESTAMP),
        pl.col(_KNOWN).alias(AVAILABLE_AT),
        COLLECTED_AT,
        *(pl.Series(name, values[name]) for name in columns),
    )
    return conform(steps, columns).filter(pl.col(task.target).is_not_null())


def _by_slot(task: Task, versions: pl.DataFrame) -> pl.DataFrame:
    """Return the versions with their step, their slot in it, and when they count as known to it."""
    microsecond = pl.col(TIMESTAMP).dt.epoch("us")
    length, slot = (int(one.total_seconds() * 1_000_000) for one in (task.frequency, task.source_step))
    return versions.with_columns(
        (pl.col(TIMESTAMP) - pl.duration(microseconds=microsecond % length)).alias(_STEP),
        (microsecond % length // slot).alias(_SLOT),
    ).with_columns(pl.max_horizontal(AVAILABLE_AT, pl.col(_STEP) + task.knowable_after).alias(_KNOWN))


def _laid_out(task: Task, groups: int, newest: pl.DataFrame, name: str) -> Floats:
    """Return a column as (steps, slots), NaN where a slot holds nothing."""
    cells = np.full((groups, task.frequency // task.source_step), np.nan)
    cells[newest[_GROUP].to_numpy(), newest[_SLOT].to_numpy()] = newest[name].fill_null(float("nan")).to_numpy()
    return cells


def _value(column: Column, name: str, cells: dict[str, Floats]) -> Floats:
    """Return a column's value of each step; of a derived one NaN where too few slots have all its inputs."""
    if column.derived is None:
        return PER_STEP[column.per_step](cells[name])
    inputs = [cells[one] for one in column.inputs]
    whole = ~np.isnan(np.stack(inputs)).any(axis=0)
    enough = whole.sum(axis=1) >= column.min_share * whole.shape[1]
    return np.where(enough, DERIVATIONS[column.derived](*(np.where(whole, one, np.nan) for one in inputs)), np.nan)


def _positive(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)
