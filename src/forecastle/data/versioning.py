"""Versions of the training table: a DVC workspace of forecastle's own, its data in a remote store.

    <task>/training.parquet.dvc      DVC's pointer to the newest version; in git by default
    <task>/versions/<version>.json   what each version was made of, and its pointer

A version is the table's DVC digest. Its pointer and its record are written only after the data has been pushed, so
neither a commit nor a record ever names data that the remote does not have; plain ``dvc pull`` in a clone of the
workspace gives the same bytes. DVC is called in process and commits are written by dulwich, which DVC stands on: no git
program, no home folder and no git configuration is needed, and none is read for who the author is. With
FORECASTLE_GIT=false there is no git at all (DVC's ``core.no_scm``): pointers and records are the workspace's files.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from filelock import FileLock, Timeout

from forecastle import __version__
from forecastle.data import workspace
from forecastle.data.remotes import NAME, Remote, remote
from forecastle.data.workspace import TABLE
from forecastle.errors import StorageUnavailable, plainly
from forecastle.frame import iso, write_bytes, write_json
from forecastle.settings import Settings
from forecastle.task import Task

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK_SECONDS = 120.0
PROBE = b"Written by forecastle to see whether this store takes and gives.\n"
FORMAT = 1
OUTSIDE = (  # whose exceptions tell of the table, the remote or the way to it: DVC lets its clients' own ones through
    *("dvc", "dvc_data", "dvc_objects", "dvc_http", "dvc_s3", "dvc_azure", "fsspec", "polars", "sqlite3"),
    *("aiohttp", "aiohttp_retry", "adlfs", "azure", "aiobotocore", "botocore", "s3fs"),
)


@dataclass(frozen=True)
class Snapshot:
    """A versioned table: its DVC digest, its path in the workspace, the commit of its pointer ("": no git), its
    rows."""

    version: str
    path: Path
    commit: str
    rows: int


@dataclass(frozen=True)
class Record:
    """What a version was made of: the run, the moment whose knowledge it holds, the code; where it was pushed.

    ``answers`` counts the archived answers it rests on. ``commit`` is empty where there is no git.
    """

    task: str
    version: str
    rows: int
    run: str
    as_of: datetime | None
    answers: int | None
    code: str
    remote: str
    commit: str = ""


def version_table(
    settings: Settings, task: Task, table: Path, run_id: str, as_of: datetime | None = None, answers: int | None = None
) -> Snapshot:
    """Push a Parquet table to the DVC remote, record what it was made of and commit it in a message that names the run.

    ``as_of`` is the moment whose knowledge the table holds, ``answers`` the number of archived answers behind it. The
    same bytes again give the same Snapshot and no new commit. A crash anywhere is healed by calling it again.
    Raises StorageUnavailable when the table cannot be read, the remote does not take it, or another process holds the
    workspace for two minutes; SettingsError when an address holds a secret, which would be committed.
    """
    root, target = settings.versions, remote(settings)
    with _locked(root), _outside_faults(target) as said:
        rows = int(pl.scan_parquet(table).select(pl.len()).collect().item())
        with _opened(root, settings, target) as repo:
            path = write_bytes(root / task.name / TABLE, table.read_bytes())
            stage = repo.add(str(path), force=True)[0]
            version = str(stage.outs[0].hash_info.value)
            said.clear()
            repo.push(targets=[str(path)], remote=NAME)
        record = f"{task.name}/{workspace.RECORDS}/{version}.json"
        if not (root / record).exists():
            found = Record(task.name, version, rows, run_id, as_of, answers, __version__, target.shown)
            write_json(root / record, _as_json(found, (path.parent / workspace.POINTER).read_text(encoding="utf-8")))
        commit = ""
        if settings.git:
            workspace.commit_version(root, settings, root / record)
            commit = workspace.last_commit(root, record)
        return Snapshot(version, path, commit, rows)


def connect(settings: Settings, git_remote: tuple[str, str] | None = None, local_login: bool = False) -> Path:
    """Make the workspace with its DVC remote, if need be, and return its folder.

    ``git_remote`` is a name and an address to give git; ``local_login`` lets plain DVC log in there too, by a file that
    git ignores and only the user reads (.dvc/config.local).
    """
    root, target = settings.versions, remote(settings)
    with _locked(root), _outside_faults(target, "the workspace to be made"):
        workspace.prepare(root, settings, target)
        if local_login:
            workspace.keep_login(root, target)
        if settings.git and git_remote is not None:
            workspace.name_git_remote(root, *git_remote)
    return root


def try_remote(settings: Settings) -> str:
    """Push a few bytes to the DVC remote and read them back; return the remote's address as it may be shown.

    The bytes are always the same and stay there. Raises StorageUnavailable where the remote does not take or keep them.
    """
    from dvc.fs import LocalFileSystem

    root, target = settings.versions, remote(settings)
    with _locked(root), _outside_faults(target, "a probe to be pushed"), _opened(root, settings, target) as repo:
        store, name = repo.cloud.get_remote_odb(NAME), hashlib.md5(PROBE, usedforsecurity=False).hexdigest()
        probe = write_bytes(root / ".dvc" / "tmp" / "probe", PROBE)
        store.add(str(probe), LocalFileSystem(), name, check_exists=False)
        found = store.fs.cat_file(store.oid_to_path(name))
    if found != PROBE:
        raise StorageUnavailable(
            f"{target.shown} to give back what was pushed", f"{len(found)} other bytes", "Mend the remote's address."
        )
    return target.shown


def records(settings: Settings, task: Task) -> tuple[Record, ...]:
    """Return the records of the task's versions, the newest first. Raises StorageUnavailable for one that is torn."""
    folder = settings.versions / task.name / workspace.RECORDS
    found = [_read(path) for path in folder.glob("*.json")]
    return tuple(sorted(found, key=lambda one: (iso(one.as_of) if one.as_of else "", one.version), reverse=True))


