"""The one definition of every feature and target, for training, back-tests and serving alike.

A feature is computed for a row (the origin) from the values known at its ``issued_at``, element by element in a fixed
order, so that one row served alone has the same bits as the same row among a million (the parity law); library rolling
functions with running sums would not. Features are float32: an engine that casts to float32 sees the same numbers.

Origin features depend on the origin alone, step features on the target's time too (its calendar, the season before it).
To add one: write a function with the signature of its family and name it in ``ORIGIN_FEATURES`` or ``STEP_FEATURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecastle.data.panel import Floats, Integers, Panel, bars_a_day
from forecastle.data.recipe import COVARIATE_LAGS, COVARIATE_WINDOWS, PROFILE_SEASONS, SEASONS, Recipe
from forecastle.data.window import Window, blocks, filled, make_almanac
from forecastle.task import DAY, Task

Matrix = npt.NDArray[np.float32]

DEFAULT_LAGS = tuple(range(24))
WEEK = 7 * 86_400_000_000  # microseconds
MOST_BACK = 3_000  # steps a mean may reach back


@dataclass(frozen=True)
class Features:
    """A feature matrix: F names, and a row of F numbers for each asked origin; NaN = missing."""

    names: tuple[str, ...]
    matrix: Matrix  # (n, F)


def make_recipe(task: Task, panel: Panel) -> Recipe:
    """Resolve a task's feature settings against the series and the season its history shows."""
    season = task.features.season or bars_a_day(panel, task)
    dates = task.frequency == DAY and not (panel.timestamps % (WEEK // 7)).any()  # on an observed grid, too
    return Recipe(
        columns=panel.columns,
        series_ids=panel.series_ids,
        lags=tuple(dict.fromkeys(task.features.lags or DEFAULT_LAGS)),
        windows=tuple(sorted({*task.features.windows, max(season, 2)})),
        season=season,
        steps=task.steps,
        timezone="UTC" if dates else task.timezone,
        grid=task.grid,
        holidays=task.features.holidays,
        step=panel.step,
        ahead=task.ahead,
        cascade=_cascade(task, panel, season),
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
    almanac = make_almanac(recipe, panel, rows, horizon) if calendar in family else None
    names: tuple[str, ...] = ()
    matrix = np.empty((0, 0), dtype=np.float32)
    for block in blocks(panel, rows):
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
    """Return that truth as a live run scores with it (n,), its first version or the settled one, and since when."""
    at = rows + horizon
    inside = at < panel.end_of[rows]
    value, known_at = (values[np.where(inside, at, rows)] for values in panel.first_truth)
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
        week = own[own > own[-1] - WEEK]
        ahead = int(row + horizon - end)  # bars after the last, from 0
        if own[0] <= own[-1] - WEEK:
            times[place] = week[ahead % len(week)] + (ahead // len(week) + 1) * WEEK
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
    for block in blocks(panel, rows):
        window, own = Window(recipe, panel, rows[block], issued[block], horizon), found[block]
        for seasons in range(window.nearest_season, window.nearest_season + SEASONS):
            if not (missing := np.isnan(own)).any():
                break
            own[missing] = window.season_before(seasons)[missing]
        if (missing := np.isnan(own)).any():
            own[missing] = window.last[0][missing]
    return found


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


def cascade(window: Window) -> Iterator[tuple[str, Floats]]:
    """The target's mean over a day, a week and a month, where it may be a volatility (Corsi 2009; see
    ``models.har``)."""
    widths = window.recipe.cascade
    if widths:
        found = _means(*window.newest(max(widths)), widths)
        for width in widths:
            yield f"cascade_{width}", found[width][0]


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


def ahead(window: Window) -> Iterator[tuple[str, Floats]]:
    """Each covariate known ahead, as it was forecast for the target's time when the origin's forecast was issued."""
    for name in window.recipe.ahead:
        yield f"{name}_ahead", window.ahead(name)


ORIGIN_FEATURES: tuple[Feature, ...] = (lags, rolling, level, cascade, covariates, identity)
STEP_FEATURES: tuple[Feature, ...] = (calendar, seasons, covariate_seasons, ahead)
CALENDAR = frozenset({"series", "minute", "weekday", "year_sin", "year_cos", "holiday"})  # never out of distribution


def _cascade(task: Task, panel: Panel, season: int) -> tuple[int, ...]:
    """Return the steps of a day, a week and a month where the target is a market's and never negative; else none.

    A month is 22 trading days, or 30 days where the market never closes. What spans more steps than MOST_BACK is left
    out, for every forecast would have to read them all.
    """
    if task.domain != "financial" or (panel.values[0] < 0).any():
        return ()
    days = (1, 7, 30) if task.grid == "regular" else (1, 5, 22)
    return tuple(day * season for day in days if day * season <= MOST_BACK)


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
    return _means(*filled(values), (len(values),))[len(values)][0]


def _divided(above: Floats, below: Floats) -> Floats:
    """Return quotients, NaN where what stands below is not above zero."""
    quotient = np.full(len(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
