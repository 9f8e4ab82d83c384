"""What all tests share: the shipped task, made-up observations, and strictness where CI runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle.frame import conform
from forecastle.task import Task, load_task, make_task

ROOT = Path(__file__).parent.parent
SMALL = """
name = "small"
domain = "environmental"
timezone = "America/New_York"
frequency = "1h"
horizon = "2h"
target = "temperature_2m"

[source]
provider = "open-meteo"
start = 2013-11-01
instantaneous = true

[columns.temperature_2m]
unit = "°C"
minimum = -50
maximum = 55
max_null_share = 0.05

[[series]]
id = "JFK"
latitude = 40.6398
longitude = -73.7789

[features]
windows = [3]
season = 24

[training]
min_history = "10d"
"""
Served = Callable[[Any], AbstractContextManager[str]]


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


@pytest.fixture(scope="session")
def small_toml() -> str:
    """The file of a small task on the recorded weather, quick to train."""
    return SMALL


@pytest.fixture(scope="session")
def served() -> Served:
    """Serve an app on a free port of this machine for as long as a block runs, which is given its address."""

    import uvicorn

    from forecastle.serving.server import listen

    @contextmanager
    def serve(app: Any) -> Iterator[str]:
        with listen("127.0.0.1", 0) as (door, address):
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
            thread.start()
            try:
                yield address
            finally:
                server.should_exit = True
                thread.join(10)

    return serve


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
