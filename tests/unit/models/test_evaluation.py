"""Figures are computed once, on the same rows for every method."""

from __future__ import annotations

import math

import polars as pl
import pytest

from forecastle.models.evaluation import scored_rows, scores, scores_by_series

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
