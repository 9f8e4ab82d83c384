"""A backup of all stores by one command, taken while live runs go on; ``restoring`` puts it back.

Stores are copied against the flow of the data: first what refers (journal, pointers, the ledger of collecting), then
what it refers to (models, registry, training tables, history, admissions, archive). All of that is only ever added to,
so whatever an earlier copy names is in a later one, and what a later copy has beyond an earlier one is as after a crash
between two steps: the next run heals it.
Databases are copied by SQLite's own online backup; files that a merge of segments takes away meanwhile are
in the file it wrote before, which the next look at the folder finds. Prunes wait until the copy is done. Archive and
history in a bucket are copied as those in a folder are (``buckets``).

    <backup>/backup.json    the manifest, written last: every file with its SHA-256, formats, what lies elsewhere
    <backup>/home/…         see ``places``

A backup is whole and stands by itself (it is not incremental). It is made under another name and renamed when it is
done: what has the name asked for is a backup. A name that ends in .tar or .tar.gz gives one file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from forecastle import __version__
from forecastle.data import admissions, formats
from forecastle.data.budget import LEDGER
from forecastle.data.store import Store
from forecastle.errors import StorageUnavailable, UserError, plainly
from forecastle.frame import write_json
from forecastle.operations import buckets
from forecastle.operations.places import HOME, JOURNAL, REGISTRY, REMOTE, STORES, Places, places
from forecastle.operations.retention import PRUNED, alone
from forecastle.settings import Settings

MANIFEST = "backup.json"
FORMAT = 1
CHUNK = 1 << 20
ARCHIVES = (".tar", ".tar.gz", ".tgz")
FIRST = ("models", "series.json", "task.json", "backfilled.json")
LAST = ("reports", "quarantine", "history", admissions.FOLDER, "archive")
"""What of a task is copied in which order; the rest comes between. The pointer lies in ``models`` and is copied before
all else of it. A row is written after its admission, and that after its answer."""
LEFT_OUT = (
    "journal.db",
    "mlflow.db",
    LEDGER,
    "dvc-remote",
    "restoring.json",
)  # of the home folder; copied apart, or never
VERSIONS = "versions"
WORKSPACE_LEFT_OUT = (".dvc/cache", ".dvc/tmp")  # what the remote has, and what a running process leaves
LOCK_SECONDS = 300.0

Tell = Callable[[str, int], None]
"""Told of every store that was copied: its name, and how many files it has."""

Progress = Callable[[str, int, int], None]
"""Told what is at work, how many bytes of it are done, and of about how many: stores grow meanwhile."""

Moved = Callable[[int], None]
"""Told how many bytes were moved since it was told last."""


@dataclass(frozen=True)
class Backup:
    """What was backed up: where to, how many files and bytes, and what lies elsewhere with what to do about it."""

    path: Path
    files: int
    bytes: int
    elsewhere: dict[str, str]


def back_up(
    settings: Settings,
    to: Path,
    now: datetime,
    tell: Tell = lambda store, files: None,
    progress: Progress = lambda what, done, of: None,
) -> Backup:
    """Copy every store on this machine, and archive and history in a bucket, to a folder or .tar(.gz) that is new.

    Raises UserError where the target exists, lies in the home folder, or there is nothing to back up; FormatError where
    the stores are of another version; StorageUnavailable where a disk or bucket refuses.
    """
    to = to.absolute()
    where = places(settings)
    _require_target(to, where)
    formats.refuse_newer(settings.home)
    part = to.with_name(f".{to.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        files = _copy_all(where, part, tell, moving("Copying the stores…", _size(where), progress))
        if not files.keys() - {f"{HOME}/{formats.NOTE}"}:
            raise _nothing(where)
        manifest = {
            "format": FORMAT,
            "forecastle": __version__,
            "made_at": now,
            "places": where.known,
            "elsewhere": where.elsewhere,
            "formats": {"home": formats.found_format(settings.home)},  # the databases carry their own
            "files": files,
        }
        write_json(part / MANIFEST, manifest)
        size = sum(one["bytes"] for one in files.values())
        _put_in_place(part, to, moving("Packing…", size, progress))
    except OSError as error:
        raise StorageUnavailable(
            f"to back up to {to}",
            plainly(error),
            "Free some space there, or name a place with --to that can be written.",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Backup(to, len(files), size, where.elsewhere)


def moving(what: str, of: int, progress: Progress) -> Moved:
    """Return what adds up the bytes that were moved, and tells how far the work is."""
    done = 0

    def moved(size: int) -> None:
        nonlocal done
        done += size
        progress(what, done, max(of, done))

    return moved


def digest_of(path: Path, copy_to: Path | None = None, moved: Moved = lambda size: None) -> dict[str, Any]:
    """Return a file's bytes and SHA-256, copied on the way if asked."""
    whole, size = hashlib.sha256(), 0
    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb"))
        target = None
        if copy_to is not None:
            copy_to.parent.mkdir(parents=True, exist_ok=True)
            target = stack.enter_context(copy_to.open("wb"))
        while chunk := source.read(CHUNK):
            whole.update(chunk)
            size += len(chunk)
            if target is not None:
                target.write(chunk)
            moved(len(chunk))
    return {"bytes": size, "sha256": whole.hexdigest()}


