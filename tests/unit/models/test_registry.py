"""The registry keeps every trained model as it is, and its aliases say what serves. On a real MLflow, on SQLite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forecastle.data.panel import build_panel
from forecastle.data.transformation import make_recipe
from forecastle.errors import RegistryUnavailable
from forecastle.models import registry
from forecastle.models.bundle import Bundle, load, save
from forecastle.models.learning import Fitted
from forecastle.models.intervals import Spread
from forecastle.models.model import Model
from forecastle.models.pointer import ModelVersion, folder_digest, published
from forecastle.settings import Settings
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """One registry for this module: MLflow takes seconds to make its tables."""
    return Settings(home=tmp_path_factory.mktemp("registry") / "home")


@pytest.fixture
def own_task(task: Task, request: pytest.FixtureRequest) -> Task:
    """A task that only this test uses."""
    return task.model_copy(update={"name": f"t{abs(hash(request.node.name))}"})


@pytest.fixture
def train(settings: Settings, own_task: Task, tmp_path: Path) -> Callable[..., ModelVersion]:
    """Register a bundle whose content is the given text."""

    def make(content: str = "first", **other: Any) -> ModelVersion:
        folder = tmp_path / content
        (folder / "trees").mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text(content)
        (folder / "trees" / "1.txt").write_text("tree")
        arguments: dict[str, Any] = {"params": {}, "metrics": {}, "tags": {"data_version": "abc"}} | other
        return registry.register(settings, own_task, folder, **arguments)

    return make


def run_of(settings: Settings, version: ModelVersion) -> Any:
    with registry._registry(settings) as client:
        return client.get_run(version.run_id)


def test_a_registered_model_can_be_fetched_again_byte_for_byte(
    settings: Settings, train: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    version = train()
    assert (version.version, version.data_version, version.stage) == ("1", "abc", "")
    for _ in range(2):
        fetched = registry.download(settings, version, tmp_path / "fetched")
        assert folder_digest(fetched) == folder_digest(tmp_path / "first")


def test_registering_the_same_bundle_twice_gives_one_version(train: Callable[..., ModelVersion]) -> None:
    assert train() == train()


def test_a_training_run_tells_parameters_metrics_features_and_pages(
    settings: Settings, own_task: Task, train: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    (tmp_path / "profile.html").write_text("<p>profile</p>")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "error.svg").write_text("<svg/>")
    version = train(
        params={"seed": 0, "candidates": ["ridge", "lightgbm"], "long": "x" * 7000},
        metrics={"ridge.rmse": 2.0, "ridge.r2": None, "ridge.skill": float("nan")},
        features={"lags": [0, 1]},
        artifacts=[tmp_path / "profile.html", tmp_path / "figures", tmp_path / "absent.html"],
    )
    run = run_of(settings, version)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"ridge.rmse": 2.0}
    assert run.data.params["candidates"] == '["ridge", "lightgbm"]' and len(run.data.params["long"]) == 6000
    assert run.data.tags["task_digest"] == own_task.digest
    with registry._registry(settings) as client:
        root = Path(client.download_artifacts(version.run_id, "", str(tmp_path)))
    assert json.loads((root / "features.json").read_text()) == {"lags": [0, 1]}
    assert (root / "profile.html").exists() and (root / "figures" / "error.svg").exists()


def test_a_training_is_logged_from_its_bundle(
    settings: Settings, own_task: Task, small_task: Callable[..., Task], observations: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(small_task(), build_panel(observations(), small_task()))
    model = Model(recipe, "persistence", (Fitted("persistence"),), (1.0,), Spread((1.0,), 0.1, 1.0), 0.9, {})
    scores = {"rmse": 2.0, "mae": 1.0, "n": 9, "horizons": [{"horizon": 1, "rmse": 1.5}]}
    backtest = {**scores, "candidates": {"ridge": scores}}
    made = Bundle(own_task.name, own_task.digest, "", "abc", NOON, NOON, model, ("lag_0",), backtest, {})
    version = registry.log_training(settings, own_task, made, save(made, tmp_path / "bundle"))
    run = run_of(settings, version)
    assert version.data_version == "abc"
    assert run.data.params["estimator"] == "persistence" and run.data.params["weights"] == '{"persistence": 1.0}'
    assert run.data.metrics["backtest.rmse"] == 2.0 and run.data.metrics["ridge.rmse.h1"] == 1.5
    assert load(registry.download(settings, version, tmp_path / "fetched")) == made


def test_before_the_first_model_there_is_no_version_and_no_alias(settings: Settings, own_task: Task) -> None:
    assert registry.versions(settings, own_task) == []
    assert registry.alias(settings, own_task, "champion") is None


def test_training_moves_no_alias(settings: Settings, own_task: Task, train: Callable[..., ModelVersion]) -> None:
    train()
    assert registry.alias(settings, own_task, "champion") is None


def test_aliases_carry_the_stage_words_as_tags(
    settings: Settings, own_task: Task, train: Callable[..., ModelVersion]
) -> None:
    first, second, third = train("first"), train("second"), train("third")
    registry.set_alias(settings, own_task, "champion", first)
    registry.set_alias(settings, own_task, "challenger", second)
    assert [one.stage for one in registry.versions(settings, own_task)] == ["", "Staging", "Production"]
    registry.set_alias(settings, own_task, "champion", second)
    assert registry.alias(settings, own_task, "challenger") is None
    assert [one.stage for one in registry.versions(settings, own_task)] == ["", "Production", "Archived"]
    assert registry.find(settings, own_task, third.version) == third


def test_promoting_sets_the_alias_and_publishes_what_the_service_reads(
    settings: Settings, own_task: Task, train: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    version = train()
    for _ in range(2):
        pointer = registry.promote(settings, own_task, version, tmp_path / "first", NOON, ("It beats both.",))
        champion = registry.alias(settings, own_task, "champion")
        assert champion is not None and (champion.version, champion.stage) == (version.version, "Production")
        assert published(settings, own_task) == pointer
        assert folder_digest(pointer.folder) == folder_digest(tmp_path / "first")


def test_metrics_are_named_by_candidate_figure_and_horizon() -> None:
    scores = {"rmse": 2.0, "r2": None, "n": 9, "horizons": [{"horizon": 3, "rmse": 2.5, "skill": None}]}
    assert registry.flat_metrics({"ridge": scores}) == {"ridge.rmse": 2.0, "ridge.n": 9, "ridge.rmse.h3": 2.5}


def test_an_unknown_version_is_named(settings: Settings, own_task: Task, train: Callable[..., ModelVersion]) -> None:
    train()
    with pytest.raises(RegistryUnavailable, match="version=99"):
        registry.find(settings, own_task, "99")


def test_a_registry_that_does_not_answer_is_named_without_its_password(
    own_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = Settings(home=tmp_path, mlflow_uri="http://user:hunter2@127.0.0.1:9/mlflow")
    with pytest.raises(RegistryUnavailable) as error:
        registry.versions(gone, own_task)
    assert "127.0.0.1:9" in str(error.value) and "hunter2" not in str(error.value)


def test_a_file_that_is_no_database_is_a_registry_that_does_not_answer(own_task: Task, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database " * 100)
    with pytest.raises(RegistryUnavailable, match="not a database"):
        registry.versions(Settings(home=tmp_path), own_task)


def test_the_registry_says_nothing_and_calls_nobody(settings: Settings, own_task: Task) -> None:
    program = (
        "import sys; from pathlib import Path; from forecastle.models import registry;"
        "from forecastle.settings import Settings; from forecastle.task import load_task;"
        "registry.versions(Settings(home=Path(sys.argv[1])), load_task(sys.argv[2]));"
        "from mlflow.telemetry import get_telemetry_client; assert get_telemetry_client() is None"
    )
    task_file = Path(__file__).parents[3] / "tasks" / "nyc-temperature.toml"
    quiet = subprocess.run(
        [sys.executable, "-c", program, str(settings.home), str(task_file)], capture_output=True, text=True, check=True
    )
    assert (quiet.stdout, quiet.stderr) == ("", "")
