"""A small task and examples of made-up observations, for the models' tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import build_panel
from forecastle.data.transformation import make_recipe
from forecastle.models.bundle import Bundle, examined
from forecastle.models.intervals import Spread
from forecastle.models.learning import Fitted, Options
from forecastle.models.model import Model
from forecastle.settings import Settings
from forecastle.task import Task


@pytest.fixture
def quick() -> Options:
    """Options with which everything is learnt in a moment."""
    return Options(rows=3_000, ridge_rows=600, rounds=25)


@pytest.fixture
def examples_of() -> Callable[[Task, pl.DataFrame], Examples]:
    """Make the examples of every row of a table of observations."""

    def make(task: Task, table: pl.DataFrame) -> Examples:
        panel = build_panel(table, task)
        return make_examples(make_recipe(task, panel), panel, np.arange(panel.size))

    return make


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One registry for all: MLflow takes seconds to make its tables."""
    return Settings(home=tmp_path_factory.mktemp("registry") / "home", commit="c0ffee")


@pytest.fixture
def own_task(task: Task, request: pytest.FixtureRequest) -> Task:
    """A task that only this test uses."""
    return task.model_copy(update={"name": f"t{abs(hash(request.node.nodeid))}"})


@pytest.fixture
def make_bundle(
    own_task: Task, small_task: Callable[..., Task], observations: Callable[..., pl.DataFrame]
) -> Callable[..., Bundle]:
    """Make a small bundle of persistence, with a self-check; ``usual`` tells one from another."""

    def make(usual: float = 1.0) -> Bundle:
        table = observations(hours=60)
        recipe = make_recipe(small_task(), build_panel(table, small_task()))
        now = datetime(2013, 12, 1, 12, tzinfo=UTC)
        model = Model(recipe, "persistence", (Fitted("persistence"),), (1.0,), Spread((1.0,) * 3, 0.1, usual), 0.9, {})
        scores = {"rmse": 2.0, "mae": 1.0, "skill": 0.25, "n": 9, "horizons": [{"horizon": 1, "rmse": 1.5}]}
        backtest = {**scores, "candidates": {"ridge": scores, "persistence": scores}}
        bare = Bundle(own_task.name, own_task.digest, "", "abc", now, now, model, ("lag_0", "lag_1"), backtest, {})
        return examined(bare, table)

    return make
