"""What serves: a small file that names the published champion, with the model's bundle beside it. No registry needed.

    <home>/<task>/models/champion.json              the pointer, replaced in one move; it names the one before, too
    <home>/<task>/models/<version>-<digest>/        the bundle it points to, complete before the pointer says so

Only ``publish`` writes here. The service and the live forecasts read only the pointer and the bundle, so neither needs
the registry to answer. Where the stores lie elsewhere (``FORECASTLE_STORES``), the same is published there too and the
home folder follows it, so that a service on another machine serves what was promoted on this one:

    <stores>/<task>/models/champion.json              the pointer, with the names of the bundle's files
    <stores>/<task>/models/<version>-<digest>/…       those files, all there before the pointer says so
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from forecastle.data import formats
from forecastle.data.store import Store, task_stores
from forecastle.errors import OutsideError, StorageUnavailable
from forecastle.frame import to_json, write_bytes
from forecastle.settings import Settings
from forecastle.task import Task

POINTER = "champion.json"
FORMAT = 1
_SAID = ("task", "version", "run_id", "data_version", "digest")
_AGAIN = "Publish the champion again: forecastle registry sync --task FILE"


@dataclass(frozen=True)
class ModelVersion:
    """One version of a task's model as the registry knows it; ``stage`` is its tag (Production, Staging, Archived).

    ``estimator`` is what serves, ``code`` the version of forecastle that trained it; empty where it was not noted.
    ``tags`` are all of them, ``aliases`` the names the registry has for it where it was asked for those.
    """

    name: str
    version: str
    run_id: str
    data_version: str
    stage: str = ""
    estimator: str = ""
    code: str = ""
    aliases: tuple[str, ...] = field(default=(), compare=False)
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Pointer:
    """The published champion: which version, where its bundle lies, since when, and which one it took the place of."""

    task: str
    version: str
    run_id: str
    data_version: str
    digest: str
    published_at: datetime
    folder: Path
    previous: Pointer | None = None

    def names(self, version: ModelVersion) -> bool:
        """Tell whether it is this version that serves: another registry counts from one again, so the run decides."""
        return (self.version, self.run_id) == (version.version, version.run_id)


def publish(
    settings: Settings,
    task: Task,
    model_version: ModelVersion,
    bundle_folder: Path,
    now: datetime,
    is_rollback: bool = False,
) -> Pointer:
    """Copy a bundle to where the service looks, then point to it; readers see the old champion or the new, whole.

    What it takes the place of stands in for it where it cannot be loaded; in a rollback that was turned down, and what
    stood in for that one does.

    Publishing what is published already changes nothing. Raises StorageUnavailable where the disk refuses.
    """
    digest = folder_digest(bundle_folder)
    current, shared = published(settings, task), _shared(settings, task)
    if current and current.names(model_version) and current.digest == digest and is_whole(current):
        if shared is None or shared.exists(POINTER):  # what the home folder has follows it
            return current
    models = _models(settings, task)
    before = current if current is None or current.digest != digest and not is_rollback else current.previous
    if before is not None and before.digest == digest:
        before = None
    content = {
        "format": FORMAT,
        "task": task.name,
        "version": model_version.version,
        "run_id": model_version.run_id,
        "data_version": model_version.data_version,
        "digest": digest,
        "published_at": now,
        "files": _names(bundle_folder),
        "previous": None if before is None else _told(before),
    }
    _copy_whole(bundle_folder, models / _folder_of(content), digest)
    said = (to_json(content, indent=2) + "\n").encode()
    if shared is not None:
        place = shared / _folder_of(content)
        for path in _files(bundle_folder):
            place.put(path.relative_to(bundle_folder).as_posix(), path.read_bytes())
        shared.put(POINTER, said)
    write_bytes(models / POINTER, said)
    pointer = published(settings, task)
    assert pointer is not None, "a pointer just written is there"
    return pointer


def published(settings: Settings, task: Task) -> Pointer | None:
    """Return the pointer to the published champion, or None where nothing was published yet.

    What was published from another machine to shared stores is fetched first. Raises StorageUnavailable where they do
    not answer, or the pointer or what it points to is damaged.
    """
    models = _models(settings, task)
    if (shared := _shared(settings, task)) is not None:
        _follow(shared, models)
    try:
        content = json.loads((models / POINTER).read_text(encoding="utf-8"))
        formats.require(int(content.get("format", 1)), FORMAT, f"the pointer at {models / POINTER}")
        before = content.get("previous")
        return _pointer(models, content, None if before is None else _pointer(models, before))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageUnavailable(
            f"a readable pointer at {models / POINTER}",
            f"{type(error).__name__}: {error}",
            _AGAIN,
        ) from error


def is_whole(champion: Pointer) -> bool:
    """Tell whether the bundle a pointer points to is there as it was published."""
    return champion.folder.is_dir() and folder_digest(champion.folder) == champion.digest


def folders(settings: Settings, task: Task, version: str) -> list[Path]:
    """Return the folders of this home in which bundles of a version were published."""
    models = _models(settings, task)
    old = models / version
    return [*([old] if old.is_dir() else []), *sorted(models.glob(f"{version}-*/"))]


def withdraw(settings: Settings, task: Task, version: str) -> None:
    """Remove what was published of a version to shared stores; what serves has to be another."""
    if (shared := _shared(settings, task)) is not None:
        for name in shared.list():
            if name.startswith(f"{version}-"):
                shared.delete(name)


def folder_digest(folder: Path) -> str:
    """Return 32 hex digits that change with any name or byte of the folder's files."""
    whole = hashlib.sha256()
    for path in _files(folder):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:32]


