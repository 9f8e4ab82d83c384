"""What serves: a small file that names the published champion, with the model's bundle beside it. No registry needed.

    <home>/<task>/models/champion.json     the pointer, replaced in one move
    <home>/<task>/models/<version>/        the bundle it points to, complete before the pointer says so

Only ``publish`` writes here. The service and the live forecasts read only the pointer and the bundle, so neither needs
the registry to answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forecastle.data import formats
from forecastle.errors import StorageUnavailable
from forecastle.frame import write_json
from forecastle.settings import Settings
from forecastle.task import Task

POINTER = "champion.json"
FORMAT = 1


@dataclass(frozen=True)
class ModelVersion:
    """One version of a task's model as the registry knows it; ``stage`` is its tag (Production, Staging, Archived).

    ``estimator`` is what serves, ``code`` the version of forecastle that trained it; empty where it was not noted.
    """

    name: str
    version: str
    run_id: str
    data_version: str
    stage: str = ""
    estimator: str = ""
    code: str = ""


@dataclass(frozen=True)
class Pointer:
    """The published champion: which version, where its bundle lies, since when."""

    task: str
    version: str
    run_id: str
    data_version: str
    digest: str
    published_at: datetime
    folder: Path


def publish(settings: Settings, task: Task, model_version: ModelVersion, bundle_folder: Path, now: datetime) -> Pointer:
    """Copy a bundle to where the service looks, then point to it; readers see the old champion or the new, whole.

    Publishing what is published already changes nothing. Raises StorageUnavailable where the disk refuses.
    """
    digest = folder_digest(bundle_folder)
    current = published(settings, task)
    if current and (current.version, current.digest) == (model_version.version, digest):
        return current
    models = _models(settings, task)
    _copy_whole(bundle_folder, models / model_version.version, digest)
    write_json(
        models / POINTER,
        {
            "format": FORMAT,
            "task": task.name,
            "version": model_version.version,
            "run_id": model_version.run_id,
            "data_version": model_version.data_version,
            "digest": digest,
            "published_at": now,
        },
    )
    pointer = published(settings, task)
    assert pointer is not None, "a pointer just written is there"
    return pointer


def published(settings: Settings, task: Task) -> Pointer | None:
    """Return the pointer to the published champion, or None where nothing was published yet."""
    models = _models(settings, task)
    try:
        content = json.loads((models / POINTER).read_text(encoding="utf-8"))
        formats.require(int(content.get("format", 1)), FORMAT, f"the pointer at {models / POINTER}")
        return Pointer(
            **{name: content[name] for name in ("task", "version", "run_id", "data_version", "digest")},
            published_at=datetime.fromisoformat(content["published_at"]),
            folder=models / content["version"],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageUnavailable(
            f"a readable pointer at {models / POINTER}",
            f"{type(error).__name__}: {error}",
            "Publish the champion again: forecastle promote --task FILE",
        ) from error


def folder_digest(folder: Path) -> str:
    """Return 32 hex digits that change with any name or byte of the folder's files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:32]


def _models(settings: Settings, task: Task) -> Path:
    return settings.task_folder(task.name) / "models"


def _copy_whole(source: Path, target: Path, digest: str) -> None:
    """Copy a folder under another name, then move it into place; a different folder that is there gives way."""
    if target.is_dir() and folder_digest(target) == digest:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            os.chmod(aside, 0o755)
            shutil.copytree(source, aside / "new")
            if target.exists():
                os.replace(target, aside / "old")
            os.replace(aside / "new", target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise StorageUnavailable(
            f"to publish the model to {target}", str(error.strerror or error), "Free some space or mend permissions."
        ) from error
