"""Tracking and registry of models on MLflow 3: SQLite by default, a server by its address. The only importer of mlflow.

A training run is logged with parameters, metrics, feature set, data set and pages; its bundle folder is the heart of
the model's artifact, as it is: text and JSON, nothing pickled. Truth about what serves is the alias ``champion`` (who
wants to: ``challenger``); the stage words Production, Staging and Archived are set as tags beside it.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from forecastle import __version__
from forecastle.errors import RegistryUnavailable
from forecastle.frame import iso, to_json
from forecastle.models import tracking
from forecastle.models.evaluation import METRICS
from forecastle.models.learning import BOOSTING, Options
from forecastle.models.pointer import ModelVersion, folder_digest
from forecastle.settings import Settings, apply_library_defaults
from forecastle.task import Task

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from forecastle.data.versioning import Record
    from forecastle.models.bundle import Bundle

Alias = Literal["champion", "challenger"]

STAGES: dict[str, str] = {"champion": "Production", "challenger": "Staging"}
ARCHIVED = "Archived"
MODEL = "model"  # the folder of a run that holds what is registered
MADE = "created_at"  # the tag that says when a model was made, by the task's clock
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
GATE = "gate"
REJECTED = "rejected_at"
REJECTION = (REJECTED, "rejected_by", "rejected_because")
NO_REGISTRY = re.compile(r"/(registered-models|model-versions)\b.* 404 ", re.DOTALL)  # as MLflow says it


def warm(settings: Settings) -> None:
    """Import MLflow and open its store, which takes seconds the first time. A server is asked nothing; what hinders it
    tells the next call."""
    with suppress(RegistryUnavailable), _registry(settings):
        pass


def log_training(
    settings: Settings,
    task: Task,
    bundle: Bundle,
    bundle_folder: Path,
    reports: Sequence[Path] = (),
    gate: str = "",
    data: Record | None = None,
) -> ModelVersion:
    """Log a training and register its bundle: what was trained on what, and every candidate's back-test figures.

    ``reports`` are files and folders to keep with the run, ``gate`` is the quality gate's verdict on what was trained
    on, ``data`` what is known of the table it has learnt; see ``register`` for the rest.
    """
    model, backtest = bundle.model, bundle.backtest
    commit = tracking.code_commit(settings)
    grown = next((one.numbers["parameters"] for one in model.members if "parameters" in one.numbers), BOOSTING)
    left = ("boosting", "rounds", "threads")  # what they came to for so many pairs is in ``grown``
    params = {
        **task.model_dump(mode="json", include={"domain", "target", "frequency", "horizon", "grid", "timezone"}),
        **{f"training.{name}": value for name, value in task.training.model_dump(mode="json").items()},
        "task_digest": task.digest,
        "data_version": bundle.data_version,
        "git_commit": commit,
        "estimator": bundle.estimator,
        "features": len(bundle.features),
        "weights": {member.name: weight for member, weight in zip(model.members, model.weights, strict=True)},
        **{f"lightgbm.{name}": value for name, value in grown.items()},
        **{name: value for name, value in asdict(Options(seed=task.training.seed)).items() if name not in left},
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
            "git_commit": commit,
            "mlflow.source.git.commit": commit,
            "data_commit": data.commit if data else "",
            **{name: repr(float(backtest[name])) for name in ("rmse", "skill") if backtest.get(name) is not None},
        },
        features={**bundle.recipe.as_dict(), "names": list(bundle.features)},
        dataset=tracking.dataset(task, bundle, data),
        made=bundle,
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
    dataset: tracking.Dataset | None = None,
    made: Bundle | None = None,
) -> ModelVersion:
    """Log a training run with its bundle and register it as a new version of the task's model; no alias moves.

    ``tags`` should hold ``data_version``; ``features`` says how they are made, ``dataset`` is what was learnt from.
    What the folder holds as a bundle (``made``) tells the model's signature and an example of its input. Artifacts that
    do not exist are left out, and so are metrics that are not finite and tags that are empty. A bundle that is
    registered already (same bytes) is not registered again: its version is returned. A run of it that ended halfway is
    finished.
    """
    digest = folder_digest(bundle_folder)
    tags = {"task": task.name, "task_digest": task.digest, **(tags or {}), "bundle_digest": digest}
    tags = {name: value for name, value in tags.items() if value}
    with _registry(settings) as client:
        for known in _search(client, task):
            if known.tags.get("bundle_digest") == digest:
                return _version(known)
        experiment = _experiment(client, settings, task)
        begun = client.search_runs([experiment], f"tags.bundle_digest = '{digest}'", max_results=1)
        run = begun[0] if begun else client.create_run(experiment, run_name=f"train {task.name}", tags=dict(tags))
        params = {name: value for name, value in params.items() if name not in run.data.params}  # written once
        _log(client, run.info.run_id, run.info.start_time, params, metrics)
        if features:
            client.log_dict(run.info.run_id, dict(features), "features.json")
        _log_files(client, run.info.run_id, artifacts)
        if dataset is not None:
            _log_dataset(client, run.info.run_id, dataset)
        _log_model(client, run.info.run_id, bundle_folder, made)
        client.set_terminated(run.info.run_id)
        _ensure_model(client, task)
        source = f"{run.info.artifact_uri}/{MODEL}"
        return _version(client.create_model_version(task.name, source, run.info.run_id, tags=dict(tags)))


def flat_metrics(candidates: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Name the figures of every candidate's scores: ``ridge.rmse`` pooled and ``ridge.rmse.h3`` for a horizon."""
    flat: dict[str, float | None] = {}
    for candidate, scores in candidates.items():
        flat |= {f"{candidate}.{figure}": scores.get(figure) for figure in METRICS}
        for one in scores.get("horizons", ()):
            flat |= {f"{candidate}.{figure}.h{one['horizon']}": one.get(figure) for figure in METRICS}
    return {name: value for name, value in flat.items() if value is not None}


