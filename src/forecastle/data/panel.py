"""Observations on their time grid, with what was known when: the one shape features and models read.

A Panel holds every series of a task, series after series in name order, one row a step. On the regular grid a missing
hour is a row whose values are NaN, so that "24 rows back" is "24 hours back"; on the observed grid (markets that
close) a row is a bar that was traded. Times are microseconds since 1970 in UTC, as int64.

Late and revised values: a panel keeps every version of a cell. ``known`` answers with the version that could be known
at the asked moment, so that a training row sees what a live run would have seen, not what we know today.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.errors import NotEnoughHistory, TaskError
from forecastle.frame import AVAILABLE_AT, BITEMPORAL, COLLECTED_AT, EPOCH, SERIES, TIMESTAMP
from forecastle.task import DAY, Task, nearest

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Return a time as microseconds since 1970 (UTC)."""
    return (moment - EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC."""
    return EPOCH + int(microseconds) * _MICROSECOND


@dataclass(frozen=True)
class Versions:
    """Every version of every cell, sorted by row and then by the moment it became known."""

    row: Integers  # (V,)
    available_at: Integers  # (V,)
    values: Floats  # (C, V)

    @cached_property
    def _moments(self) -> Integers:
        return np.unique(self.available_at)

    @cached_property
    def _keys(self) -> Integers:
        return self.row * (len(self._moments) + 1) + np.searchsorted(self._moments, self.available_at) + 1

    def known(self, column: int, at: Integers, issued: Integers) -> Floats:
        """Return the newest version of rows ``at`` that was known at ``issued``, NaN where there was none yet."""
        wanted = at * (len(self._moments) + 1) + np.searchsorted(self._moments, issued, side="right")
        place = np.searchsorted(self._keys, wanted, side="right") - 1
        safe = np.maximum(place, 0)
        there = (place >= 0) & (self.row[safe] == at)
        return np.where(there, self.values[column, safe], np.nan)

    def ever_observed(self, column: int, size: int) -> Booleans:
        """Return which of ``size`` rows had a value in any version."""
        seen = np.zeros(size, dtype=bool)
        seen[self.row[~np.isnan(self.values[column])]] = True
        return seen


@dataclass(frozen=True)
class Ahead:
    """What was forecast of some covariates, and when: of each series the same span of steps."""

    columns: tuple[str, ...]
    first: int  # the span's first step, microseconds
    step: int
    span: int
    versions: Versions  # of rows series · span + step

    def known(self, name: str, series: Integers, times: Integers, issued: Integers) -> Floats:
        """Return what was forecast of a column for series and times (n,) by the moments ``issued``, the newest of it;
        NaN where nothing was."""
        steps = (times - self.first) // self.step
        inside = (steps >= 0) & (steps < self.span) & (name in self.columns)
        place = self.columns.index(name) if name in self.columns else 0
        found = self.versions.known(place, np.where(inside, series * self.span + steps, 0), issued)
        return np.where(inside, found, np.nan)


@dataclass(frozen=True)
class Panel:
    """Every series on its grid: S series, N rows in all, C columns (the target first)."""

    series_ids: tuple[str, ...]
    offsets: Integers  # (S + 1,) series s owns rows offsets[s] to offsets[s + 1]
    timestamps: Integers  # (N,) start of the step
    issued_at: Integers  # (N,) when a forecast from this row could be made: its first version's available_at
    columns: tuple[str, ...]
    values: Floats  # (C, N) newest version, NaN = missing
    settled_at: Integers  # (N,) available_at of the newest version; 0 where nothing was ever observed
    step: int  # microseconds of one step
    versions: Versions | None = None  # every version, where any came late or was revised
    ahead: Ahead | None = None  # forecasts of covariates, where there are any
    settling: int = 0  # microseconds after its timestamp from which on a value is the truth; 0: once it is known

    @cached_property
    def series_of(self) -> Integers:
        """The series number of each row, (N,)."""
        return np.repeat(np.arange(len(self.series_ids)), np.diff(self.offsets))

    @cached_property
    def first_of(self) -> Integers:
        """The first row of each row's series, (N,)."""
        return self.offsets[:-1][self.series_of]

    @cached_property
    def end_of(self) -> Integers:
        """One past the last row of each row's series, (N,)."""
        return self.offsets[1:][self.series_of]

    @cached_property
    def first_truth(self) -> tuple[Floats, Integers]:
        """The target value a live run scores with, NaN where there is none, and from when on it can; both (N,).

        That is the first one that became known, or where values settle the one known when they have, if any is.
        """
        settled = self.timestamps + self.settling if self.settling else np.zeros(self.size, dtype=np.int64)
        if self.versions is None:
            return self.values[0], np.maximum(self.settled_at, settled)
        value, at = np.full(self.size, np.nan), np.zeros(self.size, dtype=np.int64)
        seen = np.flatnonzero(~np.isnan(self.versions.values[0]))
        row, known = self.versions.row[seen], self.versions.available_at[seen]
        after = np.flatnonzero(known > settled[row])[::-1]  # the first of those known later comes last, and stays
        value[row[after]], at[row[after]] = self.versions.values[0, seen[after]], known[after]
        before = np.flatnonzero(known <= settled[row])  # here the newest comes last
        value[row[before]], at[row[before]] = self.versions.values[0, seen[before]], settled[row[before]]
        return value, at

    @property
    def size(self) -> int:
        """The number of rows of all series together."""
        return len(self.timestamps)

    @property
    def last_rows(self) -> Integers:
        """The newest row of each series, (S,)."""
        return self.offsets[1:] - 1

    def rows_of(self, series_id: str) -> slice:
        """Return the rows of one series; TaskError with the nearest name where the panel has none."""
        if series_id not in self.series_ids:
            raise TaskError(
                f"one of the series {', '.join(self.series_ids)}",
                f"{series_id!r}{nearest(series_id, self.series_ids)}",
                "Name a series that has history.",
            )
        number = self.series_ids.index(series_id)
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def known(self, column: int, at: Integers, inside: Booleans, issued: Integers) -> Floats:
        """Return a column at the rows ``at`` as known at the moments ``issued``; NaN where unknown or not ``inside``.

        All arrays have one shape (n,). A row outside its series must be marked by ``inside`` (its number may then be
        any valid row).
        """
        found = np.where(inside, self.values[column, at], np.nan)
        if self.versions is not None:
            late = inside & (self.settled_at[at] > issued)
            if late.any():
                found[late] = self.versions.known(column, at[late], issued[late])
        return found

    def back(self, column: int, rows: Integers, steps: int, issued: Integers) -> Floats:
        """Return a column ``steps`` rows before the given rows (n,), as known at ``issued``."""
        at = rows - steps
        inside = at >= self.first_of[rows]
        return self.known(column, np.where(inside, at, rows), inside, issued)

    def stretch(self, column: int, rows: range, reach: int, issued: Integers) -> Floats | None:
        """Return a column from ``reach`` steps before neighbouring rows to the last of them, (reach + n,).

        Before their series begins it is NaN. None where the rows are of several series, or where one of them could not
        yet know a value of the stretch: then each is to be looked up (``back``).
        """
        number = int(np.searchsorted(self.offsets, rows.start, side="right")) - 1
        if rows.stop > self.offsets[number + 1]:
            return None
        start = max(int(self.offsets[number]), rows.start - reach)
        if self.versions is not None:
            settled = np.maximum.accumulate(self.settled_at[start : rows.stop])
            if (settled[rows.start - start :] > issued).any():
                return None
        before = np.full(reach - (rows.start - start), np.nan)
        own = self.values[column, start : rows.stop]
        return np.concatenate([before, own]) if len(before) else own

    def last_known(self, column: int, rows: Integers, issued: Integers, reach: int) -> tuple[Floats, Integers]:
        """Return the last value observed at most ``reach`` steps before each row and known at ``issued``, and its age.

        The value is NaN, and the age ``reach`` + 1, where nothing was observed within reach.
        """
        previous = self._previous_observed(column)
        first = np.maximum(self.first_of[rows], rows - reach)
        at = previous[rows]
        found = self.known(column, np.maximum(at, 0), at >= first, issued)
        while (open_ := np.isnan(found) & (at > first)).any():
            at = np.where(open_, previous[np.maximum(at - 1, 0)], at)
            found = self.known(column, np.maximum(at, 0), at >= first, issued)
        return found, np.where(np.isnan(found), reach + 1, rows - at)

    def _previous_observed(self, column: int) -> Integers:
        """Return, for each row, the newest row at or before it in its series that ever had a value, or -1."""
        cache: dict[int, Integers] = self.__dict__.setdefault("_observed", {})
        if column not in cache:
            observed = ~np.isnan(self.values[column])
            if self.versions is not None:
                observed |= self.versions.ever_observed(column, self.size)
            newest = np.maximum.accumulate(np.where(observed, np.arange(self.size), -1))
            cache[column] = np.where(newest >= self.first_of, newest, -1)
        return cache[column]


def build_panel(
    versions: pl.DataFrame,
    task: Task,
    until: datetime | None = None,
    columns: tuple[str, ...] | None = None,
    ahead: pl.DataFrame | None = None,
) -> Panel:
    """Put observation versions (see ``frame``) on the task's grid.

    Give every version known at a moment (``History.versions(as_of=…)``). A timestamp inside a step counts for that
    step; the last of several is the newest version. On the regular grid every series reaches from its first row to
    ``until`` (default: its own last row), missing steps being NaN. ``columns`` (the target first) are the task's unless
    a model's own are asked for; ``ahead`` are forecasts of covariates (see ``data.ahead``). Raises NotEnoughHistory
    where there is no row.
    """
    if versions.is_empty():
        raise NotEnoughHistory(
            f"observations of task {task.name!r}", "none", "Collect some first: forecastle ingest --task FILE"
        )
    columns = columns or (task.target, *task.covariates)
    table = _in_order(
        versions.select(
            SERIES,
            pl.col(TIMESTAMP).dt.epoch("us").alias("at"),
            pl.col(AVAILABLE_AT).dt.epoch("us").alias("available"),
            pl.col(COLLECTED_AT).dt.epoch("us").alias("collected"),
            *(pl.col(name).fill_null(float("nan")) for name in columns),
        )
    )
    series = table[SERIES].rle().struct.unnest()
    grid = _regular if task.grid == "regular" else _observed
    ids = tuple(series["value"])
    panel = _laid_out(table, task, columns, ids, *grid(table["at"].to_numpy(), _ends(series["len"]), task, until))
    return panel if ahead is None else replace(panel, ahead=_ahead(ahead, ids, panel.step))


def _ahead(issued: pl.DataFrame, series_ids: tuple[str, ...], step: int) -> Ahead | None:
    """Lay forecasts, as observations of what was said when, by series, time and issue; None where there are none."""
    rows = issued.filter(pl.col(SERIES).is_in(series_ids))
    if rows.is_empty():
        return None
    columns = tuple(name for name in rows.columns if name not in BITEMPORAL)
    numbers = {name: number for number, name in enumerate(series_ids)}
    series = rows[SERIES].replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    times, known = (rows[name].dt.epoch("us").to_numpy() for name in (TIMESTAMP, AVAILABLE_AT))
    steps = times // step
    first, span = int(steps.min()), int(steps.max() - steps.min()) + 1
    row = series * span + steps - first
    values = np.vstack([rows[name].fill_null(float("nan")).to_numpy() for name in columns])
    order = np.lexsort((*values, times, known, row))  # of what was issued at once of one time, the greatest
    return Ahead(columns, first * step, step, span, Versions(row[order], known[order], values[:, order]))


def bars_a_day(panel: Panel, task: Task) -> int:
    """Return the season in steps where the task names none: the steps of a day, or the usual bars of a trading day."""
    if task.grid == "regular":
        return max(1, DAY // task.frequency)
    times = pl.from_epoch(pl.Series("day", panel.timestamps), time_unit="us").dt.replace_time_zone("UTC")
    days = pl.DataFrame({"series": panel.series_of, "day": times.dt.convert_time_zone(task.timezone).dt.date()})
    counts = days.group_by("series", "day").len()["len"].to_numpy()
    return max(1, int(np.median(counts)))


def _in_order(table: pl.DataFrame) -> pl.DataFrame:
    """Return rows in the order of series, time, and when they became known and were collected; mostly they are."""
    series = table[SERIES].rle().struct.unnest()
    ids, starts = list(series["value"]), _ends(series["len"])[:-1]
    later, same = np.zeros(table.height, dtype=bool), np.ones(table.height, dtype=bool)
    later[starts] = True
    for name in ("at", "available", "collected"):
        times = table[name].to_numpy()
        later[1:] |= same[1:] & (times[1:] > times[:-1])
        if later.all():
            break
        same[1:] &= times[1:] == times[:-1]
    if (later | same).all() and all(one < other for one, other in pairwise(ids)):
        return table
    return table.sort(SERIES, "at", "available", "collected")


def _ends(lengths: pl.Series) -> Integers:
    """Return where parts of these lengths begin and end, one after the other: (S + 1,), from 0."""
    return np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])


