"""The one definition of every feature and target, for training, back-tests and serving alike.

A feature is computed for a row (the origin) from the values known at its ``issued_at``, element by element in a fixed
order, so that one row served alone has the same bits as the same row among a million (the parity law); library rolling
functions with running sums would not. Features are float32: an engine that casts to float32 sees the same numbers.

Origin features depend on the origin alone, step features on the target's time too (its calendar, the season before it).
To add one: write a function with the signature of its family and name it in ``ORIGIN_FEATURES`` or ``STEP_FEATURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.clock import public_holidays, utc_offsets
from forecastle.data.panel import Booleans, Floats, Integers, Panel, bars_a_day
from forecastle.task import Task

Matrix = npt.NDArray[np.float32]

DEFAULT_LAGS = tuple(range(24))
COVARIATE_LAGS = (0, 1, 2, 3, 6, 12)
COVARIATE_WINDOWS = (6, 24)
PROFILE_SEASONS = 7  # how many seasons the usual course of the day is the mean of
SEASONS = 8  # how many seasons back the seasonal naive method looks for a value
BLOCK = 16_384  # rows computed at a time: their windows stay in the processor's cache

_MINUTE = 60_000_000
_DAY = 86_400_000_000
_YEAR = 365.25  # days


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the features of a row are; stored with the model, so that serving repeats it."""

    columns: tuple[str, ...]  # the target first
    series_ids: tuple[str, ...]  # what the series number of a row refers to
    lags: tuple[int, ...]
    windows: tuple[int, ...]
    season: int
    steps: int
    timezone: str
    grid: str
    holidays: str | None
    step: int  # microseconds

    @property
    def week(self) -> int:
        """How many seasons make a week: seven days, five trading days, or one season where it is no shorter."""
        if self.grid == "observed":
            return 5
        return max(1, int(7 * _DAY // (self.season * self.step)))

    @property
    def reach(self) -> int:
        """How many steps before an origin its features may look back, at most."""
        seasons = max(SEASONS, PROFILE_SEASONS, 2 * self.week) + -(-self.steps // self.season)
        return max(*self.lags, *self.windows, *COVARIATE_LAGS, *COVARIATE_WINDOWS, (seasons + 1) * self.season)

    @property
    def lookback(self) -> timedelta | None:
        """How much history before an origin serving has to read to see what training saw; None: all of it.

        How far so many bars reach back, nights and holidays between them, only the bars can tell.
        """
        return timedelta(microseconds=(self.reach + 1) * self.step) if self.grid == "regular" else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Read what ``as_dict`` wrote."""
        listed = {name: tuple(data[name]) for name in ("columns", "series_ids", "lags", "windows")}
        return cls(**{**data, **listed})


@dataclass(frozen=True)
class Features:
    """A feature matrix: F names, and a row of F numbers for each asked origin; NaN = missing."""

    names: tuple[str, ...]
    matrix: Matrix  # (n, F)


def make_recipe(task: Task, panel: Panel) -> Recipe:
    """Resolve a task's feature settings against the series and the season its history shows."""
    season = task.features.season or bars_a_day(panel, task)
    return Recipe(
        columns=panel.columns,
        series_ids=panel.series_ids,
        lags=tuple(dict.fromkeys(task.features.lags or DEFAULT_LAGS)),
        windows=tuple(sorted({*task.features.windows, max(season, 2)})),
        season=season,
        steps=task.steps,
        timezone=task.timezone,
        grid=task.grid,
        holidays=task.features.holidays,
        step=panel.step,
    )


def origin_features(recipe: Recipe, panel: Panel, rows: Integers, issued: Integers | None = None) -> Features:
    """Return the features of origins ``rows`` (n,), as known at ``issued`` (default: when each row became known)."""
    return compute(ORIGIN_FEATURES, recipe, panel, rows, issued, horizon=0)


def step_features(
    recipe: Recipe, panel: Panel, rows: Integers, horizon: int, issued: Integers | None = None
) -> Features:
    """Return what is known at origins ``rows`` (n,) about the time ``horizon`` steps after them."""
    return compute(STEP_FEATURES, recipe, panel, rows, issued, horizon)


def compute(
    family: tuple[Feature, ...],
    recipe: Recipe,
    panel: Panel,
    rows: Integers,
    issued: Integers | None = None,
    horizon: int = 0,
) -> Features:
    """Return a family of features of origins ``rows`` (n,) about the time ``horizon`` steps after them.

    It is computed block by block; every block, and a single row, goes the same way.
    """
    almanac = _almanac(recipe, panel, rows, horizon) if calendar in family else None
    names: tuple[str, ...] = ()
    matrix = np.empty((0, 0), dtype=np.float32)
    for block in _blocks(panel, rows):
        known = panel.issued_at[rows[block]] if issued is None else issued[block]
        window = Window(recipe, panel, rows[block], known, horizon, almanac)
        columns = [pair for feature in family for pair in feature(window)]
        if not names:
            names = tuple(name for name, _ in columns)
            matrix = np.empty((len(rows), len(names)), dtype=np.float32, order="F")
        for place, (_, values) in enumerate(columns):
            matrix[block, place] = values
    return Features(names, matrix)


def targets(panel: Panel, rows: Integers, horizon: int) -> Floats:
    """Return the truth ``horizon`` steps after each row (n,): the newest version, NaN where there is none (yet)."""
    at = rows + horizon
    inside = at < panel.end_of[rows]
    return np.where(inside, panel.values[0, np.where(inside, at, rows)], np.nan)


def outcomes(panel: Panel, rows: Integers, horizon: int) -> tuple[Floats, Integers]:
    """Return the first version of that truth (n,), and when it became known: what a live run would have scored with."""
    at = rows + horizon
    inside = at < panel.end_of[rows]
    value, known_at = (values[np.where(inside, at, rows)] for values in panel.first_known)
    return np.where(inside, value, np.nan), np.where(inside, known_at, 0)


def target_times(panel: Panel, rows: Integers, horizon: int, grid: str = "regular") -> Integers:
    """Return the timestamps ``horizon`` steps after each row, in microseconds.

    On the observed grid that is the bar that was traded; bars to come are dated as the last week's were, week after
    week; where there is less than a week of them, as many steps by the clock.
    """
    by_clock = panel.timestamps[rows] + horizon * panel.step
    if grid == "regular":
        return by_clock
    at = rows + horizon
    inside = at < panel.end_of[rows]
    times = np.where(inside, panel.timestamps[np.where(inside, at, rows)], by_clock)
    for place in np.flatnonzero(~inside):
        row, end = rows[place], panel.end_of[rows[place]]
        own = panel.timestamps[panel.first_of[row] : end]
        week = own[own > own[-1] - 7 * _DAY]
        ahead = int(row + horizon - end)  # bars after the last, from 0
        if own[0] <= own[-1] - 7 * _DAY:
            times[place] = week[ahead % len(week)] + (ahead // len(week) + 1) * 7 * _DAY
        else:
            times[place] = own[-1] + (ahead + 1) * panel.step
    return times


def last_value(recipe: Recipe, panel: Panel, rows: Integers, issued: Integers | None = None) -> Floats:
    """Return what persistence forecasts at each origin: the last value within reach; NaN where there is none."""
    return panel.last_known(0, rows, panel.issued_at[rows] if issued is None else issued, recipe.reach)[0]


def seasonal_value(
    recipe: Recipe, panel: Panel, rows: Integers, horizon: int, issued: Integers | None = None
) -> Floats:
    """Return what the seasonal naive method forecasts ``horizon`` steps after each origin.

    That is the value at the same local clock time one season earlier; where that is missing, two seasons earlier, and
    so on; failing all, the last value known.
    """
    found = np.full(len(rows), np.nan)
    issued = panel.issued_at[rows] if issued is None else issued
    for block in _blocks(panel, rows):
        window, own = Window(recipe, panel, rows[block], issued[block], horizon), found[block]
        for seasons in range(window.nearest_season, window.nearest_season + SEASONS):
            if not (missing := np.isnan(own)).any():
                break
            own[missing] = window.season_before(seasons)[missing]
        if (missing := np.isnan(own)).any():
            own[missing] = window.last[0][missing]
    return found


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
            return _filled([self.back(steps, column) for steps in range(width)])
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
        if self.recipe.grid != "regular" or self.recipe.season * self.panel.step % _DAY:
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

    def calendar(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield names and values of the calendar at the target's time.

        On the observed grid, where the time of a bar to come is not known, at that of the origin.
        """
        ahead = self.horizon * self.panel.step if self.recipe.grid == "regular" else 0
        here = self.panel.timestamps[self.rows] + ahead
        if self._almanac is None:
            yield from _calendar(self.recipe, here)
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
    def _offsets(self) -> Integers:
        """The local clock's offset at every step of a stretch, from as far back as features look to the target's."""
        first, step = int(self.panel.timestamps[self.rows[0]]), self.panel.step
        steps = np.arange(-self.recipe.reach, len(self.rows) + self.horizon)
        return utc_offsets(first + steps * step, self.recipe.timezone)


Feature = Callable[[Window], Iterator[tuple[str, npt.NDArray[Any]]]]


def lags(window: Window) -> Iterator[tuple[str, Floats]]:
    """The target so many steps before the origin."""
    for lag in window.recipe.lags:
        yield f"lag_{lag}", window.back(lag)


def rolling(window: Window) -> Iterator[tuple[str, Floats]]:
    """Mean, standard deviation, least and greatest of the newest values; over those present, NaN where none is.

    Sums run from the newest value to the oldest, each window from its own values; the deviation divides by n - 1.
    """
    widths = window.recipe.windows
    filled, missing = window.newest(max(widths))
    means, least, greatest = _means(filled, missing, widths), {}, {}
    low, high = window.back(0).copy(), window.back(0).copy()
    for width in range(1, max(widths) + 1):
        np.fmin(low, window.back(width - 1), out=low)
        np.fmax(high, window.back(width - 1), out=high)
        if width in means:  # + 0.0: of 0.0 and -0.0 either may be called the least
            least[width], greatest[width] = low + 0.0, high + 0.0
    square = np.empty(len(window.rows))
    for width in widths:
        mean, count = means[width]
        squares = np.zeros(len(window.rows))
        for value, lacking in zip(filled[:width], missing, strict=False):
            np.subtract(value, mean, out=square)
            np.multiply(square, square, out=square)
            square[lacking] = 0.0
            squares += square
        yield f"mean_{width}", mean
        yield f"std_{width}", np.sqrt(_divided(squares, count - 1))
        yield f"min_{width}", least[width]
        yield f"max_{width}", greatest[width]


def level(window: Window) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The last value known, its age in steps, and how it changed against one and three steps and a season ago."""
    last, age = window.last
    yield "last", last
    yield "age", age
    for steps in dict.fromkeys((1, 3, window.recipe.season)):
        yield f"change_{steps}", last - window.back(steps)


def covariates(window: Window) -> Iterator[tuple[str, Floats]]:
    """Each covariate at the origin, some steps before it, and its mean over the newest steps; never later."""
    for column, name in enumerate(window.recipe.columns[1:], start=1):
        for lag in COVARIATE_LAGS:
            yield f"{name}_lag_{lag}", window.back(lag, column)
        for width in COVARIATE_WINDOWS:
            yield f"{name}_mean_{width}", _means(*window.newest(width, column), (width,))[width][0]


def identity(window: Window) -> Iterator[tuple[str, Floats]]:
    """The number of the series in the recipe; NaN for one the model has not seen."""
    numbers = {name: float(number) for number, name in enumerate(window.recipe.series_ids)}
    own = np.array([numbers.get(name, np.nan) for name in window.panel.series_ids])
    yield "series", own[window.panel.series_of[window.rows]]


def calendar(window: Window) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Minute of the day, day of the week, place in the year and public holiday at the target's local time."""
    yield from window.calendar()


def seasons(window: Window) -> Iterator[tuple[str, Floats]]:
    """The target at the same local time in seasons before, its mean over seven of them, and its change since the
    origin's own time then: what the day usually does from here to there."""
    first, week = window.nearest_season, window.recipe.week
    season_1, season_week = window.season_before(first), window.season_before(max(first, week))
    yield "season_1", season_1
    yield "season_2", window.season_before(first + 1)
    yield "season_week", season_week
    yield "season_two_weeks", window.season_before(max(first, 2 * week))
    past = range(first, first + PROFILE_SEASONS)
    usual = _mean([window.season_before(seasons) for seasons in past])
    yield "profile", usual
    yield "profile_change", usual - _mean([window.season_before(seasons, ahead=0) for seasons in past])
    yield "season_change", season_1 - window.season_before(first, ahead=0)
    yield "week_change", season_week - window.season_before(max(first, week), ahead=0)


def covariate_seasons(window: Window) -> Iterator[tuple[str, Floats]]:
    """Each covariate at the target's local time one season and one week before."""
    first = window.nearest_season
    for column, name in enumerate(window.recipe.columns[1:], start=1):
        yield f"{name}_season_1", window.season_before(first, column)
        yield f"{name}_season_week", window.season_before(max(first, window.recipe.week), column)


ORIGIN_FEATURES: tuple[Feature, ...] = (lags, rolling, level, covariates, identity)
STEP_FEATURES: tuple[Feature, ...] = (calendar, seasons, covariate_seasons)
CALENDAR = frozenset({"series", "minute", "weekday", "year_sin", "year_cos", "holiday"})  # never out of distribution


@dataclass(frozen=True)
class Almanac:
    """The calendar of every step of a span, computed once and looked up for each series that is there then."""

    first: int  # microseconds
    step: int
    columns: tuple[tuple[str, Matrix], ...]

    def of(self, times: Integers) -> Iterator[tuple[str, Matrix]]:
        """Yield names and values of the calendar at times of the span."""
        place = (times - self.first) // self.step
        for name, values in self.columns:
            yield name, values[place]


def _almanac(recipe: Recipe, panel: Panel, rows: Integers, horizon: int) -> Almanac | None:
    """Return the calendar of all targets' times; None where to look it up is no less work than to compute it."""
    if recipe.grid != "regular" or len(rows) <= BLOCK:
        return None
    times = panel.timestamps[rows]
    first, last = int(times.min()) + horizon * panel.step, int(times.max()) + horizon * panel.step
    if (last - first) // panel.step > len(rows) // 2:
        return None
    found = _calendar(recipe, np.arange(first, last + 1, panel.step))
    return Almanac(first, panel.step, tuple((name, values.astype(np.float32)) for name, values in found))


def _calendar(recipe: Recipe, times: Integers) -> Iterator[tuple[str, npt.NDArray[Any]]]:
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


def _blocks(panel: Panel, rows: Integers) -> Iterator[slice]:
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


def _filled(values: list[Floats]) -> tuple[list[Floats], list[Integers]]:
    """Return values with zero for those missing, and where they were missing."""
    missing = [np.flatnonzero(np.isnan(value)) for value in values]
    filled = [value.copy() if len(lacking) else value for value, lacking in zip(values, missing, strict=True)]
    for value, lacking in zip(filled, missing, strict=True):
        if len(lacking):
            value[lacking] = 0.0
    return filled, missing


def _means(filled: list[Floats], missing: list[Integers], widths: tuple[int, ...]) -> dict[int, tuple[Floats, Floats]]:
    """Return for each width the mean over the first so many values, in their order, and how many are present."""
    total, lacking = np.zeros(len(filled[0])), np.zeros(len(filled[0]))
    found = {}
    for width, (value, absent) in enumerate(zip(filled, missing, strict=True), start=1):
        total += value
        lacking[absent] += 1
        if width in widths:
            count = width - lacking
            found[width] = _divided(total, count), count
    return found


def _mean(values: list[Floats]) -> Floats:
    """Return the mean over the values present, in the given order; NaN where none is."""
    return _means(*_filled(values), (len(values),))[len(values)][0]


def _divided(above: Floats, below: Floats) -> Floats:
    """Return quotients, NaN where what stands below is not above zero."""
    quotient = np.full(len(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
