"""Tracking and registry of models on MLflow 3: SQLite by default, a server by its address. The only importer of mlflow.

A training run is logged with parameters, metrics, feature set and pages; its bundle folder is the model's artifact, as
it is: text and JSON, nothing pickled. Truth about what serves is the alias ``champion`` (who wants to: ``challenger``);
the stage words Production, Staging and Archived are set as tags beside it.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from forecastle import __version__
from forecastle.errors import RegistryUnavailable
from forecastle.frame import iso, to_json
from forecastle.models.evaluation import METRICS
from forecastle.models.learning import BOOSTING, Options
from forecastle.models.pointer import ModelVersion, Pointer, folder_digest, publish
from forecastle.settings import Settings, apply_library_defaults
from forecastle.task import Task

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from forecastle.models.bundle import Bundle

Alias = Literal["champion", "challenger"]

STAGES: dict[str, str] = {"champion": "Production", "challenger": "Staging"}
ARCHIVED = "Archived"
BUNDLE = "model"
MADE = "created_at"  # the tag that says when a model was made, by the task's clock
LONGEST_PARAM = 6000
GATE = "gate"


def log_training(
    settings: Settings, task: Task, bundle: Bundle, bundle_folder: Path, reports: Sequence[Path] = (), gate: str = ""
) -> ModelVersion:
    """Log a training and register its bundle: what was trained on what, and every candidate's back-test figures.

    ``reports`` are files and folders to keep with the run, ``gate`` is the quality gate's verdict on what was trained
    on; see ``register`` for the rest.
    """
    model, backtest = bundle.model, bundle.backtest
    params = {
        **task.model_dump(mode="json", include={"domain", "target", "frequency", "horizon", "grid", "timezone"}),
        **{f"training.{name}": value for name, value in task.training.model_dump(mode="json").items()},
        "estimator": bundle.estimator,
        "weights": {member.name: weight for member, weight in zip(model.members, model.weights, strict=True)},
        **{f"lightgbm.{name}": value for name, value in BOOSTING.items()},
        **asdict(Options(seed=task.training.seed)),
        "trained_until": iso(bundle.trained_until),
    }
    return register(
        settings,
        task,
        bundle_folder,
        params,
        flat_metrics({"backtest": backtest, **backtest.get("candidates", {})}),
        artifacts=reports,
        tags={
            "data_version": bundle.data_version,
            "estimator": bundle.estimator,
            "forecastle": __version__,
            GATE: gate,
            MADE: iso(bundle.created_at),
        },
        features=bundle.recipe.as_dict(),
    )


def log_refusal(settings: Settings, task: Task, run_name: str, reason: str, reports: Sequence[Path]) -> str:
    """Log a training that the quality gate stopped, with its reports, as a failed run; return the run's id.

    The run is tagged ``gate = fail`` and with the reason. Logging the same run again adds no second one.
    """
    tags = {"task": task.name, "task_digest": task.digest, "run": run_name, GATE: "fail", "gate_reason": reason[:5000]}
    with _registry(settings) as client:
        experiment = _experiment(client, settings, task)
        known = client.search_runs([experiment], f"tags.run = '{run_name}' and tags.{GATE} = 'fail'", max_results=1)
        run = known[0] if known else client.create_run(experiment, run_name=f"gate {task.name}", tags=tags)
        _log_files(client, run.info.run_id, reports)
        client.set_terminated(run.info.run_id, "FAILED")
        return str(run.info.run_id)


def register(
    settings: Settings,
    task: Task,
    bundle_folder: Path,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    artifacts: Sequence[Path] = (),
    tags: Mapping[str, str] | None = None,
    features: Mapping[str, Any] | None = None,
) -> ModelVersion:
    """Log a training run with its bundle and register it as a new version of the task's model; no alias moves.

    ``tags`` should hold ``data_version``; ``features`` says how they are made. Artifacts that do not exist are left
    out, and so are metrics that are not finite. A bundle that is registered already (same bytes) is not registered
    again: its version is returned.
    """
    digest = folder_digest(bundle_folder)
    tags = {"task": task.name, "task_digest": task.digest, **(tags or {}), "bundle_digest": digest}
    with _registry(settings) as client:
        for known in _search(client, task):
            if known.tags.get("bundle_digest") == digest:
                return _version(known)
        run = client.create_run(_experiment(client, settings, task), run_name=f"train {task.name}", tags=dict(tags))
        _log(client, run.info.run_id, run.info.start_time, params, metrics)
        if features:
            client.log_dict(run.info.run_id, dict(features), "features.json")
        _log_files(client, run.info.run_id, artifacts)
        client.log_artifacts(run.info.run_id, str(bundle_folder), BUNDLE)
        client.set_terminated(run.info.run_id)
        _ensure_model(client, task)
        source = f"{run.info.artifact_uri}/{BUNDLE}"
        return _version(client.create_model_version(task.name, source, run.info.run_id, tags=dict(tags)))


def flat_metrics(candidates: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Name the figures of every candidate's scores: ``ridge.rmse`` pooled and ``ridge.rmse.h3`` for a horizon."""
    flat: dict[str, float | None] = {}
    for candidate, scores in candidates.items():
        flat |= {f"{candidate}.{figure}": scores.get(figure) for figure in METRICS}
        for one in scores.get("horizons", ()):
            flat |= {f"{candidate}.{figure}.h{one['horizon']}": one.get(figure) for figure in METRICS}
    return {name: value for name, value in flat.items() if value is not None}