Grid = tuple[Integers, Integers, Integers | None]  # offsets, timestamps, and the row of each version; None: its own


def _regular(at: Integers, ends: Integers, task: Task, until: datetime | None) -> Grid:
    """Return the grid on which every series has all its steps up to the last, or ``until``."""
    step = task.frequency // _MICROSECOND
    first, last = (at[place] - at[place] % step for place in (ends[:-1], ends[1:] - 1))
    if until is not None:
        last = np.maximum(last, micros(until) - micros(until) % step)
    offsets = np.concatenate([[0], np.cumsum((last - first) // step + 1)])
    if np.array_equal(offsets, ends) and np.array_equal(first, at[ends[:-1]]):
        missed = at[1:] - at[:-1] != step
        missed[ends[1:-1] - 1] = False  # the step from one series to the next
        if not missed.any():
            return offsets, at, None
    series = np.repeat(np.arange(len(first)), np.diff(ends))
    row = (at - first[series]) // step + offsets[series]
    number = np.repeat(np.arange(len(first)), np.diff(offsets))
    return offsets, first[number] + (np.arange(offsets[-1]) - offsets[number]) * step, row


def _observed(at: Integers, ends: Integers, task: Task, until: datetime | None) -> Grid:
    """Return the grid whose steps are the bars that were seen."""
    fresh = np.concatenate([[True], at[1:] != at[:-1]])
    fresh[ends[:-1]] = True
    if fresh.all():
        return ends, at, None
    row = np.cumsum(fresh) - 1
    timestamps = at[fresh]
    return np.concatenate([row[ends[:-1]], [len(timestamps)]]), timestamps, row


def _laid_out(
    table: pl.DataFrame,
    task: Task,
    columns: tuple[str, ...],
    series_ids: tuple[str, ...],
    offsets: Integers,
    timestamps: Integers,
    row: Integers | None,
) -> Panel:
    """Lay the versions into the grid: the newest on top, and all of them beside it where it matters which was known."""
    available, step = table["available"].to_numpy(), task.frequency // _MICROSECOND
    settling = task.settled_after // _MICROSECOND
    if row is None:  # a version each row, and each where it is
        single = [table[name].to_numpy() for name in columns]
        values = np.vstack(single) if len(single) > 1 else single[0][None]
        panel = Panel(series_ids, offsets, timestamps, available, columns, values, available, step, settling=settling)
        return panel if _in_time(panel) else replace(panel, versions=Versions(np.arange(panel.size), available, values))
    matrix = np.vstack([table[name].to_numpy() for name in columns])
    if not (row[1:] > row[:-1]).all():
        order = np.lexsort((table["collected"].to_numpy(), table["at"].to_numpy(), available, row))
        row, available, matrix = row[order], available[order], matrix[:, order]
    first = np.concatenate([[True], row[1:] != row[:-1]])
    newest = np.concatenate([row[1:] != row[:-1], [True]])
    values = np.full((len(columns), len(timestamps)), np.nan)
    values[:, row[newest]] = matrix[:, newest]
    settled_at = np.zeros(len(timestamps), dtype=np.int64)
    settled_at[row[newest]] = available[newest]
    issued_at = timestamps + (task.knowable_after + task.source.publication_delay) // _MICROSECOND
    issued_at[row[first]] = available[first]
    step = task.frequency // _MICROSECOND
    panel = Panel(series_ids, offsets, timestamps, issued_at, columns, values, settled_at, step, settling=settling)
    if _in_time(panel):
        return panel
    return replace(panel, versions=Versions(row, available, matrix))


def _in_time(panel: Panel) -> bool:
    """Tell whether every cell's newest version was known whenever a forecast was made from its row or a later one."""
    later = np.diff(panel.issued_at) >= 0
    later[panel.offsets[1:-1] - 1] = True  # the step from one series to the next
    return bool((panel.settled_at <= panel.issued_at).all() and later.all())
