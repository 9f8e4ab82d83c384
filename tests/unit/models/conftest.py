"""A small task and examples of made-up observations, for the models' tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import build_panel
from forecastle.data.transformation import make_recipe
from forecastle.models.learning import Options
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
