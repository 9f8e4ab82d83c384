"""Examples hold what a model may see beside what came true, and what was known of it when."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import from_table, make_examples, to_table
from forecastle.data.panel import build_panel, micros
from forecastle.data.transformation import make_recipe

HOUR = timedelta(hours=1)
EVERYTHING = (
    "series",
    "origins",
    "issued_at",
    "origin",
    "step",
    "times",
    "last",
    "seasonal",
    "truth",
    "outcome",
    "outcome_at",
)


def examples_of(task, table):
    panel = build_panel(table, task)
    return make_examples(make_recipe(task, panel), panel, np.arange(panel.size))


def test_the_truth_of_a_step_is_the_value_so_many_steps_later(small_task, observations):
    table = observations(hours=50, series=("a",))
    examples = examples_of(small_task(), table)
    assert examples.truth[10].tolist() == table["y"][11:14].to_list()
    assert np.isnan(examples.truth[48]).tolist() == [False, True, True]
    assert examples.times[10].tolist() == [micros(at) for at in table["timestamp"][11:14]]


def test_a_revised_truth_is_the_newest_and_its_outcome_the_first(small_task, observations):
    table = observations(hours=50, series=("a",))
    revised = table[20:21].with_columns(pl.col("y") + 100, pl.col("available_at") + 9 * HOUR)
    examples = examples_of(small_task(), pl.concat([table, revised]))
    assert examples.truth[19, 0] == table["y"][20] + 100
    assert examples.outcome[19, 0] == table["y"][20]
    assert examples.outcome_at[19, 0] == micros(table["available_at"][20])


def test_a_value_that_came_late_is_an_outcome_from_then_on(small_task, observations):
    table = observations(hours=50, series=("a",))
    number = pl.int_range(pl.len())
    empty = table.with_columns(pl.when(number == 20).then(None).otherwise(pl.col("y")).alias("y"))
    came = table[20:21].with_columns(pl.col("available_at") + 9 * HOUR)
    examples = examples_of(small_task(), pl.concat([empty, came]))
    assert examples.outcome[18, 1] == table["y"][20]
    assert examples.outcome_at[18, 1] == micros(table["available_at"][20] + 9 * HOUR)


def test_a_truth_that_never_came_has_no_outcome(small_task, observations):
    examples = examples_of(small_task(), observations(hours=50, series=("a",)))
    assert np.isnan(examples.outcome[-1]).all()
    assert np.array_equal(np.isnan(examples.outcome), np.isnan(examples.truth))


def test_what_a_model_may_learn_at_a_moment_is_what_was_known_by_then(small_task, observations):
    table = observations(hours=50, series=("a",))
    revised = table[5:6].with_columns(pl.col("y") + 100, pl.col("available_at") + 30 * HOUR)
    examples = examples_of(small_task(), pl.concat([table, revised]))
    moment = micros(table["available_at"][20])
    known = examples.known_by(moment)
    assert known.truth[4, 0] == table["y"][5]
    assert not np.isnan(known.truth[:20, 0]).any() and np.isnan(known.truth[20:]).all()


def test_taking_origins_keeps_everything_that_is_theirs(small_task, observations):
    examples = examples_of(small_task(), observations(hours=50))
    some = examples.take(np.array([70, 3]))
    assert len(some) == 2 and some.steps == 3
    assert some.origins.tolist() == examples.origins[[70, 3]].tolist()
    assert np.array_equal(some.at(2), examples.at(2)[[70, 3]], equal_nan=True)
    assert np.array_equal(some.outcome_at, examples.outcome_at[[70, 3]])


@pytest.mark.parametrize("column", ["x", "o3@1", "persistence", "time", "minute", "truth@2"])
def test_the_table_gives_the_examples_back_whatever_a_column_is_called(small_task, observations, column):
    task = small_task(columns={"y": {}, column: {}})
    examples = examples_of(task, observations(hours=80).rename({"x": column}))
    again = from_table(to_table(examples), examples.recipe)
    assert (again.origin_names, again.step_names, again.series_ids) == (
        examples.origin_names,
        examples.step_names,
        examples.series_ids,
    )
    assert all(getattr(again, name).tobytes() == getattr(examples, name).tobytes() for name in EVERYTHING)