def _models(settings: Settings, task: Task) -> Path:
    return settings.task_folder(task.name) / "models"


def _shared(settings: Settings, task: Task) -> Store | None:
    """Return where the stores keep published models, where that is not the home folder itself."""
    if not settings.stores or Path(settings.stores).resolve() == settings.home.resolve():
        return None
    return task_stores(settings, task.name) / "models"


def _follow(shared: Store, models: Path) -> None:
    """Make the home folder's champion the one that was published to the stores; the bundle first, then the pointer."""
    try:
        said = shared.get([POINTER])[0]
    except FileNotFoundError:
        return  # published before the stores were shared
    if _is(models / POINTER, said):
        return
    try:
        content = json.loads(said)
        formats.require(int(content["format"]), FORMAT, f"the pointer at {shared.uri}/{POINTER}")
        names, version, digest = content["files"], str(content["version"]), content["digest"]
        found = dict(zip(names, (shared / _folder_of(content)).get(names), strict=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(
            f"a whole champion at {shared.uri}", f"{type(error).__name__}: {error}", _AGAIN
        ) from error
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / ".following.lock"), tempfile.TemporaryDirectory(dir=models, prefix=".follow.") as aside:
        for name, one in found.items():
            write_bytes(Path(aside) / "bundle" / name, one)
        if folder_digest(Path(aside) / "bundle") != digest:
            raise StorageUnavailable(f"champion {version} at {shared.uri} as it was published", "other bytes", _AGAIN)
        _copy_whole(Path(aside) / "bundle", models / _folder_of(content), digest)
        if before := content.get("previous"):
            _follow_one(shared, models, before)
        write_bytes(models / POINTER, said)


def _follow_one(shared: Store, models: Path, before: Mapping[str, Any]) -> None:
    """Fetch the bundle of the champion before, for the day on which the newest cannot be loaded; without it, go on."""
    target, names = models / _folder_of(before), before["files"]
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=models, prefix=".follow.") as aside, suppress(OSError, OutsideError):
        for name, one in zip(names, (shared / _folder_of(before)).get(names), strict=True):
            write_bytes(Path(aside) / "bundle" / name, one)
        if folder_digest(Path(aside) / "bundle") == before["digest"]:
            _copy_whole(Path(aside) / "bundle", target, before["digest"])


def _pointer(models: Path, content: Mapping[str, Any], previous: Pointer | None = None) -> Pointer:
    return Pointer(
        **{name: content[name] for name in _SAID},
        published_at=datetime.fromisoformat(content["published_at"]),
        folder=_folder_in(models, content),
        previous=previous,
    )


def _told(pointer: Pointer) -> dict[str, Any]:
    said = {name: getattr(pointer, name) for name in (*_SAID, "published_at")}
    return {**said, "files": _names(pointer.folder)}


def _is(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _folder_of(content: Mapping[str, object]) -> str:
    return f"{content['version']}-{str(content['digest'])[:12]}"


def _folder_in(models: Path, content: Mapping[str, str]) -> Path:
    """Return where a pointer's bundle lies; the first versions published under the number alone."""
    folder = models / _folder_of(content)
    return folder if folder.is_dir() or not (models / content["version"]).is_dir() else models / content["version"]


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _copy_whole(source: Path, target: Path, digest: str) -> None:
    """Copy a folder under another name, then move it into place; a damaged folder that is there gives way."""
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