def versions(settings: Settings, task: Task) -> list[ModelVersion]:
    """Return every version of the task's model, the newest first."""
    with _registry(settings) as client:
        return [_version(found) for found in _search(client, task)]


def find(settings: Settings, task: Task, version: str) -> ModelVersion:
    """Return one version of the task's model; RegistryUnavailable where the registry does not have it."""
    with _registry(settings) as client:
        return _version(client.get_model_version(task.name, version))


def alias(settings: Settings, task: Task, name: Alias) -> ModelVersion | None:
    """Return the version an alias names, or None where it names none."""
    with _registry(settings) as client:
        version = _aliases(client, task).get(name)
        return None if version is None else _version(client.get_model_version(task.name, version))


def set_alias(settings: Settings, task: Task, name: Alias, model_version: ModelVersion) -> None:
    """Let an alias name this version, and set the stage tags to agree; a champion is no challenger any more."""
    with _registry(settings) as client:
        client.set_registered_model_alias(task.name, name, model_version.version)
        if name == "champion" and _aliases(client, task).get("challenger") == model_version.version:
            client.delete_registered_model_alias(task.name, "challenger")
        aliases = {version: alias for alias, version in sorted(_aliases(client, task).items(), reverse=True)}
        for found in _search(client, task):
            before = found.tags.get("stage", "")
            stage = STAGES.get(aliases.get(str(found.version), ""), ARCHIVED if before else "")
            if stage != before:
                client.set_model_version_tag(task.name, str(found.version), "stage", stage)


def promote(
    settings: Settings,
    task: Task,
    model_version: ModelVersion,
    bundle_folder: Path,
    now: datetime,
    reasons: Sequence[str] = (),
) -> Pointer:
    """Make a version the champion: set the alias and the reasons as tags, then publish bundle and pointer.

    Repeating it after a crash between the two ends in the same state.
    """
    set_alias(settings, task, "champion", model_version)
    with _registry(settings) as client:
        for tag, value in {"promoted_at": iso(now), "promoted_because": " ".join(reasons)}.items():
            client.set_model_version_tag(task.name, model_version.version, tag, value)
    return publish(settings, task, model_version, bundle_folder, now)


def held(settings: Settings, task: Task) -> dict[str, datetime]:
    """Return the versions of a task that are alive, and when each was made: champion, challenger, the newest, and the
    newest of those that served before, to which one would go back."""
    with _registry(settings) as client:
        found = _search(client, task)
        before = [one for one in found if one.tags.get("promoted_at") and one.tags.get("stage") == ARCHIVED]
        before.sort(key=lambda one: str(one.tags["promoted_at"]), reverse=True)
        alive = {*_aliases(client, task).values(), *(str(one.version) for one in [*found[:1], *before[:1]])}
        return {str(one.version): _made(one) for one in found if str(one.version) in alive}


def superseded(settings: Settings, task: Task, before: datetime) -> tuple[ModelVersion, ...]:
    """Return the versions made before a time that are not ``held``, the oldest last."""
    kept = held(settings, task)
    with _registry(settings) as client:
        found = [one for one in _search(client, task) if str(one.version) not in kept and _made(one) < before]
        return tuple(map(_version, found))


