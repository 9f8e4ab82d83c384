"""A series no model has learnt: the season before, with an interval from its own past errors, or none."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel, micros, moment
from forecastle.data.transformation import make_recipe
from forecastle.models import untrained


@pytest.fixture
def made(small_task, observations):
    """Forecast series b, which the recipe of series a has not seen, from so many hours of it."""

    def make(hours: int = 400, change=lambda rows: rows):
        task, rows = small_task(), change(observations(hours=hours))
        recipe = make_recipe(task, build_panel(rows.filter(pl.col("series_id") == "a"), task))
        panel = build_panel(rows, task)
        last = panel.last_rows
        now = moment(int(panel.issued_at[last].max()))
        examples = make_examples(recipe, panel, last, issued=np.full(len(last), micros(now)))
        known = untrained.known(recipe, panel)
        assert known.tolist() == [True, False]
        return untrained.forecast(task, recipe, panel, examples.take(~known[examples.series]), now), rows

    return make


def test_the_value_is_that_of_the_season_before_and_the_row_says_so(made) -> None:
    found, rows = made()
    before = rows.filter(pl.col("series_id") == "b").select("timestamp", past="y")
    before = before.with_columns(pl.col("timestamp") + timedelta(days=1))
    beside = found.join(before, on="timestamp")
    assert beside.height == 3 and (beside["value"] == beside["past"]).all()
    assert set(found["model_version"]) == {untrained.UNTRAINED} and set(found["estimator"]) == {"seasonal_naive"}
    assert not found["drifted"].any()


def test_the_interval_is_a_quantile_of_the_series_own_errors(made) -> None:
    found, rows = made()
    own = rows.filter(pl.col("series_id") == "b")["y"].to_numpy()
    errors = np.abs(own[24:] - own[:-24])
    half = (found["upper"] - found["value"]).to_numpy()
    assert np.all((np.quantile(errors, 0.8) <= half) & (half <= np.quantile(errors, 0.98)))
    assert np.allclose(half, (found["value"] - found["lower"]).to_numpy())


def test_a_noisier_past_widens_it(made) -> None:
    wild = pl.when(pl.col("series_id") == "b").then(pl.col("y") * 3).otherwise(pl.col("y")).alias("y")
    calm, loud = made()[0], made(change=lambda rows: rows.with_columns(wild))[0]
    assert ((loud["upper"] - loud["lower"]) > 2 * (calm["upper"] - calm["lower"])).all()


def test_with_too_few_errors_nothing_is_promised(made) -> None:
    found, _ = made(hours=24 + untrained.FEWEST - 10)
    assert found["value"].null_count() == 0
    assert found["lower"].null_count() == found["upper"].null_count() == found.height == 3


def test_with_less_than_a_season_it_is_the_last_value_under_its_own_name(made) -> None:
    found, rows = made(hours=12)
    assert set(found["estimator"]) == {"persistence"}
    assert set(found["value"]) == {rows.filter(pl.col("series_id") == "b")["y"][-1]}


def test_where_nothing_was_observed_there_is_no_forecast(made) -> None:
    void = pl.when(pl.col("series_id") == "a").then(pl.col("y")).alias("y")
    assert made(change=lambda rows: rows.with_columns(void))[0].is_empty()


def test_only_what_a_model_made_counts_as_a_models() -> None:
    rows = pl.DataFrame({"model_version": ["1", untrained.UNTRAINED, "2"]})
    assert untrained.of_models(rows)["model_version"].to_list() == ["1", "2"]
