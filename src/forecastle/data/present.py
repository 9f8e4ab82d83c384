"""The features of one moment: those of any number of series at a common origin, from dense windows of what is known.

It is the second path to what ``transformation`` defines, and answers a request in a fraction of a millisecond: what
every row looks up is gathered at once, by places worked out once for an origin, and sums run in the same order. The
parity law holds both paths to the same bits. It knows the features listed here and the regular grid; where a model was
trained with others (``Present.names`` differ from its own) only the first path will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecastle.data.clock import utc_offsets
from forecastle.data.examples import Examples
from forecastle.data.panel import Floats, Integers
from forecastle.data.recipe import COVARIATE_LAGS, COVARIATE_WINDOWS, PROFILE_SEASONS, SEASONS, Recipe
from forecastle.data.window import calendar_at

MOST_ORIGINS = 64  # whose places are remembered

_DAY = 86_400_000_000


@dataclass(frozen=True)
class Places:
    """Where an origin's features lie: numbers into a series' flat window, and what only depends on the time."""

    gathered: Integers  # of one look-up for everything
    calendar: npt.NDArray[np.float32]  # (H, K)
    times: Integers  # (H,)
    told: tuple[int, ...]  # the same as Python's numbers


class Present:
    """Compute the examples of series at a common origin, by one recipe.

    A window is (C, reach + 1) numbers of a series: the recipe's columns at the origin and before it, the newest first,
    NaN where nothing is known.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.width = recipe.reach + 1
        self.series = {name: float(number) for number, name in enumerate(recipe.series_ids)}
        self.changes = tuple(dict.fromkeys((1, 3, recipe.season)))
        self.calendar_size = 5 if recipe.holidays else 4
        self._moving = recipe.timezone != "UTC" and recipe.season * recipe.step % _DAY == 0
        self._ahead = np.arange(recipe.steps)[:, None]
        self._known: dict[int, Places] = {}
        covariates = recipe.columns[1:]
        self.parts = _slices(len(recipe.lags), len(self.changes), len(covariates) * len(COVARIATE_LAGS))
        self._ends = np.array(recipe.windows) - 1
        self._beyond = np.arange(max(recipe.windows)) > self._ends[:, None]
        self.origin_names = (
            *(f"lag_{lag}" for lag in recipe.lags),
            *(f"{what}_{width}" for width in recipe.windows for what in ("mean", "std", "min", "max")),
            *("last", "age", *(f"change_{steps}" for steps in self.changes)),
            *(
                f"{name}_{what}_{number}"
                for name in covariates
                for what, numbers in (("lag", COVARIATE_LAGS), ("mean", COVARIATE_WINDOWS))
                for number in numbers
            ),
            "series",
        )
        self.step_names = (
            *("minute", "weekday", "year_sin", "year_cos", *(("holiday",) if recipe.holidays else ())),
            *("season_1", "season_2", "season_week", "season_two_weeks"),
            *("profile", "profile_change", "season_change", "week_change"),
            *(f"{name}_season_{span}" for name in covariates for span in ("1", "week")),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, as ``Examples.names``; none where the grid is not the regular one."""
        return (*self.origin_names, *self.step_names) if self.recipe.grid == "regular" else ()

    def examples(self, series_ids: Sequence[str], windows: Floats, origin: int, now: int) -> Examples:
        """Return the examples of series (n) at an origin, microseconds, from their windows (n, C, reach + 1).

        All that the windows hold counts as known ``now`` (microseconds); there are no truths.
        """
        recipe, size, steps = self.recipe, len(series_ids), self.recipe.steps
        places = self.places(origin)
        flat = np.empty((size, windows[0].size + 1))
        flat[:, :-1] = windows.reshape(size, -1)
        flat[:, -1] = np.nan  # what lies nowhere
        looked_up = flat[:, places.gathered]
        last, age = self._last(windows)
        lags, back, covariate_lags, seasons = (looked_up[:, part] for part in self.parts)
        numbers = [self.series.get(name, np.nan) for name in series_ids]
        at_origin = np.empty((size, len(self.origin_names)), dtype=np.float32)
        self._fill_origin(at_origin, windows, lags, back, covariate_lags, last, age)
        at_origin[:, -1] = numbers
        at_step = np.empty((steps, size, len(self.step_names)), dtype=np.float32)
        seasonal = self._fill_steps(at_step, seasons.reshape(size, steps, -1), places, last)
        nothing = np.full((size, steps), np.nan)
        return Examples(
            recipe=recipe,
            series_ids=tuple(series_ids),
            series=np.arange(size),
            origins=np.full(size, origin),
            issued_at=np.full(size, now),
            origin=at_origin,
            step=at_step,
            times=np.repeat(places.times[None], size, axis=0),
            last=last,
            seasonal=seasonal,
            truth=nothing,
            outcome=nothing,
            outcome_at=np.zeros((size, steps), dtype=np.int64),
            origin_names=self.origin_names,
            step_names=self.step_names,
        )

    def _last(self, windows: Floats) -> tuple[Floats, Integers]:
        """Return the last value known of each series, and its age in steps."""
        there = windows[:, 0] == windows[:, 0]
        age = there.argmax(axis=1)
        rows = np.arange(len(windows))
        last = windows[rows, 0, age]  # NaN where there is none
        return last, np.where(there[rows, age], age, self.width)

    def _fill_origin(
        self,
        found: npt.NDArray[np.float32],
        windows: Floats,
        lags: Floats,
        back: Floats,
        covariate_lags: Floats,
        last: Floats,
        age: Integers,
    ) -> None:
        place, widths = lags.shape[1], self.recipe.windows
        found[:, :place] = lags
        target = windows[:, 0, : max(widths)]
        absent = np.isnan(target)
        whole = np.where(absent, 0.0, target)
        means, counts = _means(whole, absent, self._ends)
        squares = whole[:, None] - means[..., None]
        squares *= squares
        np.copyto(squares, 0.0, where=absent[:, None] | self._beyond)
        deviations = np.sqrt(_divided(np.add.accumulate(squares, axis=2)[..., -1], counts - 1))
        least, most = np.fmin.accumulate(target, axis=1) + 0.0, np.fmax.accumulate(target, axis=1) + 0.0
        after = place + 4 * len(widths)
        for values in (means, deviations, least[:, self._ends], most[:, self._ends]):
            found[:, place:after:4] = values
            place += 1
        place = after
        found[:, place], found[:, place + 1] = last, age
        found[:, place + 2 : place + 2 + len(self.changes)] = last[:, None] - back
        place += 2 + len(self.changes)
        kinds = len(self.recipe.columns) - 1
        if not kinds:
            return
        newest = windows[:, 1:, : max(COVARIATE_WINDOWS)]
        absent = np.isnan(newest)
        means, _ = _means(np.where(absent, 0.0, newest), absent, _COVARIATE_ENDS)
        each = np.concatenate([covariate_lags.reshape(len(found), kinds, -1), means], axis=2)
        found[:, place:-1] = each.reshape(len(found), -1)

    def _fill_steps(self, found: npt.NDArray[np.float32], looked_up: Floats, places: Places, last: Floats) -> Floats:
        """Fill in the features of every step ahead; return what the seasonal naive method forecasts, (n, H)."""
        place = places.calendar.shape[1]
        found[:, :, :place] = places.calendar[:, None]
        by_step = looked_up.transpose(1, 0, 2)  # (H, n, …)
        straight, past, past_here, before, covariates = (by_step[..., part] for part in PARTS)
        profile, profile_here = _mean(past[..., :PROFILE_SEASONS]), _mean(past_here)
        found[:, :, place : place + 4] = straight[..., :4]
        found[:, :, place + 4] = profile
        found[:, :, place + 5] = profile - profile_here
        found[:, :, place + 6] = straight[..., 0] - before[..., 0]
        found[:, :, place + 7] = straight[..., 2] - before[..., 1]
        found[:, :, place + 8 :] = covariates
        there = past == past
        first = there.argmax(axis=2)
        chosen = past[self._ahead, np.arange(past.shape[1]), first]
        seasonal: Floats = np.where(np.isnan(chosen), last, chosen).T
        return seasonal

    def places(self, origin: int) -> Places:
        """Return where an origin's features lie; the places of some origins are remembered."""
        found = self._known.get(origin)
        if found is None:
            found = self._find_places(origin)
            if len(self._known) >= MOST_ORIGINS:
                self._known.clear()
            self._known[origin] = found
        return found

    def _find_places(self, origin: int) -> Places:
        recipe, columns = self.recipe, len(self.recipe.columns)
        nowhere = columns * self.width

        def at(back: int, column: int = 0) -> int:
            return column * self.width + back if 0 <= back <= recipe.reach else nowhere

        def season(seasons: int, ahead: int, column: int = 0) -> int:
            back = seasons * recipe.season - ahead
            return at(back - self._moved(origin, ahead, back), column)

        gathered = [at(lag) for lag in recipe.lags] + [at(steps) for steps in self.changes]
        gathered += [at(lag, column) for column in range(1, columns) for lag in COVARIATE_LAGS]
        for ahead in range(1, recipe.steps + 1):
            first = max(1, -(-ahead // recipe.season))
            week = max(first, recipe.week)
            straight = (first, first + 1, week, max(first, 2 * recipe.week))
            gathered += [season(one, ahead) for one in straight]
            gathered += [season(one, ahead) for one in range(first, first + SEASONS)]
            gathered += [season(one, 0) for one in range(first, first + PROFILE_SEASONS)]
            gathered += [season(first, 0), season(week, 0)]
            gathered += [season(one, ahead, column) for column in range(1, columns) for one in (first, week)]
        times = origin + np.arange(1, recipe.steps + 1) * recipe.step
        calendar = np.column_stack([values.astype(np.float32) for _, values in calendar_at(recipe, times)])
        return Places(np.array(gathered), calendar, times, tuple(times.tolist()))

    def _moved(self, origin: int, ahead: int, back: int) -> int:
        """Return by how many steps the local clock moved between the time looked back at and the one looked from."""
        if not self._moving:
            return 0
        moments = np.array([origin + ahead * self.recipe.step, origin - back * self.recipe.step])
        here, there = utc_offsets(moments, self.recipe.timezone)
        return int((here - there) // self.recipe.step)


def _slices(*lengths: int) -> tuple[slice, ...]:
    """Return the slices of parts of these lengths, one after the other, and of what comes after them."""
    ends = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    return (*map(slice, ends, ends[1:]), slice(ends[-1], None))


PARTS = _slices(4, SEASONS, PROFILE_SEASONS, 2)  # of what a step ahead looks up; its covariates come last
_COVARIATE_ENDS = np.array(COVARIATE_WINDOWS) - 1
_SEVENTH = np.array([PROFILE_SEASONS - 1])


def _means(whole: Floats, absent: npt.NDArray[np.bool_], ends: Integers) -> tuple[Floats, Floats]:
    """Return the means over the newest values up to these places, absent ones being zero, and how many are there."""
    totals = np.add.accumulate(whole, axis=-1)[..., ends] + 0.0  # one by one, from the newest; no sum is -0.0
    lacking: Floats = np.add.accumulate(absent, axis=-1, dtype=np.float64)[..., ends]
    counts: Floats = (ends + 1).astype(np.float64) - lacking
    return _divided(totals, counts), counts


def _mean(values: Floats) -> Floats:
    """Return the mean over the values present along the last axis, in their order; NaN where none is."""
    absent = np.isnan(values)
    return _means(np.where(absent, 0.0, values), absent, _SEVENTH)[0][..., 0]


def _divided(above: Floats, below: Floats) -> Floats:
    quotient = np.empty(above.shape)
    quotient.fill(np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
