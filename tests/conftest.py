"""What all tests share: the shipped task, made-up observations, and strictness where CI runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.frame import conform
from forecastle.task import Task, load_task, make_task

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture
def task() -> Task:
    """The shipped nyc-temperature task."""
    return load_task(ROOT / "tasks" / "nyc-temperature.toml")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    for name in list(os.environ):
        if name.startswith("FORECASTLE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def missing_component() -> Callable[[str], None]:
    """Skip for a missing component, saying which and how to get it; where CI=true that is a failure instead."""

    def stop(reason: str) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
        pytest.skip(reason)

    return stop


@pytest.fixture
def small_task() -> Callable[..., Task]:
    """Make a small two-column hourly task on a file; keyword arguments replace its fields."""

    def make(**fields: object) -> Task:
        data: dict[str, object] = {
            "name": "small",
            "domain": "environmental",
            "frequency": "1h",
            "horizon": "3h",
            "target": "y",
            "source": {"provider": "file", "path": "table.parquet"},
            "columns": {"y": {}, "x": {}},
        }
        return make_task(data | fields)

    return make


@pytest.fixture
def observations() -> Callable[..., pl.DataFrame]:
    """Make observations of a daily cycle with noise, for some series and steps."""

    def make(
        hours: int = 400,
        series: tuple[str, ...] = ("a", "b"),
        seed: int = 0,
        step: timedelta = timedelta(hours=1),
        start: datetime = datetime(2024, 1, 1, tzinfo=UTC),
    ) -> pl.DataFrame:
        random = np.random.default_rng(seed)
        tables = []
        for number, name in enumerate(series):
            at = [start + step * hour for hour in range(hours)]
            cycle = np.sin(np.arange(hours) * 2 * np.pi / (timedelta(days=1) / step))
            tables.append(
                pl.DataFrame(
                    {
                        "series_id": name,
                        "timestamp": at,
                        "available_at": [one + step for one in at],
                        "collected_at": start + step * (hours + 1),
                        "y": 10 + number + 5 * cycle + random.normal(0, 1, hours),
                        "x": cycle + random.normal(0, 0.2, hours),
                    }
                )
            )
        return conform(pl.concat(tables), ["y", "x"])

    return make