def versions(settings: Settings, task: Task, with_aliases: bool = False) -> list[ModelVersion]:
    """Return every version of the task's model, the newest first; with the aliases it has, if asked for."""
    with _registry(settings) as client:
        found = _search(client, task)
        return _named(found, _aliases(client, task) if with_aliases else {})


def runs(settings: Settings, task: Task, most: int) -> list[tracking.TrackedRun]:
    """Return the newest runs of the task's experiment, at most so many; none where there is no such experiment."""
    with _registry(settings) as client:
        experiment = client.get_experiment_by_name(task.name)
        found = client.search_runs([experiment.experiment_id], max_results=most) if experiment else []
        return [tracking.tracked(one) for one in found]


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
        _mend_stages(client, task)


def mend_stages(settings: Settings, task: Task) -> None:
    """Set the stage tags to agree with the aliases, which somebody may have moved in MLflow."""
    with _registry(settings) as client:
        _mend_stages(client, task)


def tag(settings: Settings, task: Task, model_version: ModelVersion, tags: Mapping[str, str | None]) -> None:
    """Set tags of a version, and remove those that are None."""
    with _registry(settings) as client:
        there = client.get_model_version(task.name, model_version.version).tags
        for name, value in tags.items():
            if value is not None:
                client.set_model_version_tag(task.name, model_version.version, name, value[:LONGEST_TAG])
            elif name in there:
                client.delete_model_version_tag(task.name, model_version.version, name)


def reject(settings: Settings, task: Task, model_version: ModelVersion, at: str, by: str, why: str) -> None:
    """Turn a version down, which must not be the champion: no challenger any more, archived, and tagged with why."""
    tag(settings, task, model_version, dict(zip(REJECTION, (at, by, why), strict=True)))
    with _registry(settings) as client:
        if _aliases(client, task).get("challenger") == model_version.version:
            client.delete_registered_model_alias(task.name, "challenger")
        _mend_stages(client, task)


def served_before(known: Sequence[ModelVersion], leaving: ModelVersion | None) -> ModelVersion | None:
    """Return to which of these versions (with their aliases) one would go back from the one that serves: the last that
    was promoted before it, is not the champion, and was not turned down; None where there is none."""
    latest = leaving.tags.get("promoted_at") if leaving else None
    before = [
        one
        for one in known
        if (at := one.tags.get("promoted_at"))
        and at <= (latest or at)
        and one != leaving
        and "champion" not in one.aliases
        and REJECTED not in one.tags
    ]
    return max(before, key=lambda one: one.tags["promoted_at"], default=None)