def is_file(path: Path) -> bool:
    """Tell whether a backup of this name is one file rather than a folder."""
    return path.name.endswith(ARCHIVES)


def _require_target(to: Path, where: Places) -> None:
    if to.exists():
        raise UserError(f"no {to} yet", "one", "Name a backup that does not exist; each is whole by itself.")
    if any(to.is_relative_to(where.local[name]) for name in (HOME, STORES) if name in where.local):
        raise UserError("--to outside the home folder", f"{to}", "A backup beside its stores is lost with them.")
    if not any(path.exists() for path in where.local.values()):
        raise _nothing(where)


def _nothing(where: Places) -> UserError:
    return UserError(f"stores in {where.local[HOME]}", "none", "Check FORECASTLE_HOME.")


def _size(where: Places) -> int:
    """Return about how many bytes there are to copy on this machine; what lies in a bucket is not looked at before."""
    home = where.local[HOME]
    skip = {(home / VERSIONS / name).as_posix() for name in WORKSPACE_LEFT_OUT}
    total = 0
    for place in {home, *(path for path in where.local.values() if not path.is_relative_to(home))}:
        for path in [place] if place.is_file() else _files(place, skip):
            with suppress(OSError):
                total += path.stat().st_size
    return total


def _copy_all(where: Places, part: Path, tell: Tell, moved: Moved) -> dict[str, Any]:
    """Copy the stores in their order and return every file's bytes and digest by its path in the backup."""
    home = where.local[HOME]
    apart = where.local.get(STORES)
    tasks = sorted(one for one in home.iterdir() if _is_task(one) and one != apart) if home.is_dir() else []
    inside = {apart.as_posix()} if apart is not None else set()
    files: dict[str, Any] = {}

    def copied(store: str, found: dict[str, Any]) -> None:
        files.update(found)
        tell(store, len(found))

    with ExitStack() as held:
        for task in tasks:
            held.enter_context(alone(task))
        if JOURNAL in where.local:
            copied("journal", _copy_database(where.local[JOURNAL], part, JOURNAL, moved))
        # It says which stretches of the past are in the history: of none that is not in the copy of that.
        copied("collecting", _copy_database(home / LEDGER, part, f"{HOME}/{LEDGER}", moved))
        pointers = [path for task in tasks for path in sorted((task / "models").glob("*.json"))]
        copied("pointers", _copy_files(pointers, home, part / HOME, HOME, moved))
        known = set(files)
        for name in FIRST:
            for task in tasks:
                copied(f"{task.name}/{name}", _copy_tree(task / name, home, part / HOME, HOME, known, moved))
        if REGISTRY in where.local:
            copied("registry", _copy_database(where.local[REGISTRY], part, REGISTRY, moved))
        copied("artifacts", _copy_tree(home / "mlflow-artifacts", home, part / HOME, HOME, known, moved))
        with _workspace_alone(home / VERSIONS):
            skip = {(home / VERSIONS / name).as_posix() for name in WORKSPACE_LEFT_OUT}
            copied("versions", _copy_tree(home / VERSIONS, home, part / HOME, HOME, known, moved, skip))
        if REMOTE in where.local:
            remote = where.local[REMOTE]
            copied("training tables", _copy_tree(remote, remote, part / REMOTE, REMOTE, known, moved))
        for task in tasks:
            names = sorted({one.name for one in task.iterdir()} - {*FIRST, "runs", *LAST})
            for name in ["runs", *names, *LAST[:-3]]:
                copied(f"{task.name}/{name}", _copy_tree(task / name, home, part / HOME, HOME, known, moved, inside))
        for name in LAST[-3:]:  # these lie in two places where the stores are apart, and keep their order over both
            if where.bucket is not None and name in buckets.KINDS:
                for task_name, found in _copy_objects(where.bucket, name, part, moved).items():
                    copied(f"{task_name}/{name}", found)
            if apart is not None and name != admissions.FOLDER:
                for folder in sorted(apart.glob(f"*/{name}")):
                    found = _copy_tree(folder, apart, part / STORES, STORES, known, moved)
                    copied(f"{folder.parent.name}/{name}", found)
            for task in tasks:
                copied(f"{task.name}/{name}", _copy_tree(task / name, home, part / HOME, HOME, known, moved, inside))
        rest = [one for one in sorted(home.iterdir()) if one.is_file() and one.name not in LEFT_OUT]
        copied("home", _copy_files([one for one in rest if _belongs(one)], home, part / HOME, HOME, moved))
    return files


