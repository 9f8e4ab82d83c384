"""An explanation is exact: where a forecast starts from and what the features add sum to the forecast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastle.data.panel import moment
from forecastle.models.estimators import ESTIMATORS
from forecastle.models.learning import Fitted
from forecastle.models.explanation import AVERAGE, LAST, SEASON, STAND_IN, explain, importance
from forecastle.models.intervals import Spread
from forecastle.models.model import Model, apply

LATE = np.iinfo(np.int64).max


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(), observations(hours=400))


@pytest.fixture
def model_of(examples, quick):
    def make(*names: str) -> Model:
        members = tuple(ESTIMATORS[name].fit(examples, LATE, quick) for name in names)
        weights = tuple(np.arange(1, len(names) + 1) / sum(range(1, len(names) + 1)))
        return Model(examples.recipe, "blend", members, weights, Spread((1.0,) * 3, 0, 1), 0.9, {"a": 1.0, "b": 2.0})

    return make


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("names", [(name,) for name in ESTIMATORS] + [tuple(ESTIMATORS)])
def test_the_parts_sum_to_the_forecast(examples, model_of, names, horizon) -> None:
    model, some = model_of(*names), examples.take(np.arange(60, 80))
    value = apply(model, some).value[:, horizon - 1]
    for told, expected in zip(explain(model, some, horizon), value, strict=True):
        assert told.value == expected
        assert sum(told.start.values()) + sum(told.features.values()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("persistence", {LAST}),
        ("seasonal_naive", {SEASON}),
        ("lightgbm_level", {AVERAGE}),
        ("lightgbm_change", {LAST, AVERAGE}),
        ("lightgbm_seasonal", {SEASON, AVERAGE}),
        ("ridge", {LAST, AVERAGE}),
    ],
)
def test_a_forecast_starts_from_what_its_member_adds_to(examples, model_of, name, start) -> None:
    told = explain(model_of(name), examples.take(np.array([70])), 2)[0]
    assert set(told.start) == start
    assert set(told.features) <= {*examples.names, "step_ahead", "hour"}


def test_the_largest_part_comes_first(examples, model_of) -> None:
    told = explain(model_of("lightgbm_change"), examples.take(np.array([70])), 1)[0]
    sizes = [abs(part) for part in told.features.values()]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0


def test_changing_a_feature_no_tree_splits_on_explains_nothing(examples, model_of) -> None:
    model = model_of("lightgbm_level")
    unused = set(examples.names) - set(importance(model, examples.names))
    told = explain(model, examples.take(np.arange(50, 90)), 1)
    assert unused and not any(unused & set(one.features) for one in told)


def test_where_a_member_cannot_say_the_whole_is_a_stand_in(examples) -> None:
    spread = Spread((1.0,) * 3, 0, 1)
    model = Model(examples.recipe, "persistence", (Fitted("persistence"),), (1.0,), spread, 0.9, {"a": 4.0, "b": 5.0})
    silent = replace(examples, last=examples.last * np.nan, seasonal=examples.seasonal * np.nan)
    told = explain(model, silent.take(np.array([5])), 1)[0]
    assert told.start == {STAND_IN: told.value} and told.features == {} and told.value in (4.0, 5.0)


def test_importance_is_a_share_of_what_the_trees_saved(examples, model_of) -> None:
    shares = importance(model_of("lightgbm_change", "ridge", "lightgbm_level"), examples.names)
    assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(shares.values(), reverse=True)
    assert importance(model_of("persistence", "ridge"), examples.names) == {}


def test_an_explanation_says_of_which_forecast_and_what_each_feature_was(examples, model_of) -> None:
    row = 70
    told = explain(model_of("lightgbm_change"), examples.take(np.array([row])), 2)[0]
    said = told.as_dict()
    assert (said["series_id"], said["horizon"]) == ("a", 2)
    assert said["timestamp"] - said["origin"] == 2 * (said["origin"] - moment(examples.origins[row - 1]))
    place = examples.names.index("lag_0")
    values = {one["name"]: one["value"] for one in said["features"]}
    assert values["lag_0"] == float(examples.origin[row, place])
    total = sum(one["adds"] for one in (*said["start"], *said["features"]))
    assert total == pytest.approx(said["value"], abs=1e-9)
