"""Figures are computed once, on the same rows for every method."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.models.evaluation import scored_rows, scores, scores_by_series, skill_interval

START = datetime(2013, 1, 7, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "series_id": ["a", "a", "a", "b", "b"],
        "horizon": [1, 1, 2, 1, 2],
        "actual": [1.0, 3.0, 5.0, 2.0, 4.0],
        "value": [2.0, 3.0, 3.0, 2.0, 4.0],
        "last": [3.0, 1.0, 3.0, 4.0, 2.0],
        "lower": [1.0, 2.0, 2.0, 2.1, 3.0],
        "upper": [3.0, 4.0, 4.0, 3.0, 5.0],
    }
)


def test_every_figure_is_the_one_of_its_formula():
    figures = scores(ROWS)
    assert figures["rmse"] == pytest.approx(1.0)
    assert figures["mae"] == pytest.approx(0.6)
    assert figures["r2"] == pytest.approx(1 - 5 / 10)
    assert figures["skill"] == pytest.approx(1 - 1 / 2)
    assert figures["coverage"] == pytest.approx(3 / 5)
    assert figures["n"] == 5


def test_figures_are_given_for_each_horizon_in_order():
    first, second = scores(ROWS.reverse())["horizons"]
    assert (first["horizon"], first["n"], second["horizon"], second["n"]) == (1, 3, 2, 2)
    assert first["mae"] == pytest.approx(1 / 3) and second["mae"] == pytest.approx(1.0)


def test_figures_are_given_for_each_series():
    assert {name: figures["mae"] for name, figures in scores_by_series(ROWS).items()} == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("missing", [None, math.nan])
@pytest.mark.parametrize("column", ["actual", "value", "last"])
def test_a_row_without_truth_forecast_or_last_value_is_scored_for_nobody(column, missing):
    rows = ROWS.with_columns(pl.when(pl.col("series_id") == "b").then(missing).otherwise(pl.col(column)).alias(column))
    assert scored_rows(rows)["series_id"].unique().to_list() == ["a"]
    assert scores(rows)["n"] == 3


def test_a_truth_on_the_end_of_its_interval_is_covered():
    assert scores(ROWS.head(1))["coverage"] == 1.0


def test_a_figure_that_cannot_be_had_is_none():
    nothing = scores(ROWS.clear())
    assert nothing["n"] == 0 and nothing["horizons"] == []
    assert nothing["rmse"] is nothing["skill"] is nothing["r2"] is nothing["coverage"] is None
    constant = scores(ROWS.with_columns(actual=2.0, last=2.0))
    assert constant["r2"] is None and constant["skill"] is None and constant["rmse"] > 0


def test_without_intervals_there_is_no_coverage():
    assert scores(ROWS.with_columns(lower=math.nan, upper=math.nan))["coverage"] is None


def forecasts(weeks: int, error: float, seed: int = 1) -> pl.DataFrame:
    origins = pl.datetime_range(START, START + timedelta(weeks=weeks), "6h", closed="left", eager=True, time_zone="UTC")
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, (2, len(origins)))
    return pl.DataFrame({"origin": origins, "horizon": 1, "actual": 0.0}).with_columns(
        value=error * noise[0], last=noise[1], lower=None, upper=None
    )


def test_the_skills_interval_holds_the_skill_and_narrows_with_more_weeks():
    few, many = (skill_interval(forecasts(weeks, 0.5)) for weeks in (8, 60))
    assert few is not None and many is not None
    assert many[0] < scores(forecasts(60, 0.5))["skill"] < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert skill_interval(forecasts(60, 0.5).sample(fraction=1, shuffle=True, seed=3)) == pytest.approx(many)


def test_of_a_model_without_skill_nearly_every_interval_holds_zero():
    intervals = [skill_interval(forecasts(30, 1.0, seed)) or (1.0, 1.0) for seed in range(100)]
    assert 88 <= sum(low < 0 < high for low, high in intervals) <= 100


def test_of_fewer_than_eight_weeks_the_skills_interval_is_not_known():
    assert skill_interval(forecasts(1, 0.5)) is skill_interval(forecasts(7, 0.5)) is None
    assert skill_interval(forecasts(8, 0.5)) is not None
