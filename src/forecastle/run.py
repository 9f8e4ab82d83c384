"""One passage of a flow: what its steps are given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from forecastle.data.derivation import open_history
from forecastle.data.history import History
from forecastle.http import Client
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task

Summary = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One passage of a flow: the task, where things lie, the moment it stands for, and its own folder."""

    task: Task
    settings: Settings
    flow: str
    now: datetime
    client: Client
    journal: Journal

    @property
    def id(self) -> str:
        """The run's name: its flow and its moment, so that repeating a run repeats into the same folder."""
        return f"{self.flow}-{self.now:%Y%m%dT%H%M%SZ}"

    @property
    def home(self) -> Path:
        """The task's folder, where its stores lie."""
        return self.settings.task_folder(self.task.name)

    @property
    def folder(self) -> Path:
        """The run's folder, through which its steps talk."""
        return self.home / "runs" / self.id

    @cached_property
    def history(self) -> History:
        """The task's observations, as its steps."""
        return open_history(self.task, self.home / "history")
