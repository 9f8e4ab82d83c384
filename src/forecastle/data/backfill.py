"""Bring a past into the history: piece by piece, each through archive and gate, and none that is there already.

What a collection has brought is noted in the ledger when its rows are in the history, under a digest of what was asked:
a backfill that was stopped, at whatever point, goes on where it was, and one that asks for other series or columns
starts anew. The newest days are not noted yet: they are still revised, and every collection asks for them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from forecastle.data import ingestion, intake
from forecastle.data.archive import Archive
from forecastle.data.budget import open_ledger
from forecastle.data.providers import PROVIDERS
from forecastle.data.store import task_stores
from forecastle.errors import (
    ForecastleError,
    GateError,
    NothingThere,
    OutsideError,
    QualityGateFailed,
    StorageUnavailable,
    UserError,
)
from forecastle.frame import EPOCH, iso, to_json
from forecastle.http import Client
from forecastle.settings import Settings
from forecastle.task import DAY, Task

MOST_ROWS = 1_000_000
"""Rows of one piece, at most, so that a source of seconds needs no more memory than one of hours."""

SETTLED = 30 * DAY
"""A stretch as old as that which a source has nothing of will stay empty."""

_SECOND = timedelta(seconds=1)
Stretch = tuple[datetime, datetime]


@dataclass(frozen=True)
class Brought:
    """What became of a piece (from ``start`` up to but without ``end``): its rows, or the error that ended it."""

    start: datetime
    end: datetime
    answers: int = 0
    rows: int = 0
    new: int = 0
    masked: int = 0
    error: ForecastleError | None = None


def plan(task: Task, settings: Settings, start: datetime | None, end: datetime, now: datetime) -> tuple[Stretch, ...]:
    """Return the pieces of start to end that are not there yet, each of which a few calls answer.

    ``start`` is by default the source's. Raises UserError for a source that has no past to ask for, or no such stretch.
    """
    provider = PROVIDERS[task.source.provider]
    if not _has_a_past(task):
        what = "the present alone" if task.source.provider != "file" else "a file, which every training reads whole"
        raise UserError(
            f"a source of task {task.name!r} that can be asked for its past",
            f"provider {task.source.provider}: {what}",
            "There is nothing to backfill; collect from now on: forecastle live --task FILE",
        )
    if start is None and task.source.start is None:
        raise UserError(
            f"to know from when on to backfill task {task.name!r}", "neither", "Give --from, or start in [source]."
        )
    begin, until = start or task.start, min(end, now)
    if begin >= until:
        raise UserError("a stretch of the past", f"{iso(begin)} to {iso(until)}", "Give --from before --to.")
    there = open_ledger(settings).stretches(task.name, asked(task))
    return tuple(
        part
        for gap in _without((begin, until), there)
        for piece in provider.pieces(*gap, now)
        for part in _small_enough(task, piece)
    )


def is_whole(task: Task, settings: Settings, now: datetime) -> bool:
    """Tell whether all of the task's past, from its start up to what a live window holds, is in the history."""
    gaps = _without((task.start, now - _window(task)), open_ledger(settings).stretches(task.name, asked(task)))
    return next(gaps, None) is None


def bring(
    task: Task,
    settings: Settings,
    client: Client,
    pieces: Iterable[Stretch],
    keep_going: bool,
    now: Callable[[], datetime],
    clock: Callable[[], datetime] | None,
) -> Iterator[Brought]:
    """Fetch pieces and let each into the history if the gate passes it; yield what became of each.

    ``now`` is the moment of a collection, ``clock`` as in ``ingestion.fetch``. After an error of the data it goes on
    only with ``keep_going``, after one of the source not at all; the error is the last piece's, for the door to raise.
    """
    with _alone(task, settings):
        for start, end in pieces:
            brought = _bring_one(task, settings, client, start, end, now(), clock)
            yield brought
            if brought.error is not None and not (keep_going and isinstance(brought.error, GateError)):
                return


