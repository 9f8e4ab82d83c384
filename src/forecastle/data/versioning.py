"""Versions of the training table: a git and DVC workspace of forecastle's own, its data in a remote store.

A version is the table's DVC digest. The pointer ``<task>/training.parquet.dvc`` is committed to git only after the data
has been pushed, so no commit ever names data that the remote does not have; plain ``dvc pull`` in a clone of the
workspace gives the same bytes. DVC is called in process and commits are written by dulwich, which DVC stands on: no git
program, no home folder and no git configuration is needed, and none is read for who the author is.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import polars as pl
from filelock import FileLock, Timeout

from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.frame import write_bytes
from forecastle.settings import Settings
from forecastle.task import Task

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK_SECONDS = 120.0
TABLE = "training.parquet"
REMOTE = "store"
WEB = ("http", "https", "webdav", "webdavs")
WORKSPACE_FILES = (".dvcignore", ".dvc/.gitignore", ".dvc/config")


@dataclass(frozen=True)
class Snapshot:
    """A versioned table: its DVC digest, its path in the workspace, the commit of its pointer, and its rows."""

    version: str
    path: Path
    commit: str
    rows: int


def version_table(settings: Settings, task: Task, table: Path, run_id: str) -> Snapshot:
    """Push a Parquet table to the DVC remote and commit its pointer, in a message that names the run.

    The same bytes again give the same Snapshot and no new commit. A crash anywhere is healed by calling it again.
    Raises StorageUnavailable when the table cannot be read, the remote does not take it, or another process holds the
    workspace for two minutes; SettingsError when the remote's address holds a secret, which would be committed.
    """
    workspace = settings.versions
    pointer = f"{task.name}/{TABLE}.dvc"
    with _locked(workspace), _outside_faults(_redacted(settings.remote)):
        rows = int(pl.scan_parquet(table).select(pl.len()).collect().item())
        with _opened(workspace, settings) as repo:
            path = write_bytes(workspace / task.name / TABLE, table.read_bytes())
            stage = repo.add(str(path), force=True)[0]
            version = str(stage.outs[0].hash_info.value)
            repo.push(targets=[str(path)], remote=REMOTE)
        message = f"Version {task.name} {version[:8]}: {rows} rows of run {run_id}"
        _commit(workspace, settings, (pointer, f"{task.name}/.gitignore"), message)
        return Snapshot(version, path, _last_commit(workspace, pointer), rows)


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    """Hold the workspace for this process; DVC's own lock gives up after three seconds."""
    workspace.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{workspace}.lock", timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageUnavailable(
            f"the workspace {workspace} to be free", "another process in it", "Try again."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _outside_faults(remote: str) -> Iterator[None]:
    from dvc.exceptions import DvcException

    try:
        yield
    except (DvcException, OSError, pl.exceptions.PolarsError) as error:
        text = str(error).strip() or type(error).__name__
        raise StorageUnavailable(
            f"the training table to be pushed to {remote}",
            text,
            "Mend the remote (FORECASTLE_DVC_REMOTE) and try again.",
        ) from error


@contextmanager
def _opened(workspace: Path, settings: Settings) -> Iterator[Repo]:
    """Open the workspace, made before if need be, with its remote as the settings say."""
    from dvc.repo import Repo

    # DVC tells its hints and draws its bars by the level of its own logger.
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    address = _address(settings.remote)
    if not workspace.exists():
        _make(workspace)
    _mend(workspace)
    _configure(workspace, address)
    repo = Repo(str(workspace))
    try:
        _commit(workspace, settings, WORKSPACE_FILES, "Configure the store of versioned tables")
        yield repo
    finally:
        repo.close()


def _make(workspace: Path) -> None:
    """Make an empty workspace, whole or not at all: under another name first, then renamed."""
    from dulwich.repo import Repo as Git
    from dvc.repo import Repo

    unfinished = workspace.with_name(f".{workspace.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    Git.init(str(unfinished), default_branch=b"main").close()
    Repo.init(str(unfinished)).close()
    unfinished.rename(workspace)


def _mend(workspace: Path) -> None:
    """Clear what a process killed in the middle leaves: locks of git and DVC, and pointers that were not committed.

    Whoever holds the workspace's own lock is alone in it, so a lock inside is a dead process's.
    """
    from dulwich.object_store import tree_lookup_path
    from dulwich.repo import Repo as Git

    for left in (*(workspace / ".git").rglob("*.lock"), *workspace.glob(".dvc/tmp/rwlock*")):
        left.unlink(missing_ok=True)
    with Git(str(workspace)) as git:
        for pointer in workspace.glob("*/*.dvc"):
            name = pointer.relative_to(workspace).as_posix().encode()
            try:
                _, blob = tree_lookup_path(git.__getitem__, git[git.head()].tree, name)  # type: ignore[attr-defined]
            except KeyError:
                pointer.unlink()
            else:
                write_bytes(pointer, git[blob].as_raw_string())


def _configure(workspace: Path, address: str) -> None:
    config = f"[core]\n    analytics = False\n    remote = {REMOTE}\n['remote \"{REMOTE}\"']\n    url = {address}\n"
    path = workspace / ".dvc" / "config"
    if not path.exists() or path.read_text(encoding="utf-8") != config:
        write_bytes(path, config.encode())


def _address(remote: str) -> str:
    if "://" not in remote:
        return str(Path(remote).resolve())
    held = _secrets(remote)
    if held:
        raise SettingsError(
            "FORECASTLE_DVC_REMOTE without a name, password, key or token in it, since it is committed",
            f"{_redacted(remote)}, with {held}",
            "Put the secret where DVC looks for it: .dvc/config.local in the workspace, or the environment.",
        )
    return remote


def _secrets(remote: str) -> str:
    """Say what an address holds that is, or may be, a secret. A name alone is none but where it may be a token."""
    try:
        parts = urlsplit(remote)
    except ValueError:
        return "a host that cannot be"
    web = parts.scheme in WEB
    held = {"a password": parts.password is not None, "a name": web and "@" in parts.netloc}
    held["a query"] = web and "?" in remote
    return " and ".join(what for what, there in held.items() if there)


def _redacted(remote: str) -> str:
    """Return an address as it may be shown: without what stands before the host, a query and a fragment."""
    scheme, mark, rest = remote.partition("://")
    if not mark:
        return remote
    host, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _commit(workspace: Path, settings: Settings, files: tuple[str, ...], message: str) -> None:
    """Commit these files as they are now; nothing changed makes no commit."""
    from dulwich import porcelain

    with porcelain.open_repo_closing(str(workspace)) as git:
        porcelain.add(git, [str(workspace / name) for name in files])
        if not any(porcelain.status(git, untracked_files="no").staged.values()):
            return
        author = f"{settings.git_name} <{settings.git_email}>".encode()
        porcelain.commit(git, message.encode(), author=author, committer=author, no_verify=True, sign=False)


def _last_commit(workspace: Path, pointer: str) -> str:
    from dulwich.repo import Repo as Git

    with Git(str(workspace)) as git:
        entries = list(git.get_walker(paths=[pointer.encode()], max_entries=1))
    return str(entries[0].commit.id.decode())