def held(settings: Settings, task: Task) -> dict[str, datetime]:
    """Return the versions of a task that are alive, and when each was made: champion, challenger, the newest, and the
    newest of those that served before, to which one would go back."""
    with _registry(settings) as client:
        found = _search(client, task)
        aliases = _aliases(client, task)
        known = _named(found, aliases)
        before = served_before(known, next((one for one in known if "champion" in one.aliases), None))
        alive = {*aliases.values(), *(str(one.version) for one in found[:1])}
        alive |= {before.version} if before else set()
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
            found = Path(client.download_artifacts(model_version.run_id, MODEL, aside))
            if (found / tracking.BUNDLE).is_dir():  # once a bundle was all there was
                found = found / tracking.BUNDLE
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
        yield MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.registry_uri)
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        address = _without_password(settings.tracking_uri)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise RegistryUnavailable(
            f"the model registry at {address} to answer",
            said[0].replace(settings.tracking_uri, address).replace(settings.registry_uri, "the registry")[:500],
            _action(settings, str(error)),
        ) from error


def _action(settings: Settings, said: str) -> str:
    if NO_REGISTRY.search(said) and not settings.mlflow_registry:
        own = f"FORECASTLE_MLFLOW_REGISTRY={settings.own_registry}"
        return f"It has no model registry, as old servers have none: keep it here with {own} (see docs/dagshub.md)."
    return "Check the address in FORECASTLE_MLFLOW_URI and the server, then run the same command again."


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


def _log_dataset(client: MlflowClient, run_id: str, dataset: tracking.Dataset) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    told = Dataset(**asdict(dataset))
    client.log_inputs(run_id, [DatasetInput(told, [InputTag("mlflow.data.context", "training")])])


def _log_model(client: MlflowClient, run_id: str, bundle_folder: Path, made: Bundle | None) -> None:
    """Log a bundle as a model of MLflow's: the bundle as it is, and beside it what ``pyfunc`` needs to load it.

    It is described here and not by ``log_model``, which starts a process to guess which packages it needs.
    """
    from mlflow.models import Model, ModelSignature

    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        shutil.copytree(bundle_folder, folder / tracking.BUNDLE)
        model = Model(run_id=run_id, artifact_path=MODEL)
        flavour: dict[str, Any] = {"loader_module": tracking.LOADER, "data": tracking.BUNDLE}
        if made is not None:
            model.signature = ModelSignature.from_dict(tracking.signature(made.recipe))
            for name, text in tracking.side_files(made):
                (folder / name).write_text(text, encoding="utf-8")
            flavour["env"] = {"virtualenv": "python_env.yaml"}
            if made.check:
                model.saved_input_example_info = dict(tracking.EXAMPLE_INFO)
        model.add_flavor("python_function", python_version=platform.python_version(), **flavour)
        model.save(str(folder / "MLmodel"))
        client.log_artifacts(run_id, str(folder), MODEL)


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


def _mend_stages(client: MlflowClient, task: Task) -> None:
    aliases = {version: alias for alias, version in sorted(_aliases(client, task).items(), reverse=True)}
    for found in _search(client, task):
        before = found.tags.get("stage", "")
        other = ARCHIVED if before or REJECTED in found.tags else ""
        stage = STAGES.get(aliases.get(str(found.version), ""), other)
        if stage != before:
            client.set_model_version_tag(task.name, str(found.version), "stage", stage)


def _named(found: Sequence[Any], aliases: Mapping[str, str]) -> list[ModelVersion]:
    """Return versions with the aliases they have."""
    names = {
        version: tuple(sorted(name for name, at in aliases.items() if at == version)) for version in aliases.values()
    }
    return [_version(one, names.get(str(one.version), ())) for one in found]


def _version(found: Any, aliases: tuple[str, ...] = ()) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=str(found.version),
        run_id=found.run_id,
        data_version=found.tags.get("data_version", ""),
        stage=found.tags.get("stage", ""),
        estimator=found.tags.get("estimator", ""),
        code=found.tags.get("forecastle", ""),
        aliases=aliases,
        tags=dict(found.tags),
    )


def _made(found: Any) -> datetime:
    """Return when a version was made: by the task's clock, or of one that does not say by MLflow's."""
    said = found.tags.get(MADE)
    return datetime.fromisoformat(said) if said else datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
