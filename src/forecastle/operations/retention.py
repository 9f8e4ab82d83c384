"""How long the stores keep what is over: ``forecastle prune``, by the days the settings say.

Never touched is what a live model rests on. Alive are champion, challenger, the newest version and the one that served
before; each rests on its registered run and published folder, on the data version it was trained on (those are never
pruned), on the archived answers that were let in by then, and on the outcomes its intervals follow. Observations are
never pruned either: whatever else goes, the history can be trained on again. Since the next model, and the tasks that
join this one, will rest on them, the answers that brought what the history holds stay whatever their age.

Everything goes in an order in which a crash leaves nothing half: what is named goes after what names it, folders are
renamed out of sight before they are emptied. Two prunes of one task take turns.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from forecastle import lineage
from forecastle.data import formats, identity
from forecastle.data.archive import Archive, Note
from forecastle.data.history import History
from forecastle.data.providers import gives_events
from forecastle.data.store import task_stores
from forecastle.errors import StorageUnavailable
from forecastle.models import bundle, pointer, registry
from forecastle.monitoring import uptime
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tallies import LATEST_TRUTH
from forecastle.settings import Settings
from forecastle.task import Task

LIVE = LATEST_TRUTH + timedelta(days=1)  # what live scores, late truths and the page look back on at most
COLLECTING = timedelta(days=15)  # what collections themselves look back on in the archive at most, and a little more
LOCK = ".prune.lock"
LOCK_SECONDS = 600.0
PRUNED = ".pruned-"
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Pruned:
    """What one store of a task lost (or would lose): how many things, how many bytes (None where a database cannot
    say), and how many it keeps past their days because something live rests on them."""

    task: str
    store: str
    days: int
    items: int
    bytes: int | None
    needed: int = 0


def prune(settings: Settings, tasks: Sequence[Task], now: datetime, dry_run: bool = False) -> Iterator[Pruned]:
    """Remove from the stores of these tasks what is older than the settings keep it, and yield what each lost.

    With ``dry_run`` nothing is removed. What live models rest on is found out first: where the registry or the journal
    does not answer, nothing is removed. Raises OutsideError so, TaskError and FormatError as the flows do.
    """
    formats.open_home(settings.home)
    with Journal(settings.journal_url) as journal:
        for task in tasks:
            folder = settings.task_folder(task.name)
            identity.require(task, folder)
            if folder.is_dir():
                with alone(folder):
                    joining = [one for one in tasks if task.name in one.others]
                    yield from _prune_task(settings, task, joining, journal, now, dry_run)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a task's stores against being pruned by another process; it ends with the process, however that ends."""
    try:
        lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS)
        lock.acquire()
    except Timeout as error:
        raise StorageUnavailable(
            f"the stores in {folder} to be free", "another process pruning or copying them", "Try again later."
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Needs:
    """What live models rest on: their versions, the names of archived answers, the names of run folders."""

    versions: frozenset[str]
    answers: frozenset[str]
    folders: frozenset[str] = frozenset()


def needs(settings: Settings, task: Task, journal: Journal, joining: Sequence[Task] = ()) -> Needs:
    """Return what must stay, whatever its age: what lineage needs, and the answers that brought what the history holds.

    ``joining`` are tasks that read columns of this one's history. Those not told rest on the rows all the same.
    Of events all answers stay: several together tell a row. Raises OutsideError where a store does not answer.
    """
    alive = registry.held(settings, task)
    current = pointer.published(settings, task)
    if current is not None and current.version not in alive:
        alive[current.version] = bundle.load(current.folder, current.version).created_at
    used = list(_notes(settings, task))
    if not gives_events(task):
        brought = History(task_stores(settings, task.name) / "history", ()).collections()
        used = [one for one in used if one.collected_at in brought]
    traced = lineage.needed(settings, task, journal)
    answers = traced.archived | {one.name for one in used}
    for one in joining:
        answers |= {name.removeprefix(f"{task.name}: ") for name in lineage.needed(settings, one, journal).archived}
    return Needs(traced.model_versions | alive.keys(), answers, traced.folders)


def _prune_task(
    settings: Settings, task: Task, joining: Sequence[Task], journal: Journal, now: datetime, dry_run: bool
) -> Iterator[Pruned]:
    folder = settings.task_folder(task.name)
    if not dry_run:
        for left in folder.glob(f"*/{PRUNED}*"):
            shutil.rmtree(left, ignore_errors=True)
    live = needs(settings, task, journal, joining)
    if settings.keep_quarantine:
        yield _folders(task, "quarantine", folder / "quarantine", settings.keep_quarantine, now, dry_run, live)
    if settings.keep_runs:
        yield _folders(task, "runs", folder / "runs", settings.keep_runs, now, dry_run, live)
        yield _folders(task, "reports", folder / "reports" / "intake", settings.keep_runs, now, dry_run, live)
    if settings.keep_journal:
        before = now - max(timedelta(days=settings.keep_journal), LIVE + task.horizon)
        counts = journal.forget(task.name, before, live.versions, dry_run)
        if not dry_run:
            uptime.forget(journal, before)  # the service's, not this task's: the second task finds them gone
        yield Pruned(task.name, "journal", settings.keep_journal, sum(counts.values()), None)
    if settings.keep_models:
        yield _models(settings, task, live, now, dry_run)
    if settings.keep_archive:
        yield _archive(settings, task, live, now, dry_run)


def _archive(settings: Settings, task: Task, live: Needs, now: datetime, dry_run: bool) -> Pruned:
    folder = settings.task_folder(task.name)
    before = now - max(timedelta(days=settings.keep_archive), COLLECTING)
    old = {one.name for one in _notes(settings, task) if one.collected_at < before}
    needed = old & (live.answers | _quarantined(settings, folder, now))
    freed = Archive(task_stores(settings, task.name) / "archive").forget(old - needed, dry_run)
    return Pruned(task.name, "archive", settings.keep_archive, len(old - needed), freed, len(needed))


def _quarantined(settings: Settings, folder: Path, now: datetime) -> set[str]:
    """Return the names of the answers that the quarantined batches came in, but for those whose days are over."""
    before = now - timedelta(days=settings.keep_quarantine) if settings.keep_quarantine else None
    notes = [
        path
        for path in folder.glob("quarantine/*/batch.json")
        if before is None or (at := _at(path.parent)) is None or at >= before
    ]
    return {str(name) for path in notes for name in json.loads(path.read_bytes()).get("archived", ())}


def _notes(settings: Settings, task: Task) -> Iterable[Note]:
    return Archive(task_stores(settings, task.name) / "archive").notes()


def _models(settings: Settings, task: Task, live: Needs, now: datetime, dry_run: bool) -> Pruned:
    """Remove superseded versions: first what is published of them, then the registry's."""
    before = now - timedelta(days=settings.keep_models)
    gone = [one for one in registry.superseded(settings, task, before) if one.version not in live.versions]
    freed = 0
    for one in gone:
        published = pointer.folders(settings, task, one.version)
        freed += sum(map(_size, published))
        if not dry_run:
            for folder in published:
                _remove(folder)
            pointer.withdraw(settings, task, one.version)
            registry.forget(settings, task, one)
    return Pruned(task.name, "models", settings.keep_models, len(gone), freed, len(live.versions))


def _folders(task: Task, store: str, root: Path, days: int, now: datetime, dry_run: bool, live: Needs) -> Pruned:
    """Remove the folders named by a time longer ago, but the newest run of each flow and those a live model needs."""
    found = {path: at for path in root.glob("*") if path.is_dir() and (at := _at(path))}
    spared = {max(of) for kind in ("train-", "live-") if (of := [one for one in found if one.name.startswith(kind)])}
    spared |= {path for path in found if store == "runs" and path.name in live.folders}
    old = [path for path, at in found.items() if at < now - timedelta(days=days)]
    gone = [path for path in old if path not in spared]
    freed = sum(map(_size, gone))
    if not dry_run:
        for path in gone:
            _remove(path)
    return Pruned(task.name, store, days, len(gone), freed, len(old) - len(gone))


def _at(path: Path) -> datetime | None:
    """Return the time in a folder's name, which every run and every batch begins or ends with."""
    for part in path.name.split("-"):
        with suppress(ValueError):
            return datetime.strptime(part, STAMP).replace(tzinfo=UTC)
    return None


def _remove(path: Path) -> None:
    """Take a folder out of sight in one move, then empty it; one that is gone already is fine."""
    aside = path.with_name(f"{PRUNED}{uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