def note(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> None:
    """Note that a stretch is in the history, up to half a live window ago: later rows are asked for again anyway.

    Half of it or less, so that what collections bring that are half a window apart becomes one stretch without a
    hole; by quarters of it, so that not every collection has something to note.
    """
    quarter = _window(task) / 4
    if not quarter or not _has_a_past(task):
        return
    half_ago = now - 2 * quarter
    settled = min(end, half_ago + (EPOCH - half_ago) % quarter)
    if start < settled:
        open_ledger(settings).cover(task.name, asked(task), start, settled)


def asked(task: Task) -> str:
    """Return a digest of what is asked of the source: another one brings other rows."""
    measured = task.measured
    api = measured.source.http_json
    what = {
        "provider": [measured.source.provider, measured.source.url, api and api.model_dump(exclude={"budget"})],
        "step": measured.source_step,
        "series": [one.model_dump() for one in measured.series],
        "columns": {name: one.unit for name, one in measured.columns.items()},
    }
    return hashlib.sha256(to_json({**what, "step": str(what["step"])}).encode()).hexdigest()[:16]


def _bring_one(
    task: Task,
    settings: Settings,
    client: Client,
    start: datetime,
    end: datetime,
    now: datetime,
    clock: Callable[[], datetime] | None,
) -> Brought:
    folder, stores = settings.task_folder(task.name), task_stores(settings, task.name)
    archive = Archive(stores / "archive")
    last = min(end - _SECOND, now)
    try:
        batch = ingestion.fetch(task, settings, client, archive, start, last, now, False, clock)
        admitted = intake.admit(task, folder, batch, now, stores=stores)
    except NothingThere as error:
        if end <= now - SETTLED:
            note(task, settings, start, end, now)
        elif task.grid == "regular":  # where markets close, a few days without a row are no fault
            return Brought(start, end, error=error)
        return Brought(start, end)
    except (GateError, OutsideError) as error:
        return Brought(start, end, error=error)
    if admitted.report.withheld:
        refused = QualityGateFailed(
            f"every series from {iso(start)} to {iso(end)} to pass the gate",
            f"withheld {', '.join(admitted.report.withheld)}: {admitted.report.reason}",
            "The others are in the history. Look at them: forecastle quarantine list; go past them with --keep-going.",
        )
        return Brought(start, end, error=refused)
    note(task, settings, start, end, now)
    masked, new = admitted.report.masked, admitted.appended.new
    return Brought(start, end, len(batch.archived), batch.rows.height, new, masked)


def _has_a_past(task: Task) -> bool:
    return task.source.provider != "file" and not PROVIDERS[task.source.provider].gives_present_only(task)


def _window(task: Task) -> timedelta:
    return max(task.source.window, task.gate.window)


def _without(whole: Stretch, there: Iterable[Stretch]) -> Iterator[Stretch]:
    """Yield the parts of a stretch that others, in the order of their starts, leave over."""
    begin, end = whole
    for first, last in there:
        if first >= end:
            break
        if begin < first:
            yield begin, first
        begin = max(begin, last)
    if begin < end:
        yield begin, end


def _small_enough(task: Task, piece: Stretch) -> Iterator[Stretch]:
    start, end = piece
    days = max(MOST_ROWS * task.source_step // (DAY * max(len(task.series), 1)), 1)
    while start < end:
        yield start, min(start + days * DAY, end)
        start += days * DAY


@contextmanager
def _alone(task: Task, settings: Settings) -> Iterator[None]:
    path: Path = settings.task_folder(task.name) / "backfill.lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StorageUnavailable(
            f"to backfill task {task.name!r} alone", "another process that does so", "Wait until it has ended."
        ) from None
    except OSError as error:
        raise StorageUnavailable(f"to lock {path}", str(error.strerror or error), "Mend the folder.") from error
    try:
        yield
    finally:
        lock.release()
