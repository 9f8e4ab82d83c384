"""The whole way of a model on a real MLflow server: trained, registered, promoted, loaded by its alias, followed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle import pipeline
from forecastle.errors import RegistryUnavailable
from forecastle.frame import write_table
from forecastle.models import bundle, pointer, publishing, pyfunc, registry
from forecastle.models.estimators import ESTIMATORS
from forecastle.settings import Settings
from forecastle.task import Task, make_task

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(hours=600)
LOADING = """
import sys
import mlflow

loaded = mlflow.pyfunc.load_model(sys.argv[1])
loaded.predict(loaded.input_example).to_parquet(sys.argv[2])
"""


@pytest.fixture(scope="module")
def site(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Task]:
    """A task on a table, trained twice on the server; the second training learnt an hour more."""
    folder = tmp_path_factory.mktemp("site")
    hours, random = np.arange(600), np.random.default_rng(0)
    warm = 10 + 5 * np.sin(hours * 2 * np.pi / 24) + random.normal(0, 0.3, len(hours))
    table = pl.DataFrame(
        {"series_id": "a", "timestamp": [START + timedelta(hours=int(one)) for one in hours], "y": warm}
    )
    write_table(folder / "table.parquet", table)
    data = {
        "name": "e2e",
        "domain": "environmental",
        "frequency": "1h",
        "horizon": "3h",
        "target": "y",
        "source": {"provider": "file", "path": str(folder / "table.parquet"), "start": START.date()},
        "columns": {"y": {}},
        "training": {"min_history": "14d"},
    }
    task = make_task(data)
    settings = Settings(
        home=folder / "home", mlflow_uri=mlflow_server.address, profile="plain", stores=str(folder / "s")
    )
    for now in (NOW - timedelta(hours=1), NOW):
        with pipeline.open_run(task, settings, "train", now) as run:
            for outcome in pipeline.run_flow(run):
                assert outcome.error is None, outcome.error
    return settings, task


def test_a_training_is_on_the_server_with_its_figures_its_table_and_its_model(site: tuple[Settings, Task]) -> None:
    settings, task = site
    newest = registry.find(settings, task, "2")
    with registry._registry(settings) as client:
        run = client.get_run(newest.run_id)
        kept = {one.path for one in client.list_artifacts(newest.run_id)}
    assert {f"{name}.rmse.h3" for name in ESTIMATORS if not name.startswith("har")} <= set(run.data.metrics)
    assert {"figures", "profile.html", "quality.html", "model", "features.json"} <= kept
    assert [one.dataset.digest for one in run.inputs.dataset_inputs] == [newest.data_version]


def test_mlflow_loads_the_champion_by_its_alias_in_a_process_of_its_own(
    site: tuple[Settings, Task], tmp_path: Path, mlflow_server: Any
) -> None:
    settings, task = site
    current = pointer.published(settings, task)
    assert current is not None
    call = [sys.executable, "-c", LOADING, f"models:/{task.name}@champion", str(tmp_path / "answer.parquet")]
    environment = {"MLFLOW_TRACKING_URI": mlflow_server.address, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    said = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    serving = bundle.load(current.folder, current.version)
    expected = pyfunc.forecast(serving, bundle.example(serving))
    answer = pl.read_parquet(tmp_path / "answer.parquet")
    assert answer["value"].to_list() == expected["value"].to_list()
    assert answer["timestamp"].to_list() == expected["timestamp"].to_list()


def test_an_alias_moved_on_the_server_is_followed_by_sync_and_another_machine_serves_it(
    site: tuple[Settings, Task], tmp_path: Path
) -> None:
    settings, task = site
    before = pointer.published(settings, task)
    assert before is not None
    other = "1" if before.version == "2" else "2"
    with registry._registry(settings) as client:
        client.set_registered_model_alias(task.name, "champion", other)
    assert publishing.sync(settings, task, NOW, "ann").moved
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere", "mlflow_uri": "http://127.0.0.1:9"})
    there = pointer.published(elsewhere, task)
    assert there is not None and there.version == other
    bundle.self_check(bundle.load(there.folder, there.version))
    stages = {one.version: one.stage for one in registry.versions(settings, task)}
    assert stages[other] == "Production" and stages[before.version] != "Production"


def test_a_server_that_is_gone_stops_a_promotion_and_what_serves_goes_on(
    site: tuple[Settings, Task], monkeypatch
) -> None:
    settings, task = site
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = settings.model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    before = pointer.published(gone, task)
    with pytest.raises(RegistryUnavailable, match="127.0.0.1:9"):
        publishing.promote_registered(gone, task, "1", NOW, "Try.", "ann")
    assert pointer.published(gone, task) == before is not None
