"""Parameters are searched for where the task asks for it, inside the training part, and no longer than it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from forecastle.errors import TaskError
from forecastle.models import tuning
from forecastle.models.training import train
from forecastle.models.tuning import SPACE, STUDY, tune

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(), observations(hours=300))


def until(examples) -> int:
    return int(np.quantile(examples.origins, 0.8))


def test_the_defaults_are_tried_however_short_the_time_and_nothing_found_is_worse(
    examples, quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(tuning, "MOST", 3)
    found = tune(examples, until(examples), quick, 0.0, tmp_path, "study")
    assert found.trials == 1 and found.rmse == found.default_rmse
    assert found.boosting["learning_rate"] == pytest.approx(0.07)
    assert found.boosting.keys() == SPACE.keys()
    more = tune(examples, until(examples), quick, 3_600.0, tmp_path, "study")
    assert more.trials == 3 and more.rmse <= more.default_rmse == found.rmse
    assert tune(examples, until(examples), quick, 3_600.0, tmp_path / "again", "study") == more  # the seed is the same


def test_a_study_that_has_spent_its_time_is_taken_up_as_it_was_left(examples, quick, tmp_path):
    first = tune(examples, until(examples), quick, 0.0, tmp_path, "study")
    assert (tmp_path / STUDY).exists()
    assert tune(examples, until(examples), quick, 0.0, tmp_path, "study") == first
    other = tune(examples, until(examples), quick, 0.0, tmp_path, "of other data")
    assert other.trials == 1


def test_truths_of_the_back_tests_part_tune_nothing(examples, quick, tmp_path):
    last = until(examples)
    other = replace(examples, truth=np.where(examples.times > last, 9 * examples.truth, examples.truth))
    one, two = (
        tune(made, last, quick, 0.0, tmp_path / name, "study") for made, name in ((examples, "a"), (other, "b"))
    )
    assert one == two


def test_where_there_is_nothing_to_validate_on_nothing_is_tuned(examples, quick, tmp_path):
    assert tune(examples, int(examples.times.min()) - 1, quick, 0.0, tmp_path, "study") is None


def test_a_trained_model_says_how_it_was_tuned(small_task, observations, examples_of, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("forecastle.models.training.Options", lambda seed: quick)
    task = small_task(training={"min_history": "5d", "tune": "1s"})
    examples = examples_of(task, observations(hours=300))
    bundle = train(task, examples, "d41d8", {}, NOW, tmp_path).bundle
    assert bundle.backtest["tuning"]["trials"] >= 1
    trees = next(member.trees.text for member in bundle.model.members if member.trees)
    assert f"[num_iterations: {bundle.backtest['tuning']['boosting']['num_iterations']}]" in trees
    assert "tuning" not in train(task, examples, "d41d8", {}, NOW).bundle.backtest


def test_no_time_to_tune_is_a_mistake_in_the_task(small_task):
    with pytest.raises(TaskError, match="tune is how long"):
        small_task(training={"tune": "0s"})
