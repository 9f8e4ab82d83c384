"""What is issued are a published model's forecasts, recalibrated by its own outcomes."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from forecastle.models.bundle import Bundle
from forecastle.models.learning import Fitted
from forecastle.models.intervals import Spread
from forecastle.models.model import Model
from forecastle.models.predictor import forecast

NOW = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture
def newest(small_task, observations, examples_of):
    examples = examples_of(small_task(), observations(hours=100))
    return examples.take(examples.origins == examples.origins.max())


@pytest.fixture
def bundle(newest) -> Bundle:
    spread = Spread((1.0, 2.0, 3.0), 0.0, 2.0)
    model = Model(newest.recipe, "persistence", (Fitted("persistence"),), (1.0,), spread, 0.9, {})
    return Bundle("small", "abc", "7", "d41d", NOW, NOW, model, newest.names, {}, {})


def width(rows: pl.DataFrame) -> np.ndarray:
    return (rows["upper"] - rows["lower"]).to_numpy().reshape(2, 3)


def test_every_series_gets_every_step_with_all_the_journal_keeps(bundle, newest):
    rows = forecast(bundle, newest, NOW, {})
    assert rows.select("series_id", "horizon").rows() == [(name, step) for name in ("a", "b") for step in (1, 2, 3)]
    assert rows["value"].to_list() == rows["last"].to_list() == np.repeat(newest.last, 3).tolist()
    told = {"task": "small", "model_version": "7", "data_version": "d41d", "issued_at": NOW, "estimator": "persistence"}
    assert rows.select(told.keys()).unique().row(0, named=True) == told
    assert "actual" not in rows.columns


def test_without_outcomes_intervals_are_as_trained(bundle, newest):
    assert np.allclose(width(forecast(bundle, newest, NOW, {})), [[4, 8, 12]] * 2)


def test_missed_outcomes_widen_their_step_most_their_series_too_and_no_other_series(bundle, newest):
    wider = width(forecast(bundle, newest, NOW, {("a", 2): (10, 10)})) / [4, 8, 12]
    assert wider[0, 1] > wider[0, 0] > wider[1, 1] == wider[1, 0]
    assert wider[1, 0] == pytest.approx(1)


def test_outcomes_of_a_series_or_a_step_no_longer_forecast_change_nothing(bundle, newest):
    rows = forecast(bundle, newest, NOW, {("gone", 1): (10, 10), ("a", 9): (10, 10)})
    assert rows.equals(forecast(bundle, newest, NOW, {}))