def forget(settings: Settings, task: Task, model_version: ModelVersion) -> None:
    """Remove the files of a version's run, the run (MLflow keeps its row, marked as deleted) and, last, the version;
    repeating it after a crash anywhere, or beside another process, ends in the same state."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with _registry(settings) as client:
        if _aliases(client, task).get("champion") == model_version.version:
            raise ValueError(f"version {model_version.version} serves")
        files: Any = get_artifact_repository(client.get_run(model_version.run_id).info.artifact_uri)
        files.delete_artifacts()
        for remove, named in (
            (client.delete_run, (model_version.run_id,)),
            (client.delete_model_version, (task.name, model_version.version)),
        ):
            try:
                remove(*named)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise


def download(settings: Settings, model_version: ModelVersion, target: Path) -> Path:
    """Fetch a version's bundle folder from the registry to ``target``, whole or not at all; return ``target``."""
    with _registry(settings) as client:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as aside:
            found = Path(client.download_artifacts(model_version.run_id, BUNDLE, aside))
            if target.exists():
                shutil.rmtree(target)
            os.replace(found, target)
    return target


@contextmanager
def _registry(settings: Settings) -> Iterator[MlflowClient]:
    """Open a client of its own, without touching MLflow's global state; its faults become RegistryUnavailable."""
    apply_library_defaults(settings)
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # importing mlflow sets it to INFO
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        yield MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        address = _without_password(settings.tracking_uri)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RegistryUnavailable(
            f"the model registry at {address} to answer",
            said[0].replace(settings.tracking_uri, address)[:500],
            "Check the address in FORECASTLE_MLFLOW_URI and the server, then run the same command again.",
        ) from error


def _experiment(client: MlflowClient, settings: Settings, task: Task) -> str:
    """Return the id of the task's experiment; with a database as the store, its artifacts lie in the home folder."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(task.name)
    if known is not None:
        return str(known.experiment_id)
    is_server = urlsplit(settings.tracking_uri).scheme in ("http", "https")
    place = None if is_server else (settings.home / "mlflow-artifacts" / task.name).resolve().as_uri()
    try:
        return str(client.create_experiment(task.name, artifact_location=place))
    except MlflowException:
        known = client.get_experiment_by_name(task.name)  # another process was first
        if known is None:
            raise
        return str(known.experiment_id)


def _ensure_model(client: MlflowClient, task: Task) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(task.name, description=task.description or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log(
    client: MlflowClient, run_id: str, at: int, params: Mapping[str, Any], metrics: Mapping[str, float | None]
) -> None:
    from mlflow.entities import Metric, Param

    texts = {name: value if isinstance(value, str) else to_json(value) for name, value in params.items()}
    finite = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    logged = [Metric(name, float(value), at, 0) for name, value in finite.items()]
    client.log_batch(run_id, params=[Param(name, text[:LONGEST_PARAM]) for name, text in texts.items()])
    for first in range(0, len(logged), 1000):  # a server takes at most so many at once
        client.log_batch(run_id, metrics=logged[first : first + 1000])


def _log_files(client: MlflowClient, run_id: str, files: Sequence[Path]) -> None:
    for artifact in files:
        if artifact.is_dir():
            client.log_artifacts(run_id, str(artifact), artifact.name)
        elif artifact.exists():
            client.log_artifact(run_id, str(artifact))


def _search(client: MlflowClient, task: Task) -> list[Any]:
    found = client.search_model_versions(f"name = '{task.name}'")
    return sorted(found, key=lambda one: int(one.version), reverse=True)


def _aliases(client: MlflowClient, task: Task) -> dict[str, str]:
    """Return the versions by alias; MLflow's search leaves aliases out, so the model itself is asked."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(task.name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {str(name): str(version) for name, version in dict(found).items()}


def _version(found: Any) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        data_version=found.tags.get("data_version", ""),
        stage=found.tags.get("stage", ""),
        estimator=found.tags.get("estimator", ""),
        code=found.tags.get("forecastle", ""),
    )


def _made(found: Any) -> datetime:
    """Return when a version was made: by the task's clock, or of one that does not say by MLflow's."""
    said = found.tags.get(MADE)
    return datetime.fromisoformat(said) if said else datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
