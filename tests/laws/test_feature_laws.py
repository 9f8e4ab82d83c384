"""The laws of features, tested over every feature: parity, no peeking, order-free, series-isolated."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastle.data.examples import Examples, from_table, make_examples, to_table
from forecastle.data.panel import build_panel, micros, moment
from forecastle.data.transformation import make_recipe
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, TIMESTAMP, conform

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEN = ("origin", "step", "last", "seasonal", "times")


def same_bits(left: Examples, right: Examples, names: tuple[str, ...] = SEEN) -> bool:
    return all(getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in names)


def with_gaps_and_revisions(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Drop a tenth of the rows, blank some values, let some come late and revise some later."""
    random = np.random.default_rng(seed)
    size = table.height
    table = table.with_columns(
        pl.when(pl.Series(random.random(size) < 0.1)).then(None).otherwise(pl.col("y")).alias("y"),
        pl.col(AVAILABLE_AT) + pl.Series(np.where(random.random(size) < 0.1, 5, 0)) * timedelta(hours=1),
    ).filter(pl.Series(random.random(size) > 0.1))
    revised = table.filter(pl.Series(random.random(table.height) < 0.15)).with_columns(
        pl.col("y") + 100, pl.col(AVAILABLE_AT) + timedelta(hours=7), pl.col(COLLECTED_AT) + timedelta(hours=7)
    )
    return pl.concat([table, revised])


