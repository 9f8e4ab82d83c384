"""What the rows of a block can see: values back in time, seasons before, and the calendar.

Neighbouring rows of one series look back along one stretch of values, of which every lag is a view; any other rows look
each value up. Both see the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.clock import public_holidays, stands_still, utc_offsets
from forecastle.data.panel import Floats, Integers, Panel
from forecastle.data.recipe import Recipe

BLOCK = 16_384  # rows computed at a time: their windows stay in the processor's cache

_MINUTE = 60_000_000
_DAY = 86_400_000_000
_YEAR = 365.25  # days


class Window:
    """What the rows of one block can see: values back in time, and the calendar of their target time."""

    def __init__(
        self,
        recipe: Recipe,
        panel: Panel,
        rows: Integers,
        issued: Integers,
        horizon: int,
        almanac: Almanac | None = None,
    ) -> None:
        self.recipe, self.panel, self.rows, self.issued, self.horizon = recipe, panel, rows, issued, horizon
        self._almanac = almanac
        self._back: dict[tuple[int, int], Floats] = {}
        self._stretches: dict[int, Stretch | None] = {}

    def back(self, steps: int, column: int = 0) -> Floats:
        """Return a column so many steps before the origin, (n,)."""
        stretch = self._stretch(column)
        if stretch is not None and steps <= self.recipe.reach:
            return stretch.back(stretch.values, steps)
        key = (column, steps)
        if key not in self._back:
            self._back[key] = self.panel.back(column, self.rows, steps, self.issued)
        return self._back[key]

    def newest(self, width: int, column: int = 0) -> tuple[list[Floats], list[Integers]]:
        """Return the newest values, zero for those missing, from the origin's own back; and where they are missing."""
        stretch = self._stretch(column)
        if stretch is None:
            return filled([self.back(steps, column) for steps in range(width)])
        return (
            [stretch.back(stretch.filled, steps) for steps in range(width)],
            [stretch.missing(steps) for steps in range(width)],
        )

    def _stretch(self, column: int) -> Stretch | None:
        """Return a column as one stretch of time that all rows look back along; None where they have none in common."""
        if column not in self._stretches:
            first, size, reach = int(self.rows[0]) if len(self.rows) else 0, len(self.rows), self.recipe.reach
            found = None
            if size and np.array_equal(self.rows, np.arange(first, first + size)):
                found = self.panel.stretch(column, range(first, first + size), reach, self.issued)
            self._stretches[column] = None if found is None else Stretch(found, size)
        return self._stretches[column]

    @cached_property
    def last(self) -> tuple[Floats, Integers]:
        """The last value known within reach, and its age in steps."""
        return self.panel.last_known(0, self.rows, self.issued, self.recipe.reach)

    @cached_property
    def nearest_season(self) -> int:
        """How many seasons before the target's time the newest one lies that can be known at the origin."""
        return max(1, -(-self.horizon // self.recipe.season))

    def season_before(self, seasons: int, column: int = 0, ahead: int | None = None) -> Floats:
        """Return a column so many seasons before the target's time, by the local clock; NaN where not known yet.

        ``ahead`` moves the time looked back from: 0 is the origin's own.
        """
        steps = self.horizon if ahead is None else ahead
        back = seasons * self.recipe.season - steps
        if self.recipe.grid != "regular" or self.recipe.season * self.panel.step % _DAY or self._clock_stands_still:
            return self.back(back, column)
        moved = self._clock_moved(steps, back)
        rows = np.flatnonzero(moved)
        if not len(rows):
            return self.back(back, column)
        found = self.back(back, column).copy()
        at = self.rows[rows] - back + moved[rows]
        inside = (at >= self.panel.first_of[self.rows[rows]]) & (at <= self.rows[rows])
        found[rows] = self.panel.known(column, np.where(inside, at, self.rows[rows]), inside, self.issued[rows])
        return found

    def ahead(self, name: str) -> Floats:
        """Return what was forecast of a covariate for the target's time, by when the origin's forecast was issued; NaN
        where nothing was."""
        if self.panel.ahead is None:
            return np.full(len(self.rows), np.nan)
        times = self.panel.timestamps[self.rows] + self.horizon * self.panel.step
        return self.panel.ahead.known(name, self.panel.series_of[self.rows], times, self.issued)

    def calendar(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield names and values of the calendar at the target's time.

        On the observed grid, where the time of a bar to come is not known, at that of the origin.
        """
        ahead = self.horizon * self.panel.step if self.recipe.grid == "regular" else 0
        here = self.panel.timestamps[self.rows] + ahead
        if self._almanac is None:
            yield from calendar_at(self.recipe, here)
        else:
            yield from self._almanac.of(here)

    def _clock_moved(self, ahead: int, back: int) -> Integers:
        """Return how many steps the local clock moved between so many steps back and a time ahead, for each row."""
        step, size = self.panel.step, len(self.rows)
        if self._stretch(0) is None:
            here = self.panel.timestamps[self.rows] + ahead * step
            there = self.panel.timestamps[self.rows] - back * step
            zone = self.recipe.timezone
            return (utc_offsets(here, zone) - utc_offsets(there, zone)) // step
        origin = self.recipe.reach
        moved = self._offsets[origin + ahead :][:size] - self._offsets[origin - back :][:size]
        return moved // step if moved.any() else moved

    @cached_property
    def _clock_stands_still(self) -> bool:
        """Whether no row looks across a change of the local clock, as far back as features look or ahead."""
        if not len(self.rows):
            return True
        times, step = self.panel.timestamps[self.rows], self.panel.step
        first, last = int(times.min()) - self.recipe.reach * step, int(times.max()) + self.horizon * step
        return stands_still(first, last, self.recipe.timezone)

    @cached_property
    def _offsets(self) -> Integers:
        """The local clock's offset at every step of a stretch, from as far back as features look to the target's."""
        first, step = int(self.panel.timestamps[self.rows[0]]), self.panel.step
        steps = np.arange(-self.recipe.reach, len(self.rows) + self.horizon)
        return utc_offsets(first + steps * step, self.recipe.timezone)


@dataclass(frozen=True)
class Stretch:
    """A column along a stretch of time whose last n rows are asked for: what came before them is a view away."""

    values: Floats  # (reach + n,), NaN = missing
    size: int  # n

    @cached_property
    def filled(self) -> Floats:
        """The values, zero for those missing."""
        return np.where(np.isnan(self.values), 0.0, self.values) if len(self._missing) else self.values

    def back(self, values: Floats, steps: int) -> Floats:
        """Return what lies so many steps before each row, (n,)."""
        last = len(values) - steps
        return values[last - self.size : last]

    def missing(self, steps: int) -> Integers:
        """Return the rows that miss their value so many steps before."""
        first = len(self.values) - self.size - steps
        between = np.searchsorted(self._missing, (first, first + self.size))
        return self._missing[slice(*between)] - first

    @cached_property
    def _missing(self) -> Integers:
        return np.flatnonzero(np.isnan(self.values))


@dataclass(frozen=True)
class Almanac:
    """The calendar of every step of a span, computed once and looked up for each series that is there then."""

    first: int  # microseconds
    step: int
    columns: tuple[tuple[str, npt.NDArray[np.float32]], ...]

    def of(self, times: Integers) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Yield names and values of the calendar at times of the span."""
        place = (times - self.first) // self.step
        for name, values in self.columns:
            yield name, values[place]


def make_almanac(recipe: Recipe, panel: Panel, rows: Integers, horizon: int) -> Almanac | None:
    """Return the calendar of all targets' times; None where to look it up is no less work than to compute it."""
    if recipe.grid != "regular" or len(rows) <= BLOCK:
        return None
    times = panel.timestamps[rows]
    first, last = int(times.min()) + horizon * panel.step, int(times.max()) + horizon * panel.step
    if (last - first) // panel.step > len(rows) // 2:
        return None
    found = calendar_at(recipe, np.arange(first, last + 1, panel.step))
    return Almanac(first, panel.step, tuple((name, values.astype(np.float32)) for name, values in found))


def blocks(panel: Panel, rows: Integers) -> Iterator[slice]:
    """Yield the rows to compute at a time, of one series where that makes a block worth its while."""
    start = 0
    while True:
        stop = min(start + BLOCK, len(rows))
        if start < len(rows):
            end = panel.offsets[np.searchsorted(panel.offsets, rows[start], side="right")]
            within = start + int(end - rows[start])  # where its series ends, if rows are neighbours
            if start + BLOCK // 8 <= within < stop and rows[within - 1] == end - 1:
                stop = within
        yield slice(start, stop)
        if stop >= len(rows):
            return
        start = stop


def filled(values: list[Floats]) -> tuple[list[Floats], list[Integers]]:
    """Return values with zero for those missing, and where they were missing."""
    missing = [np.flatnonzero(np.isnan(value)) for value in values]
    filled = [value.copy() if len(lacking) else value for value, lacking in zip(values, missing, strict=True)]
    for value, lacking in zip(filled, missing, strict=True):
        if len(lacking):
            value[lacking] = 0.0
    return filled, missing


def calendar_at(recipe: Recipe, times: Integers) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield names and values of the calendar at times (UTC), by the local clock.

    Sine and cosine are rounded to six decimals: sin(pi) would be 1.2e-16 and split from sin(0) = 0.
    """
    local = times + utc_offsets(times, recipe.timezone)
    day = local // _DAY
    yield "minute", (local - day * _DAY) // _MINUTE
    yield "weekday", (day + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    turn = 2 * np.pi * (day % _YEAR) / _YEAR
    yield "year_sin", np.round(np.sin(turn), 6)
    yield "year_cos", np.round(np.cos(turn), 6)
    if recipe.holidays:
        yield "holiday", public_holidays(day, recipe.holidays)
