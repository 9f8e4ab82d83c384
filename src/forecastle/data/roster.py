"""Which series a task has: those in service, those that came later and need their past, those that were retired.

    <home>/<task>/series.json    since when each series is collected, and when one was taken out of the task

Retired is a series of the history that the task names no more: nothing is collected, learnt, forecast or told of it,
and its rows stay. A task that names no series (its source decides) has all there are. Both flows change the list, so
each change has it alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from forecastle.data import formats
from forecastle.data.history import History
from forecastle.errors import StorageUnavailable, plainly
from forecastle.frame import SERIES, iso, write_json
from forecastle.task import Task

NOTE = "series.json"
FORMAT = 1
LOCK_SECONDS = 60.0


def in_service(task: Task, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the series the task has now."""
    return rows.filter(pl.col(SERIES).is_in(task.series_ids)) if task.series else rows


def retired(task: Task, folder: Path) -> dict[str, datetime]:
    """Return the series that were taken out of the task, and when that was noticed."""
    known = _read(folder) or {}
    return {
        name: datetime.fromisoformat(entry["retired_at"])
        for name, entry in known.items()
        if name not in task.series_ids and entry.get("retired_at")
    }


@dataclass(frozen=True)
class Missing:
    """A series whose past is still to be fetched: from when on, and when that was last tried in vain."""

    start: datetime
    tried_at: datetime | None


def missing(task: Task, folder: Path, history: History, now: datetime) -> dict[str, Missing]:
    """Return the series of the task whose past is still to be fetched: those new to it, from the task's start, and
    those that come back after having been retired, from their last row; note which are retired now.

    Where nothing was noted yet, every series that has rows counts as known.
    """
    if not task.series:
        return {}
    extents = None
    with _alone(folder):
        known = _read(folder)
        if known is None:
            extents = _extents(history)
            known = {name: {"since": iso(first)} for name, (first, _) in extents.items()}
        for name in known.keys() - set(task.series_ids):
            known[name].setdefault("retired_at", iso(now))
        _write(folder, known)
    found: dict[str, Missing] = {}
    for name in task.series_ids:
        entry = known.get(name, {})
        if "since" in entry and "retired_at" not in entry:
            continue
        start = task.start
        if "since" in entry:
            extents = extents if extents is not None else _extents(history)
            start = max(start, extents.get(name, (start, start))[1])
        tried = entry.get("tried_at")
        found[name] = Missing(start, datetime.fromisoformat(tried) if tried else None)
    return found


def enrol(folder: Path, names: Iterable[str], since: datetime) -> None:
    """Note that the past of these series is there: they are in service from now on."""
    with _alone(folder):
        _enrol(folder, names, since)


def lapse(folder: Path, names: Iterable[str], now: datetime) -> None:
    """Note that these series have fallen silent: what they lack since their last row is to be fetched for each alone.

    Of one whose past was never there nothing changes.
    """
    with _alone(folder):
        known = _read(folder) or {}
        for name in names:
            if "since" in known.get(name, {}):
                known[name].setdefault("retired_at", iso(now))
        if known:
            _write(folder, known)


def expect(folder: Path, name: str, batch: str) -> None:
    """Note that a batch, of this name, is all of a series' past: if it is refused, its release enrols the series."""
    with _alone(folder):
        known = _read(folder) or {}
        entry = known.get(name, {})
        known[name] = {**entry, "batches": sorted({*entry.get("batches", ()), batch})}
        _write(folder, known)


def enrol_past(folder: Path, batch: str, since: datetime) -> None:
    """Enrol the series whose past a released batch is; of any other batch nothing is noted."""
    with _alone(folder):
        known = _read(folder) or {}
        if names := [name for name, entry in known.items() if batch in entry.get("batches", ())]:
            _enrol(folder, names, since)


def postpone(folder: Path, name: str, now: datetime) -> None:
    """Note that the past of a series could not be had now."""
    with _alone(folder):
        known = _read(folder) or {}
        known[name] = {**known.get(name, {}), "tried_at": iso(now)}
        _write(folder, known)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep every other process from changing the list meanwhile."""
    path = folder / ".series.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=LOCK_SECONDS)
        lock.acquire()
    except Timeout:
        raise StorageUnavailable(
            f"to change the list of series in {folder} alone",
            f"{path} held by another process for {LOCK_SECONDS:.0f} s",
            "Wait until that has ended, or end it.",
        ) from None
    except OSError as error:
        raise StorageUnavailable(f"to lock {path}", plainly(error), "Mend the folder.") from error
    try:
        yield
    finally:
        lock.release()


def _enrol(folder: Path, names: Iterable[str], since: datetime) -> None:
    known = _read(folder) or {}
    for name in names:
        known[name] = {"since": known.get(name, {}).get("since", iso(since))}
    _write(folder, known)


def _extents(history: History) -> dict[str, tuple[datetime, datetime]]:
    return {name: (first, last) for name, first, last, _ in history.extent().iter_rows()}


def _read(folder: Path) -> dict[str, dict[str, Any]] | None:
    path = folder / NOTE
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
        formats.require(int(found["format"]), FORMAT, f"the list of series at {path}")
        return dict(found["series"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(
            f"the list of series at {path}", plainly(error), "Restore the file from a backup of the home folder."
        ) from error


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    if known != _read(folder):
        write_json(folder / NOTE, {"format": FORMAT, "series": known})
