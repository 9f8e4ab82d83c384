"""A model weighs its members, and says a number for every step of every origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastle.models.estimators import predict
from forecastle.models.learning import Fitted
from forecastle.models.intervals import Spread
from forecastle.models.model import Model, apply, combine

PERSISTENCE, SEASONAL = Fitted("persistence"), Fitted("seasonal_naive")


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(), observations(hours=100))


@pytest.fixture
def model(examples):
    spread = Spread((1.0, 2.0, 3.0), 0.0, 2.0)
    return Model(examples.recipe, "blend", (PERSISTENCE, SEASONAL), (0.25, 0.75), spread, 0.9, {"a": 10.0, "b": 12.0})


def test_members_count_by_their_weights(model, examples):
    value = apply(model, examples).value
    expected = 0.25 * predict(PERSISTENCE, examples) + 0.75 * predict(SEASONAL, examples)
    assert np.allclose(value, expected)


def test_the_width_is_each_steps_quantile_of_the_error_expected(model, examples):
    assert apply(model, examples).half[7].tolist() == [2.0, 4.0, 6.0]


def test_where_a_member_says_nothing_the_season_before_then_the_last_value_then_the_mean_stands_in(model, examples):
    silent = np.full((len(examples), 3), np.nan)
    assert (combine(model, examples, [silent, silent]).value == examples.seasonal).all()
    no_season = replace(examples, seasonal=silent)
    assert (combine(model, no_season, [silent, silent]).value == examples.last[:, None]).all()
    nothing = replace(no_season, last=silent[:, 0])
    value = combine(model, nothing, [silent, silent]).value
    assert (value == np.where(examples.series == 0, 10.0, 12.0)[:, None]).all()


def test_a_series_the_model_does_not_know_gets_the_mean_of_all(model, examples):
    silent = np.full((len(examples), 3), np.nan)
    nothing = replace(examples, series_ids=("a", "new"), seasonal=silent, last=silent[:, 0])
    value = apply(model, nothing).value
    assert (value[examples.series == 1] == 11.0).all()
    assert (apply(replace(model, usual={}), nothing).value == 0.0).all()
