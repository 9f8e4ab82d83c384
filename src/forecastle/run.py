"""One passage of a flow: what its steps are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from forecastle.data.derivation import open_history
from forecastle.data.history import History
from forecastle.data.store import Store, task_stores
from forecastle.frame import read_note
from forecastle.http import Client, without_password
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task

Summary = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One passage of a flow: the task, where things lie, the moment it stands for, and its own folder.

    ``clock`` tells the real time, where the source is a real one; without it all is simulated.
    """

    task: Task
    settings: Settings
    flow: str
    now: datetime
    client: Client
    journal: Journal
    clock: Callable[[], datetime] | None = None

    @property
    def id(self) -> str:
        """The run's name: its flow and its moment, so that repeating a run repeats into the same folder."""
        return f"{self.flow}-{self.now:%Y%m%dT%H%M%SZ}"

    @property
    def home(self) -> Path:
        """The task's folder, where its runs, reports and models lie."""
        return self.settings.task_folder(self.task.name)

    @property
    def folder(self) -> Path:
        """The run's folder, through which its steps talk."""
        return self.home / "runs" / self.id

    @property
    def pages(self) -> dict[str, str]:
        """The addresses of what there is to look at by now: the gate's report, the profile, the run at MLflow."""
        there = {"gate": self.folder / "quality.html", "profile": self.home / "reports" / "profile.html"}
        found = {name: self.settings.page(path) for name, path in there.items() if path.exists()}
        note = self.folder / "model.json"
        if note.exists() and (server := self.settings.tracking_uri).startswith("http"):
            run_id = json.loads(note.read_bytes())["run_id"]
            found["mlflow"] = f"{without_password(server).rstrip('/')}/#/runs/{run_id}"
        return found

    @cached_property
    def stores(self) -> Store:
        """Where the task's archive and history lie."""
        return task_stores(self.settings, self.task.name)

    @cached_property
    def history(self) -> History:
        """The task's observations, as its steps."""
        return open_history(self.task, self.stores / "history", beside=self._history_of)

    def _history_of(self, task: str) -> Store:
        return task_stores(self.settings, task) / "history"


def note_of(folder: Path, step: str) -> Path:
    """Return where a run's folder says how a step of it ended."""
    return folder / "steps" / f"{step}.json"


def failure(folder: Path) -> str | None:
    """Say which step of a run failed, and why; None where none did."""
    for path in sorted(note_of(folder, "any").parent.glob("*.json")):
        said = read_note(path)
        if said is not None and not said["ok"]:
            return f"{said['step']} failed: {said['error']['message']}"
    return None
