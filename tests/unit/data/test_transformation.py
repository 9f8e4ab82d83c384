"""Features and naive forecasts: values one can check by hand, and clocks that change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from forecastle.data.clock import utc_offsets
from forecastle.data.panel import build_panel, micros, moment
from forecastle.data.transformation import (
    Recipe,
    make_recipe,
    origin_features,
    seasonal_value,
    step_features,
    target_times,
    targets,
)
from forecastle.data.window import BLOCK
from forecastle.frame import conform

HOUR = timedelta(hours=1)


def hourly(start: datetime, values: list[float | None], step: timedelta = HOUR) -> pl.DataFrame:
    at = [start + place * step for place in range(len(values))]
    rows = pl.DataFrame(
        {
            "series_id": "a",
            "timestamp": at,
            "available_at": [one + step for one in at],
            "collected_at": at[-1] + step,
            "y": pl.Series(values, dtype=pl.Float64),
            "x": [float(number) for number in range(len(values))],
        }
    )
    return conform(rows, ["y", "x"])


def served(task, table: pl.DataFrame):
    panel = build_panel(table, task)
    return make_recipe(task, panel), panel


def row_of(panel, at: datetime) -> np.ndarray:
    return np.flatnonzero(panel.timestamps == micros(at))


def test_lags_and_rolling_windows_are_what_one_computes_by_hand(small_task):
    recipe, panel = served(small_task(), hourly(datetime(2024, 1, 1, tzinfo=UTC), [1.0, 2.0, None, 5.0]))
    found = origin_features(recipe, panel, np.array([3]))
    row = dict(zip(found.names, found.matrix[0].tolist(), strict=True))
    assert (row["lag_0"], row["lag_2"]) == (5.0, 2.0)
    assert np.isnan(row["lag_1"]) and np.isnan(row["lag_4"])
    assert (row["last"], row["change_1"], row["x_mean_6"]) == (5.0, pytest.approx(np.nan, nan_ok=True), 1.5)
    assert row["mean_3"] == pytest.approx(3.5)
    assert row["std_3"] == pytest.approx(np.std([2.0, 5.0], ddof=1))
    assert (row["min_3"], row["max_3"], row["max_24"]) == (2.0, 5.0, 5.0)
    assert (row["x_lag_0"], row["x_lag_1"]) == (3.0, 2.0)
    assert (row["series"], row["age"]) == (0.0, 0.0)


def test_the_calendar_is_the_targets_local_one(small_task):
    task = small_task(timezone="America/New_York", features={"holidays": "US"})
    recipe, panel = served(task, hourly(datetime(2024, 7, 3, 20, tzinfo=UTC), [1.0] * 10))
    found = step_features(recipe, panel, row_of(panel, datetime(2024, 7, 4, 3, tzinfo=UTC)), 1)
    row = dict(zip(found.names, found.matrix[0].tolist(), strict=True))
    assert (row["minute"], row["weekday"], row["holiday"]) == (0.0, 3.0, 1.0)  # Thursday, the 4th of July, midnight


def test_the_truth_is_so_many_steps_ahead_and_missing_where_it_has_not_come(small_task):
    recipe, panel = served(small_task(), hourly(datetime(2024, 1, 1, tzinfo=UTC), [1.0, 2.0, 3.0]))
    assert targets(panel, np.array([0]), 2).tolist() == [3.0]
    assert np.isnan(targets(panel, np.array([2]), 1)).all()
    assert moment(target_times(panel, np.array([2]), 2)[0]) == datetime(2024, 1, 1, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "night", "step"),
    [
        ("Europe/Berlin", datetime(2024, 3, 31, tzinfo=UTC), HOUR),
        ("Europe/Berlin", datetime(2024, 10, 27, tzinfo=UTC), HOUR),  # a day of 25 hours
        ("America/New_York", datetime(2024, 11, 3, tzinfo=UTC), HOUR),
        ("Australia/Adelaide", datetime(2024, 4, 6, 12, tzinfo=UTC), HOUR),  # half an hour off, and a day of 25 hours
        ("Australia/Adelaide", datetime(2024, 10, 5, 12, tzinfo=UTC), HOUR),
        ("Australia/Lord_Howe", datetime(2024, 4, 6, 12, tzinfo=UTC), HOUR / 2),  # its clock moves by half an hour
        ("Asia/Kolkata", datetime(2024, 3, 31, tzinfo=UTC), HOUR / 2),
    ],
)
def test_the_seasonal_naive_looks_back_by_the_local_clock_at_every_step_around_the_night(small_task, zone, night, step):
    start, day = night - timedelta(days=3), timedelta(days=1) // step
    clock = [(start + place * step).astimezone(ZoneInfo(zone)) for place in range(day * 6)]
    local = [at.hour + at.minute / 60 for at in clock]
    task = small_task(timezone=zone, frequency="1h" if step == HOUR else "30m")
    recipe, panel = served(task, hourly(start, local, step))
    origins = np.arange(2 * day, 5 * day)  # two days before the night to a day after it
    shown = {(at.date(), at.time()) for at in clock}
    for horizon in (1, 2, 3):
        found = seasonal_value(recipe, panel, origins, horizon).tolist()
        for row, value in zip(origins + horizon, found, strict=True):
            if (clock[row].date() - timedelta(days=1), clock[row].time()) in shown:  # not skipped by the clock
                assert value == local[row]


def test_holidays_and_the_clock_are_known_at_the_targets_time_and_not_the_origins(small_task):
    task = small_task(timezone="Europe/Oslo", horizon="48h", features={"holidays": "NO"})
    recipe, panel = served(task, hourly(datetime(2024, 5, 14, tzinfo=UTC), [1.0] * 48))
    origin = row_of(panel, datetime(2024, 5, 15, 12, tzinfo=UTC))
    days = {}
    for horizon in range(1, 49):
        found = step_features(recipe, panel, origin, horizon)
        row = dict(zip(found.names, found.matrix[0].tolist(), strict=True))
        target = (datetime(2024, 5, 15, 12, tzinfo=UTC) + horizon * HOUR).astimezone(ZoneInfo("Europe/Oslo"))
        assert row["minute"] == 60 * target.hour and row["weekday"] == target.weekday()
        days[target.day] = days.get(target.day, set()) | {row["holiday"]}
    assert days == {15: {0.0}, 16: {0.0}, 17: {1.0}}  # the 17th of May is Norway's day


def test_the_seasonal_naive_takes_an_older_season_where_one_is_missing(small_task):
    values: list[float | None] = [float(day) for day in range(4) for _ in range(24)]
    values[24 * 3 + 1 - 24] = None  # the same hour one day before the target
    recipe, panel = served(small_task(), hourly(datetime(2024, 1, 1, tzinfo=UTC), values))
    assert seasonal_value(recipe, panel, np.array([24 * 3]), 1).tolist() == [1.0]


def test_a_horizon_beyond_the_season_never_sees_what_has_not_come(small_task):
    values: list[float | None] = [float(hour) for hour in range(24 * 4)]
    recipe, panel = served(small_task(horizon="30h"), hourly(datetime(2024, 1, 1, tzinfo=UTC), values))
    assert seasonal_value(recipe, panel, np.array([60]), 30).tolist() == [float(60 + 30 - 48)]


@pytest.mark.parametrize(
    "zone", ["Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "UTC", "Africa/Casablanca"]
)
def test_offsets_are_those_of_the_zone_at_every_hour_of_two_years(zone):
    start = datetime(2023, 1, 1, tzinfo=UTC)
    times = [start + hour * HOUR for hour in range(24 * 731)]
    local = [one.astimezone(ZoneInfo(zone)).utcoffset() for one in times]
    expected = [int(one.total_seconds()) * 1_000_000 for one in local if one is not None]
    assert utc_offsets(np.array([micros(one) for one in times]), zone).tolist() == expected


def test_a_bar_to_come_is_dated_as_the_same_bar_a_week_before(small_task):
    task = small_task(grid="observed")
    bars = [
        datetime(2024, 1, day, hour, tzinfo=UTC) for day in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12) for hour in (15, 16, 17)
    ]
    table = pl.concat(hourly(at, [1.0]) for at in bars)
    recipe, panel = served(task, table)
    last = panel.last_rows
    assert moment(target_times(panel, last, 1, "observed")[0]) == datetime(2024, 1, 15, 15, tzinfo=UTC)


def test_a_recipe_survives_being_written(small_task, observations):
    recipe, _ = served(small_task(), observations())
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_bars_to_come_are_dated_week_after_week_and_never_go_back(small_task):
    task = small_task(grid="observed", frequency="1d", horizon="10d")
    fridays = datetime(2024, 1, 26, tzinfo=UTC)
    bars = [fridays - timedelta(days=back) for back in range(25, -1, -1)]
    table = pl.concat(hourly(at, [1.0]) for at in bars if at.weekday() < 5)
    recipe, panel = served(task, table)
    times = [moment(target_times(panel, panel.last_rows, step, "observed")[0]) for step in range(1, 11)]
    expected = [day for day in (fridays + timedelta(days=ahead) for ahead in range(1, 15)) if day.weekday() < 5]
    assert times == expected


@pytest.mark.parametrize("late", [False, True])
def test_neighbours_that_share_a_stretch_of_time_have_the_bits_of_rows_that_are_looked_up_one_by_one(small_task, late):
    random = np.random.default_rng(3)
    values: list[float | None] = random.choice([-1.0, -0.0, 0.0, 0.3, 7.1], BLOCK).tolist()
    for place in random.integers(0, BLOCK, 300):
        values[place] = None
    table = hourly(datetime(2023, 1, 1, tzinfo=UTC), values)
    if late:
        table = table.with_columns(pl.col("available_at") + pl.when(pl.col("x") % 50 == 7).then(5).otherwise(0) * HOUR)
    task = small_task(timezone="America/New_York", features={"holidays": "US", "season": 24, "windows": [3, 6, 24]})
    recipe, panel = served(task, pl.concat([table, table.head(30).with_columns(pl.lit("b").alias("series_id"))]))
    rows = np.arange(panel.size)
    for features in (
        lambda chosen: origin_features(recipe, panel, chosen).matrix,
        lambda chosen: step_features(recipe, panel, chosen, 3).matrix,
        lambda chosen: seasonal_value(recipe, panel, chosen, 2),
    ):
        assert features(rows).tobytes() == features(rows[::-1])[::-1].tobytes()
        chosen = random.choice(rows, 40)
        assert (
            features(rows)[chosen].tobytes() == np.concatenate([features(chosen[[at]]) for at in range(40)]).tobytes()
        )


@pytest.mark.parametrize("grid", ["regular", "observed"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_date_is_that_date_in_every_zone(small_task, grid, zone):
    """On 30 March 2025 clocks change in Berlin, on the 9th in New York; the season of seven days goes on regardless."""
    days = hourly(datetime(2025, 3, 1, tzinfo=UTC), [float(day % 7) for day in range(60)], timedelta(days=1))

    def told(name: str) -> tuple:
        shape = {"frequency": "1d", "horizon": "7d", "grid": grid, "timezone": name}
        recipe, panel = served(small_task(**shape, features={"season": 7, "holidays": "US"}), days)
        rows = np.arange(20, 50)
        return origin_features(recipe, panel, rows), step_features(recipe, panel, rows, 3), recipe

    (origin, step, recipe), (plain, ahead, _) = told(zone), told("UTC")
    assert recipe.timezone == "UTC"
    assert origin.names == plain.names and np.array_equal(origin.matrix, plain.matrix, equal_nan=True)
    assert step.names == ahead.names and np.array_equal(step.matrix, ahead.matrix, equal_nan=True)


def test_bars_of_a_day_that_begin_at_local_midnight_are_of_the_local_date(small_task):
    bars = hourly(datetime(2025, 2, 28, 23, tzinfo=UTC), [1.0] * 20, timedelta(days=1))
    task = small_task(frequency="1d", horizon="2d", grid="observed", timezone="Europe/Berlin")
    assert served(task, bars)[0].timezone == "Europe/Berlin"
