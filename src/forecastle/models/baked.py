"""Champions that an image carries, and which one serves: the published or the baked.

    <baked>/<task>/models/champion.json    laid out as the published ones, so that the same code reads both
    <baked>/<task>/models/<version>-<digest>/

A baked champion is what the registry's alias named when the image was built. It is never written to afterwards.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from forecastle.errors import NotEnoughHistory, OutsideError
from forecastle.models import bundle, registry
from forecastle.models.pointer import Pointer, publish, published
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
    """Fetch the registry's champion into a folder laid out as a home; it is loaded once, so it can be.

    Raises NotEnoughHistory where the registry has no champion, RegistryUnavailable where it does not answer or what it
    has does not load.
    """
    version = registry.alias(settings, task, "champion")
    if version is None:
        raise NotEnoughHistory(
            f"a champion of task {task.name!r} in the registry", "none", "Train one: forecastle run train --task FILE"
        )
    with TemporaryDirectory() as aside:
        fetched = registry.download(settings, version, Path(aside) / "bundle")
        bundle.load(fetched)
        return publish(_at(settings, folder), task, version, fetched, now)


def _at(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"home": folder, "stores": ""})