def _is_task(folder: Path) -> bool:
    reserved = (VERSIONS, "mlflow-artifacts", REMOTE)
    return folder.is_dir() and not folder.name.startswith(".") and folder.name not in reserved


def _copy_database(path: Path, part: Path, name: str, moved: Moved) -> dict[str, Any]:
    """Copy a SQLite database as it is at one moment, whoever writes to it meanwhile."""
    if not path.exists():
        return {}
    (part / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(part / name)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StorageUnavailable(f"to copy the database {path}", str(error), "Try again.") from error
    return {name: digest_of(part / name, moved=moved)}


def _copy_objects(bucket: Store, kind: str, part: Path, moved: Moved) -> dict[str, dict[str, Any]]:
    """Copy every task's objects of a kind, and return for each task what came."""
    found: dict[str, dict[str, Any]] = {}
    for name in buckets.copy_out(bucket, kind, part / STORES):
        of_task = found.setdefault(name.partition("/")[0], {})
        of_task[f"{STORES}/{name}"] = digest_of(part / STORES / name, moved=moved)
    return found


def _copy_tree(
    root: Path, base: Path, into: Path, prefix: str, known: set[str], moved: Moved, skip: set[str] | None = None
) -> dict[str, Any]:
    """Copy every file at or below root, looking again until a look finds nothing new.

    One look alone can miss both a file that is written while it lasts and the ones that file replaces.
    """
    found: dict[str, Any] = {}
    while True:
        paths = [root] if root.is_file() and _belongs(root) else sorted(_files(root, skip or set()))
        there = {*known, *found}
        new = [path for path in paths if f"{prefix}/{path.relative_to(base).as_posix()}" not in there]
        if not new:
            return found
        found |= _copy_files(new, base, into, prefix, moved)


def _copy_files(paths: list[Path], base: Path, into: Path, prefix: str, moved: Moved) -> dict[str, Any]:
    """Copy these files, leaving out those that vanish meanwhile."""
    found = {}
    for path in paths:
        name = path.relative_to(base).as_posix()
        try:
            found[f"{prefix}/{name}"] = digest_of(path, into / name, moved)
        except FileNotFoundError:
            (into / name).unlink(missing_ok=True)
    return found


def _files(root: Path, skip: set[str]) -> Iterator[Path]:
    for folder, folders, names in () if root.as_posix() in skip else os.walk(root):
        here = Path(folder)
        folders[:] = [one for one in folders if (here / one).as_posix() not in skip and not one.startswith(PRUNED)]
        yield from (path for name in names if _belongs(path := here / name) and not path.is_symlink())


def _belongs(path: Path) -> bool:
    """Tell whether a file is of a store, not a lock or what an unfinished write left."""
    name = path.name
    return not (name.endswith((".lock", ".part", "-wal", "-shm", "-journal")) or name.startswith(".clock."))


@contextmanager
def _workspace_alone(workspace: Path) -> Iterator[None]:
    """Hold the workspace of versions, as those do who write to it."""
    if not workspace.exists():
        yield
        return
    try:
        with FileLock(f"{workspace}.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise StorageUnavailable(
            f"the workspace {workspace} to be free", "another process in it", "Try again."
        ) from error


def _put_in_place(part: Path, to: Path, moved: Moved) -> None:
    """Give the finished copy the name it was asked for, in one move."""
    os.sync()
    if not is_file(to):
        part.rename(to)
        return
    packed = to.with_name(f".{to.name}.packing")

    def told(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        moved(entry.size)
        return entry

    try:
        with tarfile.open(packed, "w" if to.suffix == ".tar" else "w:gz") as archive:
            archive.add(part, arcname=".", filter=told)
        os.sync()
        packed.rename(to)
    finally:
        packed.unlink(missing_ok=True)
