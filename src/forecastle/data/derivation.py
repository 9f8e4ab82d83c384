"""Derived columns: what a step of the task says, computed from the observations inside it, in this one place.

The history keeps what the source said, row by row; a task whose source has finer rows, or whose target the source does
not say, reads that history through ``DerivedHistory``. A step is computed from its own rows alone, slot by slot in
time order, so that one step read by itself has the same bits as the same step among a million. docs/derived-columns.md
explains each formula. To add one: write a function of arrays and name it in ``DERIVATIONS``.

A derived version is known from the moment the newest of its rows was, and never before its step has ended. Until the
target can be computed (enough slots have all their inputs) a step has no version: it is missing. Columns of another
task are joined to the steps there are; a joined version is known from the moment the newer of its two sides was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.history import MOST_HISTORIES, MOST_REMEMBERED, History
from forecastle.errors import NotEnoughHistory, TaskError
from forecastle.data.store import Place, at
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, EPOCH, KEYS, SERIES, TIMESTAMP, conform, instant
from forecastle.task import Column, Task

Floats = npt.NDArray[np.float64]

_MICROSECOND = timedelta(microseconds=1)
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
    """Return 100 × part / whole, the mean over the slots of each step (G, K), in percent; a whole of zero is
    missing."""
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
    """A history of what the source said, read as the task's steps; what is appended is what the source said.

    ``others`` are the histories of the tasks that some columns are read from, by their names. Reading raises
    NotEnoughHistory where one of them holds nothing yet.
    """

    task: Task
    others: Mapping[str, History] = field(default_factory=dict)

    def versions(
        self, as_of: datetime | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Return every version of every step, as ``History.versions`` does of observations.

        What was derived last is remembered for as long as no history it rests on changes: a live pass asks for its
        last days again and again.
        """
        reach = None if start is None else start - (start - EPOCH) % self.task.frequency
        key = at(self.root).uri, self.task.digest, tuple(self.others), as_of is None
        state = (super().state(), *(one.state() for one in self.others.values()))
        before = _REMEMBERED.get(key)
        if before is not None and before.holds(reach) and (before.as_of, before.state) == (as_of, state):
            steps = before.steps
        else:
            until = None if end is None else end + self.task.frequency
            steps = derive(self.task, super().versions(as_of, reach, until), as_of)
            if self.others and not steps.is_empty():
                steps = join_others(self.task, steps, self.others, as_of, reach, until)
            if end is None and steps.height <= MOST_REMEMBERED:
                _remember(key, _Remembered(as_of, state, reach, steps))
        inside = [pl.lit(True)] if start is None else [pl.col(TIMESTAMP) >= instant(start)]
        return steps.filter(*inside, *([] if end is None else [pl.col(TIMESTAMP) < instant(end)]))

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
        lately = self.versions(start=newest - 2 * self.task.frequency)
        recent: datetime | None = lately[TIMESTAMP].max()  # type: ignore[assignment]
        return recent if recent is not None else self.versions()[TIMESTAMP].max()  # type: ignore[return-value]


@dataclass(frozen=True)
class _Remembered:
    as_of: datetime | None
    state: tuple[frozenset[str], ...]
    start: datetime | None
    steps: pl.DataFrame

    def holds(self, start: datetime | None) -> bool:
        return self.start is None or (start is not None and start >= self.start)


_REMEMBERED: dict[Any, _Remembered] = {}
_REMEMBERING = Lock()


def _remember(key: Any, told: _Remembered) -> None:
    with _REMEMBERING:
        _REMEMBERED.pop(key, None)
        while len(_REMEMBERED) >= MOST_HISTORIES:
            del _REMEMBERED[next(iter(_REMEMBERED))]
        _REMEMBERED[key] = told


