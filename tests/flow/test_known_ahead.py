"""A covariate that is known ahead, from its source's forecasts to the features of training, live runs and requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from forecastle import steps
from forecastle.data.ahead import ISSUED_AT
from forecastle.models.bundle import Bundle
from forecastle.models.intervals import Spread
from forecastle.models.learning import Fitted
from forecastle.models.model import Model
from forecastle.pipeline import open_run
from forecastle.serving import workbench
from forecastle.settings import Settings
from forecastle.task import Task, make_task

HOUR = timedelta(hours=1)
NOW = datetime(2024, 2, 20, 12, tzinfo=UTC)
HOURS = 900


def task_in(folder: Path) -> Task:
    """Return a task on a table of two series, whose x is forecast each noon for two days."""
    random, first = np.random.default_rng(0), NOW - HOURS * HOUR
    at = [first + hour * HOUR for hour in range(HOURS + 1)]
    rows, told = [], []
    for name in ("a", "b"):
        x = np.sin(np.arange(HOURS + 49) / 9) + random.normal(0, 0.1, HOURS + 49)
        y = 3 * x[: len(at)] + random.normal(0, 0.1, len(at))
        rows.append(pl.DataFrame({"series_id": name, "timestamp": at, "y": y, "x": x[: len(at)]}))
        for issue in range(24 * 20, HOURS + 1, 12):
            times = [first + (issue + hour) * HOUR for hour in range(49)]
            guess = x[issue : issue + 49] + random.normal(0, 0.05, 49)
            told.append(
                pl.DataFrame({"series_id": name, ISSUED_AT: first + issue * HOUR, "timestamp": times, "x": guess})
            )
    pl.concat(rows).write_parquet(folder / "table.parquet")
    pl.concat(told).write_csv(folder / "issued.csv")
    source = {"provider": "file", "path": str(folder / "table.parquet"), "issued": str(folder / "issued.csv")}
    return make_task(
        {
            "name": "ahead",
            "domain": "environmental",
            "frequency": "1h",
            "horizon": "3h",
            "target": "y",
            "source": source | {"instantaneous": True},
            "columns": {"y": {}, "x": {"ahead": True}},
        }
    )


def test_what_was_forecast_is_seen_alike_in_training_live_and_on_request(tmp_path):
    task, settings = task_in(tmp_path), Settings(home=tmp_path / "home")
    with open_run(task, settings, "train", NOW) as run:
        assert steps.ingest(run)["issued"] > 0
        steps.quality_check(run)
        steps.transform(run)
        trained = steps._examples(run)
        model = Model(
            trained.recipe, "persistence", (Fitted("persistence"),), (1.0,), Spread((1.0,) * 3, 0, 1), 0.9, {}
        )
        bundle = Bundle(task.name, task.digest, "1", "", NOW, NOW, model, trained.names, {}, {})
        newest, _, live = steps.newest_origins(run, bundle)
        bench = workbench.build(settings, task, bundle, run.journal, NOW)
        asked = [bench.current(name, newest, NOW) for name in ("a", "b")]
    last = trained.take(trained.origins == trained.origins.max())
    place = last.step_names.index("x_ahead")
    assert not np.isnan(last.step[:, :, place]).any()
    assert last.step.tobytes() == live.step.tobytes()
    assert [one.step.tobytes() for one in asked] == [last.take(np.array([row])).step.tobytes() for row in (0, 1)]
    early = trained.take(trained.origins < trained.origins.min() + 400 * 3_600_000_000)
    assert np.isnan(early.step[:, :, place]).all()  # nothing had been issued by then
