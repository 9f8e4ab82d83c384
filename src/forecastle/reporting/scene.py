"""What a report is about, and where its facts are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent.parent


@dataclass(frozen=True)
class Scene:
    """A task and what ran for it, as of ``now``; ``made_at`` is when the report is made.

    ``flows`` names each flow's steps and what each comes after, ``commands`` the command line's words with their help:
    both are known to rooms above. ``repository`` is the clone this code runs from, None in an installed wheel.
    """

    task: Task
    file: Path
    settings: Settings
    journal: Journal
    now: datetime
    made_at: datetime
    output: Path
    flows: Mapping[str, Sequence[tuple[str, Sequence[str]]]]
    commands: Sequence[tuple[str, str]]
    repository: Path | None

    @property
    def home(self) -> Path:
        """The task's folder."""
        return self.settings.task_folder(self.task.name)

    @property
    def runs(self) -> list[Path]:
        """The folders of the task's runs, by their moments."""
        return sorted((self.home / "runs").glob("*-*"), key=lambda path: path.name.rpartition("-")[2])

    def run_with(self, flow: str, file: str) -> Path | None:
        """Return the newest run of a flow whose folder holds that file."""
        return next((run for run in self.runs[::-1] if run.name.startswith(flow) and (run / file).is_file()), None)

    def exists(self, path: str) -> bool | None:
        """Tell whether a path of the repository is there; what belongs to the package is looked for in the package.

        None where that cannot be told: outside the package, and no repository.
        """
        if path.startswith("src/forecastle/"):
            return (PACKAGE / path.removeprefix("src/forecastle/")).exists()
        return (self.repository / path).exists() if self.repository else None


def repository() -> Path | None:
    """Return the clone this code runs from, or None where it is installed."""
    return REPOSITORY if (REPOSITORY / "pyproject.toml").is_file() and (REPOSITORY / "src").is_dir() else None


def read_json(path: Path | None) -> Any:
    """Return what a JSON file holds; None where there is none, or one that cannot be read."""
    try:
        return None if path is None else json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
