"""Every candidate learns from examples, whatever they lack, and what it learnt is plain."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecastle.frame import TIMESTAMP
from forecastle.models import har
from forecastle.models.estimators import ESTIMATORS, LEARNERS, fit_all, predict
from forecastle.models.learning import (
    GROWTH,
    Fitted,
    Lesson,
    Options,
    all_pairs,
    at_once,
    both,
    fit_threads,
    labelled,
    spread_out,
    thinned,
    tree_names,
)

HOUR = 3_600_000_000


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(), observations(hours=500))


def middle(examples) -> int:
    return int(np.median(examples.origins))


def rmse(forecast, truth) -> float:
    return float(np.sqrt(np.nanmean((forecast - truth) ** 2)))


def test_persistence_forecasts_the_last_value_for_every_step(examples):
    forecast = predict(Fitted("persistence"), examples)
    assert forecast.shape == (len(examples), 3)
    assert (forecast == examples.last[:, None]).all()


def test_seasonal_naive_forecasts_the_value_of_a_day_before(examples):
    forecast = predict(Fitted("seasonal_naive"), examples)
    row = 100
    assert forecast[row, 0] == examples.truth[row - 24, 0]


@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in har.NAMES])
def test_every_learner_beats_persistence_on_a_daily_cycle_it_has_not_seen(examples, quick, name):
    until = middle(examples)
    after = examples.take(examples.origins > until)
    fitted = ESTIMATORS[name].fit(examples, until, quick)
    assert rmse(predict(fitted, after), after.truth) < 0.9 * rmse(after.last[:, None], after.truth)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_after_until_is_learnt_from(examples, quick, name):
    until = middle(examples)
    other = replace(examples, truth=np.where(examples.times > until, examples.truth * 3 + 7, examples.truth))
    before = predict(ESTIMATORS[name].fit(examples, until, quick), examples)
    assert before.tobytes() == predict(ESTIMATORS[name].fit(other, until, quick), examples).tobytes()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_examples_and_seed_give_the_same_fit_alone_and_after_others(examples, quick, name):
    until = middle(examples)
    first = ESTIMATORS[name].fit(examples, until, quick)
    for other in LEARNERS:
        ESTIMATORS[other].fit(examples, until, quick)
    again = ESTIMATORS[name].fit(examples.take(np.arange(len(examples))), until, quick)
    assert first == again


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_numbers_of_a_fit_survive_json(examples, quick, name):
    fitted = ESTIMATORS[name].fit(examples, middle(examples), quick)
    again = replace(fitted, numbers=json.loads(json.dumps(fitted.numbers)))
    assert predict(again, examples).tobytes() == predict(fitted, examples).tobytes()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_covariate_that_is_never_there_and_a_target_that_never_varies_are_learnt_without_complaint(
    small_task, observations, examples_of, quick, name
):
    table = observations(hours=300).with_columns(pl.lit(None, dtype=pl.Float64).alias("x"), pl.lit(3.0).alias("y"))
    examples = examples_of(small_task(), table)
    forecast = predict(ESTIMATORS[name].fit(examples, middle(examples), quick), examples)
    assert np.allclose(forecast, 3.0)


@pytest.mark.parametrize("name", LEARNERS)
def test_one_example_is_enough_to_fit_on(examples, quick, name):
    until = int(examples.times.min())
    assert 1 <= labelled(examples, until).sum() <= 2
    forecast = predict(ESTIMATORS[name].fit(examples, until, quick), examples.take(np.arange(50)))
    assert np.isfinite(forecast).all()


def test_ridge_forecasts_no_change_for_a_step_whose_truth_it_never_saw(examples, quick):
    fitted = ESTIMATORS["ridge"].fit(examples, int(examples.times[:, 0].min()), quick)
    forecast = predict(fitted, examples)
    assert (forecast[:, 2] == examples.last).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_series_the_model_has_not_seen_is_forecast_too(small_task, observations, examples_of, quick, name):
    both = examples_of(small_task(), observations(hours=300))
    recipe = replace(both.recipe, series_ids=("b",))
    numbers = np.where(both.series == 0, np.nan, 0.0).astype(np.float32)
    origin = both.origin.copy()
    origin[:, both.origin_names.index("series")] = numbers
    strange = replace(both, recipe=recipe, origin=origin)
    fitted = ESTIMATORS[name].fit(strange.take(strange.series == 1), middle(both), quick)
    assert np.isfinite(predict(fitted, strange)).all()


@pytest.mark.parametrize("column", ["temp, [°C]", 'a "b": {c}', "o3@1", "lag 1", "Zoë"])
def test_a_column_may_be_called_anything(small_task, observations, examples_of, quick, column):
    task = small_task(columns={"y": {}, column: {}, "temp_ [_C]": {}})
    table = observations(hours=200).rename({"x": column}).with_columns(pl.col(column).alias("temp_ [_C]"))
    examples = examples_of(task, table)
    for name in LEARNERS:
        assert np.isfinite(predict(ESTIMATORS[name].fit(examples, middle(examples), quick), examples)).all()


def test_names_of_trees_are_plain_and_each_there_once():
    assert tree_names(["lag_0", "a b", "a_b", "a:b", "é"]) == ["lag_0", "a_b_1", "a_b_2", "a_b_3", "_"]


def test_a_pair_is_learnt_from_only_with_a_truth_by_then_and_a_last_value(examples):
    truth, last = examples.truth.copy(), examples.last.copy()
    truth[5, 1], last[7] = np.nan, np.nan
    examples, until = replace(examples, truth=truth, last=last), middle(examples)
    known = labelled(examples, until)
    assert not known[5, 1] and not known[7].any() and known[5, 0]
    assert (examples.times[known] <= until).all()
    assert known[(examples.times <= until).all(axis=1) & (np.arange(len(known)) > 7)].all()


def test_thinned_pairs_are_spread_over_time_series_and_steps(examples):
    pairs = thinned(labelled(examples, int(examples.times.max())), examples, 300)
    assert len(pairs.row) == 300
    assert np.bincount(pairs.step)[1:].tolist() == [100, 100, 100]
    thirds = np.bincount((examples.origins[pairs.row] - examples.origins.min()) // (170 * HOUR))
    assert thirds.min() > 80
    assert set(examples.series[pairs.row]) == {0, 1}


def test_origins_spread_out_meet_every_hour_of_the_day_and_every_series(observations):
    table = observations(hours=3000)
    origins = table[TIMESTAMP].dt.epoch("us").to_numpy()
    chosen = spread_out(origins, 500)
    assert 300 <= chosen.sum() <= 500
    assert len(np.unique(origins[chosen] // HOUR % 24)) == 24
    assert (np.unique(origins[chosen], return_counts=True)[1] == 2).all()
    assert spread_out(origins, 100_000).all()


def test_pairs_pick_and_spread_are_inverse(examples):
    pairs = all_pairs(examples)
    assert np.array_equal(pairs.spread(pairs.pick(examples.truth)), examples.truth, equal_nan=True)
    assert pairs.matrix.shape == (3 * len(examples), len(pairs.names))
    assert pairs.names[-1] == "step_ahead"


def test_little_work_is_given_to_one_thread():
    assert fit_threads(1_000) == 1
    assert fit_threads(Options().rows) == 2


def test_many_steps_ahead_are_learnt_from_fewer_pairs_each():
    options = Options()
    assert options.pairs(1) == options.pairs(6) == options.rows
    assert options.rows > options.pairs(12) > options.pairs(24) == options.pairs(72)
    assert Options(rows=1_000).pairs(24) == 1_000


def test_fitted_together_from_one_binned_matrix_each_learns_what_it_learns_alone(examples, quick):
    until = middle(examples)
    together = fit_all(ESTIMATORS, examples, until, quick)
    assert together == {name: one.fit(examples, until, quick) for name, one in ESTIMATORS.items()}


def test_what_goes_on_beside_changes_nothing_that_is_learnt(examples, quick):
    def fit() -> object:
        return fit_all(("ridge", "lightgbm_level"), examples, middle(examples), quick)

    alone = fit()
    assert both(fit, lambda: at_once(lambda _: fit(), range(2))) == (alone, [alone, alone])


def test_two_calls_made_at_once_give_their_own_answers_and_either_may_fail():
    assert both(lambda: 1, lambda: "two") == (1, "two")
    assert at_once(str, [3, 1, 2]) == ["3", "1", "2"] and at_once(str, [1]) == ["1"] and at_once(str, []) == []
    for pair in ((lambda: 1 / 0, lambda: 1), (lambda: 1, lambda: 1 / 0)):
        with pytest.raises(ZeroDivisionError):
            both(*pair)


def test_a_booster_keeps_the_parameters_it_was_grown_with(examples, quick):
    options = replace(quick, boosting={GROWTH: 2.0, "learning_rate": 0.2})
    fitted = ESTIMATORS["lightgbm_change"].fit(examples, middle(examples), options)
    told, trees = fitted.numbers["parameters"], fitted.trees.text
    assert (told["num_iterations"], told["learning_rate"]) == (50, 0.2)
    assert "[num_iterations: 50]" in trees and "[learning_rate: 0.2]" in trees
    assert f"[num_leaves: {told['num_leaves']}]" in trees and "num_threads" not in told


def test_boosters_that_learn_from_many_pairs_have_larger_trees_and_more_of_them(examples, monkeypatch):
    few = Lesson(examples, middle(examples), Options()).parameters
    monkeypatch.setattr("forecastle.models.learning.MANY", 100)
    many = Lesson(examples, middle(examples), Options()).parameters
    assert (few["num_leaves"], few["num_iterations"]) == (31, 150)
    assert (many["num_leaves"], many["num_iterations"]) == (63, 240)
