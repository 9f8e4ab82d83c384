"""The registry keeps every trained model as it is, and its aliases say what serves. On a real MLflow, on SQLite."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecastle.data.versioning import Record
from forecastle.errors import RegistryUnavailable
from forecastle.models import registry, tracking
from forecastle.models.bundle import Bundle, load, save
from forecastle.models.learning import Fitted
from forecastle.models.pointer import ModelVersion, folder_digest
from forecastle.models.trees import Trees
from forecastle.settings import Settings
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "boom")


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


@pytest.mark.parametrize("crash", ["_log_files", "_log_model", "_ensure_model"])
def test_a_registration_that_dies_halfway_is_finished_in_the_same_run(
    settings: Settings,
    own_task: Task,
    train: Callable[..., ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
    crash: str,
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(registry, crash, die)
        with pytest.raises(KeyboardInterrupt):
            train(params={"seed": 0, "git_commit": "c0ffee"}, metrics={"ridge.rmse": 2.0})
    version = train(params={"seed": 0, "git_commit": "d00d"}, metrics={"ridge.rmse": 2.0})  # by newer code
    with registry._registry(settings) as client:
        (run,) = client.search_runs([client.get_experiment_by_name(own_task.name).experiment_id])
    assert (run.info.run_id, run.info.status) == (version.run_id, "FINISHED")
    assert run.data.params["seed"] == "0" and run.data.metrics == {"ridge.rmse": 2.0}


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
    settings: Settings, own_task: Task, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    made = make_bundle()
    data = Record(own_task.name, "abc", 9, "train-1", NOON, 3, "0.1.0", "/remote", "d00d")
    version = registry.log_training(settings, own_task, made, save(made, tmp_path / "bundle"), (), "pass", data)
    run = run_of(settings, version)
    assert version.data_version == "abc"
    params = {name: run.data.params[name] for name in ("task_digest", "data_version", "git_commit", "estimator")}
    assert params == {
        "task_digest": own_task.digest,
        "data_version": "abc",
        "git_commit": "c0ffee",
        "estimator": "persistence",
    }
    assert run.data.params["weights"] == '{"persistence": 1.0}' and "lightgbm.learning_rate" in run.data.params
    assert run.data.metrics["backtest.rmse"] == 2.0
    assert {f"{name}.rmse{of}" for name in ("ridge", "persistence") for of in ("", ".h1")} < set(run.data.metrics)
    tags = {name: run.data.tags[name] for name in ("mlflow.source.git.commit", "data_commit", "gate")}
    assert tags == {"mlflow.source.git.commit": "c0ffee", "data_commit": "d00d", "gate": "pass"}
    assert load(registry.download(settings, version, tmp_path / "fetched")) == made


def test_a_run_names_the_parameters_its_trees_were_grown_with(
    settings: Settings, own_task: Task, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bare = make_bundle()
    grown = {"num_leaves": 63, "num_iterations": 240, "learning_rate": 0.05}
    numbers = {"offset": "change", "parameters": grown}
    members = (Fitted("ridge"), Fitted("lightgbm_change", numbers, Trees("tree\nend of trees\n")))
    made = replace(bare, model=replace(bare.model, members=members, weights=(0.5, 0.5)), check={})
    version = registry.log_training(settings, own_task, made, save(made, tmp_path / "bundle"), (), "pass")
    params = run_of(settings, version).data.params
    assert {name: params[f"lightgbm.{name}"] for name in grown} == {name: str(value) for name, value in grown.items()}
    assert "rounds" not in params and params["ridge_rows"] == "60000"


def test_a_training_names_the_table_it_has_learnt(
    settings: Settings, own_task: Task, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    made = replace(make_bundle(), data_version="ab12")
    (tmp_path / "remote" / "files" / "md5" / "ab").mkdir(parents=True)
    (tmp_path / "remote" / "files" / "md5" / "ab" / "12").write_bytes(b"the table")
    data = Record(own_task.name, "ab12", 9, "train-1", NOON, 3, "0.1.0", str(tmp_path / "remote"))
    version = registry.log_training(settings, own_task, made, save(made, tmp_path / "bundle"), data=data)
    (learnt,) = run_of(settings, version).inputs.dataset_inputs
    assert (learnt.dataset.name, learnt.dataset.digest) == (f"{own_task.name} training", "ab12")
    assert {one.key: one.value for one in learnt.tags} == {"mlflow.data.context": "training"}
    assert json.loads(learnt.dataset.profile)["num_rows"] == 9

    from mlflow.data import get_source

    assert Path(get_source(learnt).load()).read_bytes() == b"the table"


@pytest.mark.parametrize(
    ("remote", "kind", "source"),
    [
        ("s3://bucket/dvc", "s3", {"uri": "s3://bucket/dvc/files/md5/ab/c"}),
        ("https://example.org/dvc/", "http", {"url": "https://example.org/dvc/files/md5/ab/c"}),
    ],
)
def test_the_source_of_a_data_set_is_where_its_bytes_lie(own_task, make_bundle, remote, kind, source) -> None:
    data = Record(own_task.name, "abc", 9, "train-1", NOON, 3, "0.1.0", remote)
    found = tracking.dataset(own_task, make_bundle(), data)
    assert (found.source_type, json.loads(found.source)) == (kind, source)


def test_the_commit_of_the_code_is_that_of_the_checkout_unless_the_settings_say_another(tmp_path: Path) -> None:
    from dulwich import porcelain

    (tmp_path / "below").mkdir()
    assert tracking.code_commit(Settings(), tmp_path / "below") == ""
    porcelain.init(str(tmp_path))
    assert tracking.code_commit(Settings(), tmp_path / "below") == ""
    (tmp_path / "file").touch()
    porcelain.add(str(tmp_path), [str(tmp_path / "file")])
    sha = porcelain.commit(str(tmp_path), b"first", author=b"a <a@b>", committer=b"a <a@b>").decode()
    assert tracking.code_commit(Settings(), tmp_path / "below") == sha
    assert tracking.code_commit(Settings(commit="c0ffee"), tmp_path) == "c0ffee"


def test_a_model_of_before_anything_stood_beside_its_bundle_is_fetched_as_well(
    settings: Settings, own_task: Task, train: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    version = train()
    with registry._registry(settings) as client:
        place = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")) / registry.MODEL
    for path in (place / tracking.BUNDLE).iterdir():
        path.rename(place / path.name)
    (place / tracking.BUNDLE).rmdir()
    (place / "MLmodel").unlink()
    assert folder_digest(registry.download(settings, version, tmp_path / "fetched")) == folder_digest(
        tmp_path / "first"
    )


def test_mlflow_loads_a_registered_model_by_its_alias_and_opens_no_pickle_in_it(
    settings: Settings,
    own_task: Task,
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, crater = make_bundle(), tmp_path / "crater"
    version = registry.log_training(settings, own_task, made, save(made, tmp_path / "bundle"))
    registry.set_alias(settings, own_task, "champion", version)
    with registry._registry(settings) as client:
        place = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")) / registry.MODEL
    bomb = pickle.dumps(Bomb(crater))
    for name in ("python_model.pkl", "model.pkl", "bundle/model.pkl", "bundle/trees/spread.pkl"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(bomb)

    import mlflow
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{own_task.name}@champion")
    answer = loaded.predict(loaded.input_example)
    assert not crater.exists()
    assert list(answer.columns) == [one.name for one in loaded.metadata.signature.outputs]
    assert answer["value"].tolist() == sum(made.check["forecasts"]["value"], [])
    assert ((answer["upper"] - answer["value"]).round(9) == np.round(sum(made.check["forecasts"]["half"], []), 9)).all()
    without = loaded.predict(loaded.input_example.drop(columns="x"))  # what is not the target may be missing
    assert without["value"].tolist() == answer["value"].tolist()
    with pytest.raises(MlflowException, match=r"missing inputs \['y'\]"):
        loaded.predict(loaded.input_example.drop(columns="y"))
    pickle.loads(bomb)
    assert crater.exists()


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
