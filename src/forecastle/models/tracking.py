"""What a training run tells of itself beside its figures: the table it learnt from, the code, and how to ask the model.

Plain values; ``registry`` gives them to MLflow.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forecastle import __version__
from forecastle.data.recipe import Recipe
from forecastle.data.versioning import Record
from forecastle.frame import SERIES, TIMESTAMP, to_json
from forecastle.models.bundle import Bundle, example
from forecastle.settings import Settings
from forecastle.task import Task

LOADER = "forecastle.models.pyfunc"
BUNDLE = "bundle"  # the folder of a registered model that holds its bundle
EXAMPLE = "input_example.json"
EXAMPLE_INFO = {"artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
ANSWER = {
    "series_id": "string",
    "origin": "datetime",
    "horizon": "long",
    "timestamp": "datetime",
    "value": "double",
    "lower": "double",
    "upper": "double",
}


@dataclass(frozen=True)
class Dataset:
    """The versioned table that was learnt from, as MLflow names data sets: ``digest`` is the data version."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str


@dataclass(frozen=True)
class TrackedRun:
    """A run as the tracking server knows it; ``experiment`` is its id there."""

    run_id: str
    experiment: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]


def tracked(run: Any) -> TrackedRun:
    """Return what MLflow tells of a run."""
    told = (run.info.run_id, run.info.experiment_id, run.info.run_name, run.info.status)
    return TrackedRun(*told, params=dict(run.data.params), metrics=dict(run.data.metrics))


def dataset(task: Task, bundle: Bundle, data: Record | None) -> Dataset:
    """Describe the training table of a bundle. Its source is where its bytes lie; no secret is in it."""
    kind, source = _source(data) if data else ("code", {"tags": {"data_version": bundle.data_version}})
    columns = [{"type": "double", "name": name, "required": True} for name in bundle.features]
    profile = {
        "num_rows": data.rows if data else None,
        "num_features": len(bundle.features),
        "series": list(bundle.recipe.series_ids),
        "trained_until": bundle.trained_until,
    }
    schema = to_json({"mlflow_colspec": columns})
    return Dataset(f"{task.name} training", bundle.data_version[:36], kind, to_json(source), schema, to_json(profile))


def signature(recipe: Recipe) -> dict[str, str]:
    """Return the signature of a registered model as MLflow writes it: what it takes and what it answers."""
    target, *others = recipe.columns
    keys = {SERIES: "string", TIMESTAMP: "datetime", target: "double"}
    taken = [{"name": name, "type": kind, "required": True} for name, kind in keys.items()]
    taken += [{"name": name, "type": "double", "required": False} for name in others]
    given = [{"name": name, "type": kind, "required": True} for name, kind in ANSWER.items()]
    return {"inputs": to_json(taken), "outputs": to_json(given)}


def side_files(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield the files beside the bundle in a registered model: what it needs, and an example of its input."""
    yield "requirements.txt", f"forecastle=={__version__}\n"
    needed = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    yield "python_env.yaml", to_json(needed) + "\n"  # JSON is YAML
    if bundle.check:
        table = example(bundle).with_columns(pl.col(TIMESTAMP).dt.strftime("%Y-%m-%dT%H:%M:%S.%6f"))
        yield EXAMPLE, to_json({"columns": table.columns, "data": table.rows()}) + "\n"


def code_commit(settings: Settings, folder: Path = Path()) -> str:
    """Return the git commit of the code: what the settings say, or that of the checkout that holds ``folder``; empty
    where neither knows. No program is started for it."""
    from dulwich.errors import NotGitRepository
    from dulwich.repo import Repo as Git

    if settings.commit:
        return settings.commit
    try:
        with Git.discover(str(folder.resolve())) as git:
            return str(git.head().decode())
    except (NotGitRepository, KeyError, OSError):
        return ""


def _source(data: Record) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of place a version's bytes lie in, and where in it, as MLflow's data set sources are written."""
    address = f"{data.remote.rstrip('/')}/files/md5/{data.version[:2]}/{data.version[2:]}"
    scheme, mark, _ = data.remote.partition("://")
    if not mark:
        return "local", {"uri": address}
    return ("http", {"url": address}) if scheme in ("http", "https") else (scheme, {"uri": address})
