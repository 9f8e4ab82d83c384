"""What a task is for good: what its name stands for in the stores, whatever else of its file changes.

    <home>/<task>/task.json    written before the first observation comes into the history

Under one name the history, the journal and the scores must speak of one quantity: the target, how it is derived, its
unit, its frequency and its grid. All else may change while data lives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forecastle.data import formats
from forecastle.errors import StorageUnavailable, TaskError, plainly
from forecastle.frame import write_json
from forecastle.task import Task, duration_text

NOTE = "task.json"
FORMAT = 1


def identity(task: Task) -> dict[str, Any]:
    """Return what may not change under a task's name, as plain data."""
    target = task.columns[task.target]
    found: dict[str, Any] = {
        "target": task.target,
        "unit": task.unit,
        "frequency": duration_text(task.frequency),
        "grid": task.grid,
    }
    if task.is_derived:  # hourly volatility of minutes is another quantity than that of candles of five
        found["step"] = duration_text(task.source_step)
        found["derived"] = [target.derived, *target.inputs] if target.derived else target.per_step
    return found


def require(task: Task, folder: Path) -> None:
    """Raise TaskError where the stores in the task's folder were begun for something else; write nothing."""
    noted = read(folder)
    if noted is not None:
        agree(task, noted)


def hold(task: Task, folder: Path) -> None:
    """Check a task against what its stores were begun for, and note that where nothing is noted yet.

    Raises TaskError where they differ.
    """
    require(task, folder)
    if read(folder) is None:
        write_json(folder / NOTE, {"format": FORMAT, "task": task.name, **identity(task)})


def read(folder: Path) -> dict[str, Any] | None:
    """Return what is noted of a task's identity, or None where nothing is; raises StorageUnavailable, FormatError."""
    path = folder / NOTE
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        formats.require(int(found.pop("format", 1)), FORMAT, f"the task's identity at {path}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise StorageUnavailable(
            f"the task's identity at {path}", plainly(error), "Restore the file from a backup of the home folder."
        ) from error
    found.pop("task", None)
    return found


def agree(task: Task, noted: Mapping[str, Any]) -> None:
    """Raise TaskError where a task's identity differs from what is noted of it."""
    asked = identity(task)
    names = [name for name in dict.fromkeys([*noted, *(asked if "unit" in noted else ())])]
    wrong = [name for name in names if asked.get(name) != noted.get(name)]
    if wrong:
        raise TaskError(
            f"task {task.name!r} to forecast what its stores were begun for",
            "; ".join(f"{name} {_said(noted.get(name))}, now {_said(asked.get(name))}" for name in wrong),
            'Take the change back, or give the changed task a name of its own (name = "…"): it then starts stores of '
            "its own, and what was collected under the old name stays.",
        )


def _said(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]} of {', '.join(value[1:])}"
    return "none" if value in (None, "") else str(value)
