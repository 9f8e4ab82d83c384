"""Observations on their grid: gaps stay gaps, and late values are seen only from when they were known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.panel import bars_a_day, build_panel, micros
from forecastle.errors import NotEnoughHistory, TaskError
from forecastle.frame import conform, empty_observations

START = datetime(2024, 3, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


def table(*rows: tuple[str, float, float | None, float | None]) -> pl.DataFrame:
    """Make observations from (series, hours after START, value, hours after START it became available)."""
    return conform(
        pl.DataFrame(
            {
                "series_id": [row[0] for row in rows],
                "timestamp": [START + row[1] * HOUR for row in rows],
                "available_at": [START + (row[1] + 1 if row[3] is None else row[3]) * HOUR for row in rows],
                "collected_at": [START + (row[1] + 1 if row[3] is None else row[3]) * HOUR for row in rows],
                "y": pl.Series([row[2] for row in rows], dtype=pl.Float64),
            }
        ),
        ["y", "x"],
    )


def test_a_missing_hour_is_a_missing_value_never_the_wrong_hour(small_task):
    panel = build_panel(table(("a", 0, 1.0, None), ("a", 3, 4.0, None)), small_task())
    assert np.array_equal(panel.values[0], [1.0, np.nan, np.nan, 4.0], equal_nan=True)
    assert np.array_equal(panel.back(0, np.array([3]), 3, panel.issued_at[[3]]), [1.0])


def test_on_the_observed_grid_a_step_is_the_next_bar(small_task):
    panel = build_panel(table(("a", 0, 1.0, None), ("a", 3, 4.0, None)), small_task(grid="observed"))
    assert panel.values[0].tolist() == [1.0, 4.0]


def test_series_stand_one_after_the_other_and_never_see_each_other(small_task):
    panel = build_panel(table(("b", 0, 2.0, None), ("a", 0, 1.0, None), ("a", 1, 1.5, None)), small_task())
    assert panel.series_ids == ("a", "b")
    assert panel.offsets.tolist() == [0, 2, 3]
    assert np.isnan(panel.back(0, np.array([2]), 1, panel.issued_at[[2]])).all()


def test_every_series_reaches_until_the_asked_time(small_task):
    panel = build_panel(table(("a", 0, 1.0, None), ("b", 2, 2.0, None)), small_task(), until=START + 4 * HOUR)
    assert panel.timestamps[panel.last_rows].tolist() == [micros(START + 4 * HOUR)] * 2


def test_a_late_value_is_missing_for_forecasts_made_before_it_came(small_task):
    panel = build_panel(table(("a", 0, 1.0, 5), ("a", 1, 2.0, None), ("a", 2, 3.0, None)), small_task())
    rows = np.array([1, 1])
    issued = np.array([micros(START + 2 * HOUR), micros(START + 5 * HOUR)])
    assert np.array_equal(panel.back(0, rows, 1, issued), [np.nan, 1.0], equal_nan=True)


def test_a_revision_is_seen_only_from_when_it_was_known(small_task):
    panel = build_panel(table(("a", 0, 1.0, None), ("a", 0, 9.0, 4), ("a", 1, 2.0, None)), small_task())
    rows, issued = np.array([1, 1, 1]), np.array([micros(START + hour * HOUR) for hour in (2, 4, 8)])
    assert panel.back(0, rows, 1, issued).tolist() == [1.0, 9.0, 9.0]
    assert panel.values[0].tolist() == [9.0, 2.0]
    assert panel.issued_at[0] == micros(START + HOUR)


def test_the_last_known_value_steps_over_gaps_and_what_was_not_known_yet(small_task):
    rows = (("a", 0, 1.0, None), ("a", 1, 2.0, 9), ("a", 2, None, None), ("a", 3, None, None))
    panel = build_panel(table(*rows), small_task())
    found, age = panel.last_known(
        0, np.array([3, 3]), np.array([micros(START + 4 * HOUR), micros(START + 9 * HOUR)]), 10
    )
    assert found.tolist() == [1.0, 2.0]
    assert age.tolist() == [3, 2]
    out_of_reach, capped = panel.last_known(0, np.array([3]), np.array([micros(START + 4 * HOUR)]), 2)
    assert np.isnan(out_of_reach).all()
    assert capped.tolist() == [3]


def test_times_inside_a_step_count_for_the_step_and_the_last_one_wins(small_task):
    panel = build_panel(table(("a", 0.1, 1.0, 1), ("a", 0.8, 2.0, 1.5), ("a", 1.2, 3.0, 2)), small_task())
    assert panel.timestamps.tolist() == [micros(START), micros(START + HOUR)]
    assert panel.values[0].tolist() == [2.0, 3.0]


def test_no_observation_at_all_says_what_to_do(small_task):
    with pytest.raises(NotEnoughHistory, match="Collect some first"):
        build_panel(empty_observations(["y", "x"]), small_task())


def test_an_unknown_series_is_answered_with_the_nearest(small_task):
    panel = build_panel(table(("north", 0, 1.0, None)), small_task())
    with pytest.raises(TaskError, match="did you mean 'north'"):
        panel.rows_of("nort")


def test_the_season_is_a_day_of_steps_or_of_traded_bars(small_task, observations):
    half_hourly = small_task(frequency="30m", horizon="1h")
    assert bars_a_day(build_panel(observations(hours=50), half_hourly), half_hourly) == 48
    market = small_task(grid="observed", timezone="America/New_York")
    trading = observations(hours=24 * 20).filter(pl.col("timestamp").dt.hour().is_between(15, 20))
    assert bars_a_day(build_panel(trading, market), market) == 6


def test_a_truth_that_settles_is_the_one_known_then_and_counts_from_then(small_task):
    settling = small_task(source={"provider": "file", "path": "t.csv", "settles_after": "3h"})
    revised = table(("a", 0, 1.0, None), ("a", 0, 2.0, 3), ("a", 0, 9.0, 6), ("a", 1, 5.0, 9), ("a", 2, None, None))
    value, known = build_panel(revised, settling).first_truth
    assert np.array_equal(value, [2.0, 5.0, np.nan], equal_nan=True)
    assert known.tolist()[:2] == [micros(START + 4 * HOUR), micros(START + 9 * HOUR)]
    value, known = build_panel(revised, small_task()).first_truth
    assert value.tolist()[:2] == [1.0, 5.0]
    assert known.tolist() == [micros(START + HOUR), micros(START + 9 * HOUR), 0]


def test_a_truth_that_nothing_revised_settles_all_the_same(small_task):
    settling = small_task(source={"provider": "file", "path": "t.csv", "settles_after": "3h"})
    panel = build_panel(table(("a", 0, 1.0, None), ("a", 1, 2.0, None)), settling)
    assert panel.versions is None
    assert panel.first_truth[1].tolist() == [micros(START + 4 * HOUR), micros(START + 5 * HOUR)]
