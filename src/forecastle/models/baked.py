"""Champions that an image carries, and which one serves: the published or the baked.

    <baked>/<task>/models/champion.json    laid out as the published ones, so that the same code reads both
    <baked>/<task>/models/<version>/

A baked champion is a copy of the one that was published when the image was built. It is never written to afterwards.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from forecastle.errors import NotEnoughHistory, OutsideError, RegistryUnavailable
from forecastle.models import bundle
from forecastle.models.pointer import ModelVersion, Pointer, publish, published
from forecastle.settings import Settings
from forecastle.task import Task


def serving(settings: Settings, task: Task) -> Pointer | None:
    """Return the pointer to the champion that is to serve, or None where there is none.

    With ``model_source`` registry that is the published one, and where none is there or the pointer cannot be read the
    baked one; with image it is the baked one alone. Raises StorageUnavailable where neither can be had.
    """
    if settings.model_source == "image":
        return carried(settings, task)
    try:
        found = published(settings, task)
    except OutsideError:
        if (instead := carried(settings, task)) is None:
            raise
        return instead
    return found or carried(settings, task)


def carried(settings: Settings, task: Task) -> Pointer | None:
    """Return the pointer to the champion this image carries, or None where it carries none."""
    return published(_at(settings, Path(settings.baked)), task) if settings.baked else None


def bake(settings: Settings, task: Task, folder: Path, now: datetime) -> Pointer:
    """Copy the published champion into a folder that an image is built with; it is loaded once, so it can be.

    Raises NotEnoughHistory where nothing was published, RegistryUnavailable where the copy does not load.
    """
    current = published(settings, task)
    if current is None:
        raise NotEnoughHistory(
            f"a published champion of task {task.name!r}", "none", "Publish one: forecastle promote --task FILE"
        )
    version = ModelVersion(task.name, current.version, current.run_id, current.data_version)
    pointer = publish(_at(settings, folder), task, version, current.folder, now)
    if bundle.load(pointer.folder).task != task.name:
        raise RegistryUnavailable(
            f"a model of task {task.name!r}", f"another in {pointer.folder}", "Publish the champion again."
        )
    return pointer


def _at(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"home": folder})
