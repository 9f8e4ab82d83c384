"""What serves is decided on errors out of sample, and persistence serves where nothing earned more."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecastle.models import selection
from forecastle.models.estimators import LEARNERS, NAIVE, candidates
from forecastle.models.selection import blend_weights, choose, mean_and_error


def random_walk(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    steps = np.random.default_rng(seed).normal(0, 1, table.height)
    return table.with_columns(pl.Series("y", np.cumsum(steps)).alias("y"))


@pytest.mark.parametrize("seed", range(6))
def test_blend_weights_are_what_a_search_of_the_whole_grid_finds(seed):
    random = np.random.default_rng(seed)
    errors = random.normal(size=(500, 3)) @ random.normal(size=(3, 3)) + 0.3 * random.normal(size=(500, 1))
    covariance = errors.T @ errors / 500
    covariance += selection.SHRINKAGE * np.trace(covariance) / 3 * np.eye(3)
    hundredths = [
        np.array([a, b, 100 - a - b]) / 100 for a, b in itertools.product(range(101), repeat=2) if a + b <= 100
    ]
    best = min(hundredths, key=lambda weights: weights @ covariance @ weights)
    found = blend_weights(errors)
    assert found @ covariance @ found <= best @ covariance @ best + 1e-12
    assert np.abs(found - best).max() <= 0.02
    assert found.sum() == pytest.approx(1) and (found >= 0).all()


def test_equal_members_get_equal_weights_and_a_hopeless_one_none():
    errors = np.random.default_rng(0).normal(size=(2000, 1)) * np.array([1.0, 1.0, 30.0])
    assert blend_weights(errors) == pytest.approx([0.5, 0.5, 0.0], abs=0.01)


def test_members_without_any_error_share_the_weight():
    assert blend_weights(np.zeros((10, 4))) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("seed", range(3))
def test_on_a_random_walk_persistence_serves(small_task, observations, examples_of, quick, seed):
    examples = examples_of(small_task(), random_walk(observations(hours=600, series=("a",)), seed))
    choice = choose(examples, int(examples.times.max()), quick)
    assert choice.weights == {"persistence": 1.0} and choice.estimator == "persistence"
    assert choice.gain <= choice.gain_error


def test_on_a_daily_cycle_learners_serve_and_the_blend_is_no_worse_than_the_best_of_them(
    small_task, observations, examples_of, quick
):
    examples = examples_of(small_task(), observations())
    choice = choose(examples, int(examples.times.max()), quick)
    assert set(choice.weights) <= set(LEARNERS) and sum(choice.weights.values()) == pytest.approx(1)
    assert all(weight >= selection.LEAST_WEIGHT for weight in choice.weights.values())
    assert choice.gain > choice.gain_error
    assert set(choice.rmse) == {*candidates(examples.recipe), "blend"}
    assert choice.rmse["blend"] <= 1.01 * min(rmse for name, rmse in choice.rmse.items() if name not in NAIVE)


def test_every_validated_truth_comes_after_everything_its_fold_learnt_from(
    small_task, observations, examples_of, quick
):
    examples = examples_of(small_task(), observations())
    start, until = int(examples.origins.min()), int(examples.times.max())
    for (learnt, validated), errors in zip(selection.FOLDS, choose(examples, until, quick).errors, strict=True):
        pairs = errors.pairs
        cut, stop = start + int((until - start) * learnt), start + int((until - start) * validated)
        assert (pairs.examples.origins[pairs.row] >= cut).all()
        assert (pairs.pick(pairs.examples.times) > cut).all() and (pairs.pick(pairs.examples.times) <= stop).all()


def test_truths_after_until_change_no_choice(small_task, observations, examples_of, quick):
    examples = examples_of(small_task(), observations())
    until = int(np.median(examples.origins))
    other = replace(examples, truth=np.where(examples.times > until, -examples.truth, examples.truth))
    one, two = choose(examples, until, quick), choose(other, until, quick)
    assert (one.weights, one.gain, one.rmse) == (two.weights, two.gain, two.rmse)


def test_where_there_is_too_little_to_validate_on_persistence_serves_with_its_own_errors(
    small_task, observations, examples_of, quick
):
    examples = examples_of(small_task(), observations(hours=3))
    choice = choose(examples, int(examples.origins.min()) + 3_600_000_000, quick)
    assert choice.weights == {"persistence": 1.0}
    (errors,) = choice.errors
    assert len(errors.truth) == 2 and np.isfinite(errors.forecast).all()


def test_very_many_pairs_are_validated_on_an_even_share_of_origins(
    small_task, observations, examples_of, quick, monkeypatch
):
    monkeypatch.setattr(selection, "VALIDATION_PAIRS", 90)
    examples = examples_of(small_task(), observations())
    for errors in choose(examples, int(examples.times.max()), quick).errors:
        assert 30 <= len(errors.truth) <= 90
        assert set(errors.pairs.step) == {1, 2, 3}
        assert set(errors.pairs.examples.series[errors.pairs.row]) == {0, 1}


def test_the_standard_error_is_that_of_independent_days_and_wider_where_days_hang_together(
    small_task, observations, examples_of
):
    examples = examples_of(small_task(), observations(hours=24 * 200, series=("a",)))
    rows, random = np.arange(len(examples)), np.random.default_rng(0)
    alone = np.repeat(random.normal(2, 1, 200), 24)
    mean, error = mean_and_error(examples, rows, alone)
    assert mean == pytest.approx(2, abs=0.2)
    assert error == pytest.approx(1 / np.sqrt(200), rel=0.25)
    three_days = np.repeat(random.normal(2, 1, 67), 72)[: 200 * 24]
    assert mean_and_error(examples, rows, three_days)[1] > 1.3 * error


def test_from_a_single_day_no_standard_error_can_be_had(small_task, observations, examples_of):
    examples = examples_of(small_task(), observations(hours=20))
    assert mean_and_error(examples, np.arange(len(examples)), np.ones(len(examples))) == (1.0, float("inf"))


@pytest.mark.parametrize(
    ("error", "serves"), [(0.99, "the blend"), (1.0, "persistence"), (float("inf"), "persistence")]
)
def test_a_model_serves_only_where_it_saves_more_than_one_standard_error_against_persistence(
    small_task, observations, examples_of, quick, monkeypatch, error, serves
):
    monkeypatch.setattr(selection, "mean_and_error", lambda examples, rows, saved: (1.0, error))
    examples = examples_of(small_task(), observations(hours=200))
    choice = choose(examples, int(examples.times.max()), quick)
    assert (choice.weights == {"persistence": 1.0}) == (serves == "persistence")
