"""Admissions: which archived answers were let into the history, and when. What lineage rests on.

    admitted/<year>-<month>.jsonl    one line a batch that the gate let in, in the month of its collection

A line is written before the batch's rows reach the history, so a row without its line cannot be; a batch that is let in
again (a run done twice) has two equal lines, which are read as one. A batch in quarantine has none. Where rows are read
back from earlier collections too, the line names those of their answers that no line before it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from forecastle.errors import StorageUnavailable
from forecastle.frame import to_json
from forecastle.settings import Settings
from forecastle.task import Task

FOLDER = "admitted"
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Admission:
    """A batch that was let in: its name, when it was collected and let in, and the names of its archived answers, and
    of those of earlier collections that its rows were read back from."""

    batch: str
    collected_at: datetime
    admitted_at: datetime
    archived: tuple[str, ...]
    recalled: tuple[str, ...] = ()

    @property
    def known_from(self) -> datetime:
        """When its rows were in the history: after it was collected, and let in."""
        return max(self.collected_at, self.admitted_at)


def note(folder: Path, admission: Admission) -> None:
    """Note a batch among the admissions of the task's folder; call it before its rows are appended to the history.

    The line is on the disk when this returns. Raises StorageUnavailable where the disk refuses, or the file stays
    locked for a minute.
    """
    path = folder / FOLDER / f"{admission.collected_at.astimezone(UTC):%Y-%m}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        admission = replace(admission, recalled=_unnamed(folder, admission))
        with FileLock(path.parent / ".lock", timeout=LOCK_SECONDS), path.open("ab+") as file:
            # A line torn by a crash is ended, so that it spoils no other.
            torn = file.tell() > 0 and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            file.write(("\n" if torn else "").encode() + to_json(asdict(admission)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except (OSError, Timeout) as error:
        raise _refused(path, error) from error


def admitted(folder: Path, as_of: datetime | None = None) -> tuple[Admission, ...]:
    """Return the batches that were in the history as of a time (None: ever), in the order of their collection.

    Those collected by then count, and of them those let in by then: one released from quarantine later does not.
    Raises StorageUnavailable where they cannot be read.
    """
    found: dict[str, Admission] = {}
    for path in _months(folder, as_of):
        for one in _read(path):
            if as_of is None or one.known_from <= as_of:
                known = found.get(one.batch)
                if known is None or one.admitted_at < known.admitted_at:
                    found[one.batch] = one
    return tuple(sorted(found.values(), key=lambda one: (one.collected_at, one.batch)))


def answers(admissions: Sequence[Admission]) -> tuple[str, ...]:
    """Return the names of the archived answers of these batches, each once, in order."""
    return tuple(dict.fromkeys(name for one in admissions for name in (*one.recalled, *one.archived)))


def rested_on(settings: Settings, task: Task, as_of: datetime | None = None) -> tuple[str, ...]:
    """Return the answers that what a task had learnt as of a time rests on, those of the tasks it joins too.

    An answer of another task is named ``<task>: <name>``. Raises StorageUnavailable where they cannot be read.
    """
    own = answers(admitted(settings.task_folder(task.name), as_of))
    joined = [
        f"{other}: {name}" for other in task.others for name in answers(admitted(settings.task_folder(other), as_of))
    ]
    return (*own, *joined)


def _unnamed(folder: Path, admission: Admission) -> tuple[str, ...]:
    """Return the recalled answers that no other batch names which was in the history by then."""
    if not admission.recalled:
        return ()
    since = f"{min(admission.recalled)[:7].replace('/', '-')}"
    near = [path for path in _months(folder, None) if path.stem >= since]
    lines = [one for path in near for one in _read(path)]
    named = answers([one for one in lines if one.batch != admission.batch and one.known_from <= admission.known_from])
    return tuple(sorted(set(admission.recalled) - set(named)))


def _months(folder: Path, as_of: datetime | None) -> list[Path]:
    try:
        months = sorted((folder / FOLDER).glob("*.jsonl"))
    except OSError as error:
        raise _refused(folder / FOLDER, error) from error
    last = None if as_of is None else f"{as_of.astimezone(UTC):%Y-%m}"
    return [path for path in months if last is None or path.stem <= last]


def _read(path: Path) -> Iterator[Admission]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise _refused(path, error) from error
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue  # torn by a crash before its batch reached the history
        times = {name: datetime.fromisoformat(found[name]) for name in ("collected_at", "admitted_at")}
        recalled = tuple(found.get("recalled", ()))
        yield Admission(batch=found["batch"], archived=tuple(found["archived"]), recalled=recalled, **times)


def _refused(path: Path, error: Exception) -> StorageUnavailable:
    said = "another process in it" if isinstance(error, Timeout) else str(getattr(error, "strerror", None) or error)
    return StorageUnavailable(
        f"the admissions {path} to be read and written", said, "Mend the folder, or restore it from a backup."
    )
