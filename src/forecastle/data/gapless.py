"""The features of one moment where nothing that is counted or summed is missing: the usual case, and a short way.

It is the third path to what ``transformation`` defines. What ``present`` works out step by step, gaps and all, is here
one look-up by places laid out once for an origin: windows and what is computed of them lie beside each other on a
sheet, and every feature of every step ahead is a place on it. The parity law holds it to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from forecastle.data.panel import Booleans, Floats, Integers
from forecastle.data.present import MOST_ORIGINS, PARTS, Places, Present
from forecastle.data.recipe import COVARIATE_LAGS, COVARIATE_WINDOWS, PROFILE_SEASONS
from forecastle.data.transformation import Matrix

_ENDS = np.array(COVARIATE_WINDOWS) - 1
_COUNTS = np.array(COVARIATE_WINDOWS, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a model is asked with of n series at one origin; where a series is not ``whole``, its rows mean nothing."""

    matrix: Matrix  # (n, H, F + G + 1): its features, and the step ahead last
    last: Floats  # (n,)
    seasonal: Floats  # (n, H)
    whole: Booleans  # (n,)


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where on the sheet everything of an origin lies."""

    matrix: Integers  # (H · (F + G + 1),)
    usual: Integers  # (2 · H · PROFILE_SEASONS,): what profiles are means of, those of the target's times first
    above: Integers  # what differences are taken of
    below: Integers  # and what is taken away from it
    seasonal: Integers  # (H,)
    fixed: Floats  # what only depends on the time


class Gapless:
    """Compute the rows of series at a common origin, by a recipe on the regular grid."""

    def __init__(self, present: Present) -> None:
        self._present, recipe = present, present.recipe
        self._shape = len(recipe.columns), present.width
        self._windows = np.array(recipe.windows)
        self._reach = max(recipe.windows)
        self._counts = self._windows.astype(np.float64)
        self._fewer = self._counts - 1
        self._each = np.arange(len(recipe.windows))
        steps, widths, kinds = recipe.steps, len(recipe.windows), len(recipe.columns) - 1
        sums = widths, widths, widths, kinds * len(COVARIATE_WINDOWS), 2 * steps  # what is missing shows in one of them
        others = widths, len(present.changes) + 2 * steps, steps, 1, 1 + steps * (present.calendar_size + 1)
        places = _laid(self._shape[0] * self._shape[1] + 1, *sums, *others)
        self._means, self._least, self._most, self._covariates, self._profiles = (next(places) for _ in sums)
        self._deviations, self._differences, self._against, self._number, self._fixed = places
        self._summed, self._size = slice(self._means.start, self._profiles.stop), self._fixed.stop
        self._plans: dict[int, tuple[Places, _Plan]] = {}

    def numbers(self, series_ids: Sequence[str]) -> Floats:
        """Return the number of each series in the recipe, (n,); NaN for one the model has not seen."""
        known = self._present.series
        return np.array([known.get(one, np.nan) for one in series_ids])

    def rows(self, windows: Floats, numbers: Floats, origin: int) -> Rows:
        """Return the rows of series at an origin, from their windows (n, C, reach + 1), the newest first, and
        numbers."""
        plan, size = self._plan(origin), len(windows)
        sheet = np.empty((size, self._size))
        nowhere = self._means.start - 1
        sheet[:, :nowhere] = windows.reshape(size, -1)
        sheet[:, nowhere] = np.nan
        sheet[:, self._number.start] = numbers
        sheet[:, self._fixed] = plan.fixed
        self._fill_windows(sheet, windows)
        usual = sheet.take(plan.usual, axis=1).reshape(size, -1, PROFILE_SEASONS)
        profiles = (np.add.accumulate(usual, axis=2)[..., -1] + 0.0) / PROFILE_SEASONS
        sheet[:, self._profiles] = profiles
        steps = self._present.recipe.steps
        np.subtract(profiles[:, :steps], profiles[:, steps:], out=sheet[:, self._against])
        np.subtract(sheet.take(plan.above, axis=1), sheet.take(plan.below, axis=1), out=sheet[:, self._differences])
        total = sheet[:, self._summed].sum(axis=1)
        return Rows(
            matrix=sheet.take(plan.matrix, axis=1).astype(np.float32).reshape(size, steps, -1),
            last=sheet[:, 0],
            seasonal=sheet.take(plan.seasonal, axis=1),
            whole=total - total == 0,  # neither missing nor infinite
        )

    def _fill_windows(self, sheet: Floats, windows: Floats) -> None:
        """Fill in what is computed of the newest values, each window from its own, the newest first."""
        ends = self._windows - 1
        target = windows[:, 0, : self._reach]
        means = (np.add.accumulate(target, axis=1)[:, ends] + 0.0) / self._counts
        sheet[:, self._means] = means
        sheet[:, self._least] = np.minimum.accumulate(target, axis=1)[:, ends] + 0.0
        sheet[:, self._most] = np.maximum.accumulate(target, axis=1)[:, ends] + 0.0
        squares = target[:, None] - means[..., None]
        squares *= squares
        sums = np.add.accumulate(squares, axis=2)[:, self._each, ends]
        np.sqrt(sums / self._fewer, out=sheet[:, self._deviations])
        if self._covariates.start < self._covariates.stop:
            newest = windows[:, 1:, : _ENDS[-1] + 1]
            found = (np.add.accumulate(newest, axis=2)[..., _ENDS] + 0.0) / _COUNTS
            sheet[:, self._covariates] = found.reshape(len(sheet), -1)

    def _plan(self, origin: int) -> _Plan:
        """Return the plan of an origin, made again where its places were."""
        places, known = self._present.places(origin), self._plans.get(origin)
        if known is None or known[0] is not places:
            if len(self._plans) > MOST_ORIGINS:
                self._plans.clear()
            known = self._plans[origin] = places, self._lay(places)
        return known[1]

    def _lay(self, places: Places) -> _Plan:
        recipe, present = self._present.recipe, self._present
        steps, kinds = recipe.steps, len(recipe.columns) - 1
        lags, back, covariate_lags, seasons = (places.gathered[part] for part in present.parts)
        straight, past, past_here, before, covariates = (seasons.reshape(steps, -1)[:, part] for part in PARTS)
        changed, fixed, number = self._differences.start + len(back), self._fixed.start, self._number.start
        at_origin = [
            *lags.tolist(),
            *np.column_stack([_range(one) for one in self._rolling]).ravel().tolist(),
            *(0, fixed, *range(self._differences.start, changed)),
        ]
        shape = kinds, len(COVARIATE_LAGS)
        means = np.reshape(_range(self._covariates), (kinds, len(COVARIATE_WINDOWS)))
        at_origin += np.hstack([covariate_lags.reshape(shape), means]).ravel().tolist() + [number]
        rows, width = [], present.calendar_size + 1
        for step in range(steps):
            told = range(fixed + 1 + step * width, fixed + 1 + (step + 1) * width)
            profile = (self._profiles.start + step, self._against.start + step)
            row = [*at_origin, *told[:-1], *straight[step].tolist(), *profile, changed + step, changed + steps + step]
            rows += [*row, *covariates[step].tolist(), told[-1]]
        ahead = np.arange(1, steps + 1, dtype=np.float64)[:, None]
        return _Plan(
            matrix=np.array(rows),
            usual=np.concatenate([past[:, :PROFILE_SEASONS].ravel(), past_here.ravel()]),
            above=np.concatenate([np.zeros(len(back), dtype=np.int64), straight[:, 0], straight[:, 2]]),
            below=np.concatenate([back, before[:, 0], before[:, 1]]),
            seasonal=past[:, 0],
            fixed=np.concatenate([[0.0], np.hstack([places.calendar, ahead]).ravel()]),
        )

    @property
    def _rolling(self) -> tuple[slice, ...]:
        return self._means, self._deviations, self._least, self._most


def _laid(start: int, *lengths: int) -> Iterator[slice]:
    """Yield places of these lengths, one after the other."""
    for length in lengths:
        yield slice(start, start + length)
        start += length


def _range(part: slice) -> Integers:
    return np.arange(part.start, part.stop)