def open_history(
    task: Task, root: Place, target_only: bool = False, beside: Callable[[str], Place] | None = None
) -> History:
    """Return the history in a folder or store as the task reads it: its steps, derived where the source does not say
    them.

    ``beside`` tells where the history of another task lies, by its name (default, of a folder: in that task's folder
    beside this one's); ``target_only`` leaves the columns of other tasks null.
    """
    if task.is_derived:
        measured = task.measured
        others = {} if target_only else open_others(task, beside or partial(_neighbour, root))
        return DerivedHistory(root, (measured.target, *measured.covariates), task, others)
    return History(root, (task.target,) if target_only else (task.target, *task.covariates))


def open_others(task: Task, beside: Callable[[str], Place]) -> dict[str, History]:
    """Return the histories of the tasks that some columns are read from, by their names."""
    return {name: History(beside(name), _taken(task, name)) for name in task.others}


def derive(task: Task, versions: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
    """Return the versions of the task's steps that these versions of observations tell, known at ``as_of``.

    By default that is when each series was last collected. Columns of other tasks are null until they are joined. A
    task that derives nothing gets its observations back.
    """
    if not task.is_derived:
        return versions
    own = {name: column for name, column in task.columns.items() if not column.task}
    slot = _MICROSECOND if task.source.events else task.source_step
    told = _by_slot(versions, task.frequency, slot).with_columns(
        pl.max_horizontal(AVAILABLE_AT, pl.col(_STEP) + task.knowable_after).alias(_KNOWN)
    )
    steps, cells = _laid_out(told, task.measured.columns, as_of)
    values = {name: _value(task, column, name, cells) for name, column in own.items()}
    steps = steps.with_columns(pl.Series(name, values[name], pl.Float64) for name in own)
    return conform(steps, (task.target, *task.covariates)).filter(pl.col(task.target).is_not_null())


def join_others(
    task: Task,
    steps: pl.DataFrame,
    others: Mapping[str, History],
    as_of: datetime | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.DataFrame:
    """Return the task's steps with every column of other tasks, as their histories hold them (see ``join``).

    ``start`` and ``end`` bound what is read of them. Raises NotEnoughHistory where one holds nothing yet, TaskError
    where the whole of one has no value of a column.
    """
    for name, history in others.items():
        told = history.versions(as_of, start, end)
        if told.is_empty() and history.newest() is None:
            raise NotEnoughHistory(
                f"observations of task {name!r}, of which task {task.name!r} takes {', '.join(_taken(task, name))}",
                "none",
                f"Collect them first, in the same home: forecastle run train --task FILE (the file of {name!r}).",
            )
        _check_is_measured(task, name, told, everything=start is None and end is None)
        steps = join(task, name, steps, told)
    return steps


def join(task: Task, name: str, steps: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """Return the task's steps with the columns of another task, of whose observations these are the versions.

    A step gets a further version whenever what is known of the other task's rows inside it changes; before the step
    itself is known there is none. Rows finer than the step become one by the column's ``per_step``.
    """
    columns = {own: column for own, column in task.columns.items() if column.task == name}
    told = versions.join(steps.select(SERIES).unique(), on=SERIES, how="semi")
    told = _by_slot(told, task.frequency, _MICROSECOND).with_columns(pl.col(AVAILABLE_AT).alias(_KNOWN))
    theirs, cells = _laid_out(told, _taken(task, name), None)
    values = {own: PER_STEP[one.per_step](cells[one.column or own]) for own, one in columns.items()}
    theirs = theirs.with_columns(pl.Series(own, values[own], pl.Float64).fill_nan(None) for own in columns)
    first = steps.group_by(KEYS).agg(pl.col(AVAILABLE_AT).min().alias(_KNOWN))
    later = theirs.join(first, on=KEYS).filter(pl.col(AVAILABLE_AT) > pl.col(_KNOWN))
    moments = pl.concat(one.select(*KEYS, AVAILABLE_AT) for one in (steps, later)).unique().sort(AVAILABLE_AT)
    known: dict[str, Any] = {"on": AVAILABLE_AT, "by": KEYS, "check_sortedness": False}
    joined = moments.join_asof(steps.drop(columns).sort(AVAILABLE_AT), **known).join_asof(
        theirs.rename({COLLECTED_AT: _KNOWN}).sort(AVAILABLE_AT), **known
    )
    collected = pl.max_horizontal(COLLECTED_AT, _KNOWN).alias(COLLECTED_AT)
    return conform(joined.with_columns(collected), (task.target, *task.covariates))


def _taken(task: Task, name: str) -> tuple[str, ...]:
    """Return the columns a task reads from another one's history, by their names there."""
    return tuple(dict.fromkeys(one.column or own for own, one in task.columns.items() if one.task == name))


def _check_is_measured(task: Task, name: str, told: pl.DataFrame, everything: bool) -> None:
    """Raise TaskError for a column that another task's whole history has no value of: it is none of its own."""
    absent = [one for one in _taken(task, name) if everything and told[one].null_count() == told.height]
    if absent:
        raise TaskError(
            f"values of {', '.join(absent)} in the history of task {name!r}, from which task {task.name!r} takes them",
            "none at all",
            f"Name a column that {name!r} measures, as `column` under [columns] of {task.name!r}.",
        )


def _neighbour(root: Place, name: str) -> Path:
    """Return where the history of another task lies whose folder stands beside this one's."""
    if not isinstance(root, Path):
        raise ValueError(f"where the history of task {name!r} lies has to be told")
    return root.parent.parent / name / root.name


def _by_slot(versions: pl.DataFrame, step: timedelta, slot: timedelta) -> pl.DataFrame:
    """Return the versions with their step and their slot in it, counted over the slots that hold anything.

    Of several readings inside a slot the last one counts.
    """
    microsecond = pl.col(TIMESTAMP).dt.epoch("us")
    length, counted = step // _MICROSECOND, microsecond // (slot // _MICROSECOND)
    return versions.with_columns(
        (pl.col(TIMESTAMP) - pl.duration(microseconds=microsecond % length)).alias(_STEP)
    ).with_columns((counted.rank("dense").over(SERIES, _STEP) - 1).alias(_SLOT))


def _laid_out(
    told: pl.DataFrame, names: Iterable[str], as_of: datetime | None
) -> tuple[pl.DataFrame, dict[str, Floats]]:
    """Return every moment at which more became known of a step, and what was then in its slots, NaN for nothing.

    The moments are a table of series, timestamp, available_at and collected_at with G rows, the columns (G, slots).
    """
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
    at = newest[_GROUP].to_numpy(), newest[_SLOT].to_numpy()
    cells = {}
    for name in names:
        cells[name] = np.full((moments.height, int(at[1].max()) + 1 if len(at[1]) else 1), np.nan)
        cells[name][at] = newest[name].fill_null(float("nan")).to_numpy()
    times = {_STEP: TIMESTAMP, _KNOWN: AVAILABLE_AT}
    return moments.join(collected, on=_GROUP, maintain_order="left").drop(_GROUP).rename(times), cells


def _value(task: Task, column: Column, name: str, cells: dict[str, Floats]) -> Floats:
    """Return a column's value of each step; of a derived one NaN where too few slots have all its inputs.

    Of events nobody knows how many there will be: one is enough.
    """
    if column.derived is None:
        return PER_STEP[column.per_step](cells[name])
    inputs = [cells[one] for one in column.inputs]
    whole = ~np.isnan(np.stack(inputs)).any(axis=0)
    slots = 0 if task.source.events else task.frequency // task.source_step
    enough = whole.sum(axis=1) >= max(1, column.min_share * slots)
    return np.where(enough, DERIVATIONS[column.derived](*(np.where(whole, one, np.nan) for one in inputs)), np.nan)


def _positive(values: Floats) -> Floats:
    return np.where(values > 0, values, np.nan)