@pytest.fixture(params=["regular", "observed"])
def grid(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def zoned(small_task, grid):
    return small_task(timezone="America/New_York", grid=grid, features={"holidays": "US", "season": 24})


@FEW
@given(seed=st.integers(0, 10_000), row=st.integers(0, 10_000))
def test_a_row_served_alone_has_the_bits_it_had_in_training(zoned, observations, seed, row):
    panel = build_panel(with_gaps_and_revisions(observations(seed=seed), seed), zoned)
    recipe = make_recipe(zoned, panel)
    trained = make_examples(recipe, panel, np.arange(panel.size))
    row %= panel.size
    served = make_examples(recipe, panel, np.array([row]))
    assert same_bits(served, trained.take(np.array([row])))


@FEW
@given(seed=st.integers(0, 10_000), row=st.integers(150, 10_000))
def test_a_row_served_from_recent_history_has_the_bits_it_had_in_training(small_task, observations, seed, row):
    task = small_task(timezone="America/New_York", features={"lags": [0, 1, 24], "season": 24})
    table = with_gaps_and_revisions(observations(hours=900, seed=seed), seed)
    panel = build_panel(table, task)
    recipe = make_recipe(task, panel)
    row %= panel.size
    origin = moment(panel.timestamps[row])
    recent = table.filter(pl.col(TIMESTAMP).is_between(origin - recipe.lookback, origin))
    if recent.filter(pl.col("series_id") == panel.series_ids[panel.series_of[row]]).is_empty():
        return
    short = build_panel(recent, task, until=origin)
    name = panel.series_ids[panel.series_of[row]]
    issued = panel.issued_at[[row]]
    served = make_examples(recipe, short, np.array([short.rows_of(name).stop - 1]), issued)
    assert same_bits(served, make_examples(recipe, panel, np.array([row]), issued))


@FEW
@given(seed=st.integers(0, 10_000), row=st.integers(0, 10_000))
def test_nothing_that_became_known_after_the_forecast_was_issued_changes_it(zoned, observations, seed, row):
    table = with_gaps_and_revisions(observations(hours=250, seed=seed), seed)
    panel = build_panel(table, zoned)
    recipe = make_recipe(zoned, panel)
    row %= panel.size
    origin, issued = panel.timestamps[row], panel.issued_at[row]
    name = panel.series_ids[panel.series_of[row]]
    later = pl.col(AVAILABLE_AT).dt.epoch("us") > issued
    changed = table.with_columns(
        pl.when(later).then(pl.col(column) * 3 + 7).otherwise(pl.col(column)).alias(column) for column in ("y", "x")
    )
    # on the observed grid a late bar keeps its place as a missing value, so only its values may change here
    removed = table.filter(~later | (pl.col(TIMESTAMP).dt.epoch("us") == origin))
    for other in (changed, removed) if zoned.grid == "regular" else (changed,):
        again = build_panel(other, zoned, until=moment(origin))
        if name not in again.series_ids or again.timestamps[again.rows_of(name).start] > origin:
            continue  # nothing of the series was known
        place = again.rows_of(name).start + np.searchsorted(again.timestamps[again.rows_of(name)], origin)
        seen = ("origin", "step", "last", "seasonal")
        now = make_examples(recipe, again, np.array([place]), np.array([issued]))
        assert same_bits(now, make_examples(recipe, panel, np.array([row])), seen)


@FEW
@given(seed=st.integers(0, 10_000))
def test_the_columns_of_a_model_are_laid_out_as_it_learnt_them_whatever_the_task_says_now(
    small_task, observations, seed
):
    first = small_task(columns={"y": {}, "x": {}, "z": {}})
    table = observations(seed=seed).with_columns((pl.col("x") * 2).alias("z"))
    panel = build_panel(table, first)
    recipe = make_recipe(first, panel)
    later = build_panel(table, small_task(columns={"z": {}, "y": {}, "x": {}}), columns=recipe.columns)
    rows = np.arange(panel.size)
    assert same_bits(make_examples(recipe, later, rows), make_examples(recipe, panel, rows))


@FEW
@given(seed=st.integers(0, 10_000), row=st.integers(0, 10_000))
def test_a_forecast_of_a_covariate_changes_nothing_that_was_issued_before_it(small_task, observations, seed, row):
    source = {"provider": "file", "path": "table.parquet", "issued": "issued.parquet"}
    task = small_task(source=source, columns={"y": {}, "x": {"ahead": True}})
    table, random = with_gaps_and_revisions(observations(hours=60, seed=seed), seed), np.random.default_rng(seed)
    size = 400
    issued_at = table[AVAILABLE_AT].sample(size, with_replacement=True, seed=seed)
    told = pl.DataFrame(
        {
            "series_id": random.choice(["a", "b", "c"], size),
            TIMESTAMP: issued_at + pl.Series(random.integers(-3, 9, size)) * timedelta(minutes=30),
            AVAILABLE_AT: issued_at,
            COLLECTED_AT: issued_at,
            "x": random.normal(size=size),
        }
    )
    panel = build_panel(table, task, ahead=conform(told, ["x"]))
    recipe = make_recipe(task, panel)
    row %= panel.size
    served = make_examples(recipe, panel, np.array([row]))
    assert same_bits(served, make_examples(recipe, panel, np.arange(panel.size)).take(np.array([row])))  # parity
    by_then = pl.col(AVAILABLE_AT).dt.epoch("us") <= panel.issued_at[row]
    own = pl.col("series_id") == panel.series_ids[panel.series_of[row]]
    changed = told.with_columns(pl.when(by_then & own).then(pl.col("x")).otherwise(pl.col("x") * 3 + 7))
    for other in (changed, told.filter(by_then), told.filter(by_then & own).sample(fraction=1, shuffle=True, seed=1)):
        assert same_bits(
            served, make_examples(recipe, build_panel(table, task, ahead=conform(other, ["x"])), np.array([row]))
        )


@FEW
@given(seed=st.integers(0, 10_000))
def test_the_order_in_which_rows_arrive_changes_nothing(zoned, observations, seed):
    table = with_gaps_and_revisions(observations(hours=120, seed=seed), seed)
    panel, shuffled = build_panel(table, zoned), build_panel(table.sample(fraction=1, shuffle=True, seed=seed), zoned)
    recipe = make_recipe(zoned, panel)
    rows = np.arange(panel.size)
    assert same_bits(make_examples(recipe, panel, rows), make_examples(recipe, shuffled, rows), (*SEEN, "truth"))


@FEW
@given(seed=st.integers(0, 10_000))
def test_removing_one_series_leaves_the_others_features(zoned, observations, seed):
    table = with_gaps_and_revisions(observations(hours=120, series=("a", "b", "c"), seed=seed), seed)
    panel = build_panel(table, zoned)
    recipe = make_recipe(zoned, panel)
    alone = build_panel(table.filter(pl.col("series_id") == "b"), zoned)
    own = np.arange(panel.size)[panel.rows_of("b")]
    assert same_bits(make_examples(recipe, alone, np.arange(alone.size)), make_examples(recipe, panel, own))


def test_the_training_table_holds_every_bit_of_the_examples(zoned, observations):
    panel = build_panel(with_gaps_and_revisions(observations(), 1), zoned)
    recipe = make_recipe(zoned, panel)
    examples = make_examples(recipe, panel, np.arange(panel.size))
    assert same_bits(from_table(to_table(examples), recipe), examples, (*SEEN, "truth", "series", "issued_at"))


def test_features_survive_a_cast_to_float32_and_json(zoned, observations):
    panel = build_panel(observations(), zoned)
    examples = make_examples(make_recipe(zoned, panel), panel, np.arange(panel.size))
    for matrix in (examples.origin, *examples.step):
        assert matrix.dtype == np.float32
        through_json = np.array([float(repr(value)) for value in matrix.ravel().tolist()]).astype(np.float32)
        assert np.array_equal(through_json, matrix.ravel(), equal_nan=True)


def test_micros_and_moment_are_inverse(observations):
    for at in observations(hours=5)[TIMESTAMP]:
        assert moment(micros(at)) == at
