"""The audit trail of a task's models: who changed what serves, when and why. Append-only, one object an event.

    <stores>/<task>/models/audit/<time>-<action>-<version>-<digest>.json

An event is written before the pointer moves, so nothing ever serves that the trail does not explain. The same event
again is the same object.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from forecastle.data import formats
from forecastle.data.store import Store, task_stores
from forecastle.frame import to_json
from forecastle.settings import Settings
from forecastle.task import Task

FORMAT = 1
Action = Literal["promote", "keep", "reject", "rollback", "sync"]


@dataclass(frozen=True)
class Event:
    """One decision about a version: ``promote`` and ``rollback`` let it serve, ``sync`` lets serve what the registry's
    alias names, ``keep`` leaves the champion where it is, ``reject`` turns the version down. ``before`` is the version
    that served at the time, empty where none did."""

    at: datetime
    by: str
    action: Action
    version: str
    before: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def record(settings: Settings, task: Task, event: Event) -> None:
    """Add an event to the trail. Raises StorageUnavailable where the store does not take it."""
    content = (to_json({"format": FORMAT, **event.as_dict()}) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = f"{event.at:%Y%m%dT%H%M%S.%fZ}-{event.action}-{event.version}-{digest}.json"
    _place(settings, task).put(name, content)


def events(settings: Settings, task: Task, newest: int = 0) -> tuple[Event, ...]:
    """Return the whole trail, the oldest event first, or only so many of the ``newest``.

    Raises StorageUnavailable where the store does not answer.
    """
    place = _place(settings, task)
    names = [name for name in place.list() if name.endswith(".json")]
    return tuple(map(_read, place.get(names[-newest:])))


def _read(content: bytes) -> Event:
    said = json.loads(content)
    formats.require(int(said.pop("format")), FORMAT, "the audit trail")
    return Event(**{**said, "at": datetime.fromisoformat(said["at"])})


def _place(settings: Settings, task: Task) -> Store:
    return task_stores(settings, task.name) / "models" / "audit"
