"""A table of recent observations gives the origins a live run would have forecast from."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import build_panel
from forecastle.data.recent import newest_origins
from forecastle.data.transformation import make_recipe
from forecastle.errors import UserError


@pytest.fixture
def table(observations) -> pl.DataFrame:
    return observations(hours=460)


@pytest.fixture
def recipe(small_task, table):
    return make_recipe(small_task(), build_panel(table, small_task()))


def features(examples: Examples) -> bytes:
    return examples.origin.tobytes() + examples.step.tobytes() + examples.seasonal.tobytes()


def plain(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("available_at", "collected_at")


def test_the_features_of_the_newest_step_are_those_of_the_whole_history(small_task, table, recipe) -> None:
    panel = build_panel(table, small_task())
    expected = make_examples(recipe, panel, panel.last_rows)
    lately = table.filter(pl.col("timestamp") > pl.col("timestamp").max() - recipe.lookback)
    found = newest_origins(recipe, plain(lately))
    assert len(lately) < len(table)
    assert features(found) == features(expected) and found.names == expected.names
    assert found.origins.tolist() == expected.origins.tolist() and found.times.tolist() == expected.times.tolist()


def test_neither_order_nor_further_columns_nor_the_spelling_of_times_change_anything(table, recipe) -> None:
    expected = features(newest_origins(recipe, plain(table)))
    times = pl.col("timestamp")
    for changed in (
        table.sample(fraction=1, shuffle=True, seed=1).with_columns(more=pl.lit("text")),
        plain(table).with_columns(times.dt.replace_time_zone(None).cast(pl.Datetime("ns"))),
        plain(table).with_columns(times.dt.convert_time_zone("America/New_York")),
        plain(table).with_columns(times.dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
        plain(table).with_columns(times.dt.strftime("%Y-%m-%d %H:%M:%S")),
    ):
        assert features(newest_origins(recipe, changed)) == expected


def test_a_series_that_is_behind_is_forecast_from_the_same_step_as_the_others(table, recipe) -> None:
    late = plain(table).filter(
        (pl.col("series_id") == "a") | (pl.col("timestamp") < pl.col("timestamp").max() - timedelta(hours=2))
    )
    found = newest_origins(recipe, late)
    assert len(set(found.origins.tolist())) == 1 and found.series_ids == ("a", "b")
    assert np.isfinite(found.seasonal).all()


def test_of_a_covariate_that_is_missing_nothing_is_known(table, recipe) -> None:
    without = newest_origins(recipe, plain(table).drop("x"))
    emptied = newest_origins(recipe, plain(table).with_columns(x=pl.lit(None, dtype=pl.Float64)))
    assert features(without) == features(emptied) != features(newest_origins(recipe, plain(table)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.rename({"y": "yy"}), "no 'y'"),
        (lambda table: table.drop("series_id"), "no 'series_id'"),
        (lambda table: table.clear(), "no row"),
        (lambda table: table.with_columns(series_id=pl.lit("c")), "learnt: a, b; found 'c'"),
        (lambda table: table.with_columns(y=pl.lit("warm")), "values as numbers"),
        (lambda table: table.with_columns(timestamp=pl.lit("today")), "ISO 8601"),
    ],
)
def test_a_table_that_cannot_be_forecast_from_is_refused_with_what_is_wrong(table, recipe, change, said) -> None:
    with pytest.raises(UserError, match=said):
        newest_origins(recipe, change(plain(table)))