def record(settings: Settings, task: Task, version: str) -> Record | None:
    """Return the record of a version with its commit, or None where the workspace has none."""
    name = f"{task.name}/{workspace.RECORDS}/{version}.json"
    if not (settings.versions / name).exists():
        return None
    return replace(_read(settings.versions / name), commit=workspace.last_commit(settings.versions, name))


def _as_json(found: Record, pointer: str) -> Mapping[str, Any]:
    kept = {name: getattr(found, name) for name in Record.__dataclass_fields__ if name != "commit"}
    return {"format": FORMAT, **kept, "pointer": pointer}


def _read(path: Path) -> Record:
    try:
        found = json.loads(path.read_bytes())
        if found["format"] > FORMAT:
            raise ValueError(f"format {found['format']}")
        as_of = found["as_of"] and datetime.fromisoformat(found["as_of"])
        kept = {name: found[name] for name in Record.__dataclass_fields__ if name not in ("as_of", "commit")}
        return Record(**kept, as_of=as_of)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(
            f"a record of format {FORMAT} at {path}", plainly(error), "Restore it from git or a backup."
        ) from error


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the workspace for this process; DVC's own lock gives up after three seconds."""
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{root}.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageUnavailable(f"the workspace {root} to be free", "another process in it", "Try again.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _outside_faults(target: Remote, what: str = "the training table to be pushed") -> Iterator[list[str]]:
    """Turn what goes wrong outside into StorageUnavailable; yields the list in which DVC's own log lines gather.

    DVC raises how many files failed, and logs why.
    """
    said: list[str] = []
    with _listening(said):
        try:
            yield said
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in OUTSIDE:
                raise
            causes = [str(error).strip() or type(error).__name__, *dict.fromkeys(said)]
            raise StorageUnavailable(
                f"{what} to {target.shown}" if what.endswith("pushed") else what,
                target.redact("; ".join(causes))[:1000],
                "Mend the remote (FORECASTLE_DVC_REMOTE, FORECASTLE_DVC_USER and _SECRET) and try again.",
            ) from None


class _Gather(logging.Handler):
    """Keep the error lines of a logger, each with the last line of its exception."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        text = record.getMessage().strip()
        self._said.append(" ".join(part for part in (text, str(cause or "").strip()) if part))


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Hear what DVC's rooms log, and let none of it out: hints, bars and errors go to no terminal."""
    import_module("dvc.repo")  # which sets up its loggers
    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [(one.level, one.propagate, one.handlers) for one in loggers]
    for one in loggers:
        # DVC tells its hints and draws its bars by the level of its own logger.
        one.setLevel(logging.CRITICAL if one.name == "dvc" else logging.ERROR)
        one.propagate, one.handlers = False, [_Gather(said)]
    try:
        yield
    finally:
        for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate, one.handlers = propagate, handlers


@contextmanager
def _opened(root: Path, settings: Settings, target: Remote) -> Iterator[Repo]:
    """Open the workspace, made before if need be, with its remote as the settings say; the login stays in memory."""
    from dvc.repo import Repo

    workspace.prepare(root, settings, target)
    repo = Repo(str(root), config={"remote": {NAME: target.private}})
    try:
        yield repo
    finally:
        repo.close()
