"""The git and DVC workspace that holds the pointers of versioned tables: made, mended and committed to.

Whoever calls this holds the workspace's own lock (see ``versioning``) and is alone in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from forecastle.data.remotes import LOGIN, NAME, Remote
from forecastle.frame import write_bytes, write_text
from forecastle.settings import Settings

TABLE = "training.parquet"
POINTER = f"{TABLE}.dvc"
RECORDS = "versions"
FILES = (".dvcignore", ".dvc/.gitignore", ".dvc/config")


def prepare(root: Path, settings: Settings, remote: Remote) -> None:
    """Make the workspace whole: there, mended after a crash, and configured as the settings say."""
    if not root.exists():
        _make(root, settings.git)
    elif settings.git and not (root / ".git").exists():
        _init_git(root)
    _sweep(root)
    _configure(root, settings.git, remote)
    _mend(root, settings)


def keep_login(root: Path, remote: Remote) -> None:
    """Write the remote's login where plain DVC finds it: into .dvc/config.local, for this user alone; git ignores
    it."""
    login = {name: value for name, value in remote.private.items() if name in LOGIN}
    path = root / ".dvc" / "config.local"
    path.touch(mode=0o600)
    path.chmod(0o600)
    _edit_local(root, login)


def name_git_remote(root: Path, name: str, address: str) -> None:
    """Give git a remote of this name and address, and take the one it had by that name."""
    from dulwich.repo import Repo as Git

    with Git(str(root)) as git:
        config, section = git.get_config(), (b"remote", name.encode())
        config.set(section, b"url", address.encode())
        config.set(section, b"fetch", f"+refs/heads/*:refs/remotes/{name}/*".encode())
        config.write_to_path()


def commit_version(root: Path, settings: Settings, record: Path) -> None:
    """Commit a version's record with its pointer, in a message that names the run that made it."""
    found = json.loads(record.read_bytes())
    task = record.parent.parent.name
    pointer = root / task / POINTER
    if not pointer.exists() or pointer.read_text(encoding="utf-8") != found["pointer"]:
        write_text(pointer, found["pointer"])
    ignored = root / task / ".gitignore"
    if not ignored.exists():  # DVC writes it where there is git, and this version may be from before
        write_text(ignored, f"/{TABLE}\n")
    names = [str(path.relative_to(root)) for path in (pointer, ignored, record)]
    message = f"Version {task} {found['version'][:8]}: {found['rows']} rows of run {found['run']}"
    commit(root, settings, names, message)


def commit(root: Path, settings: Settings, files: Sequence[str], message: str) -> None:
    """Commit these files as they are now, those that are there, and no other; nothing changed makes no commit.

    What else is staged, by a process that was killed before it committed it, is taken back from the index: its own
    commit stages it again.
    """
    from dulwich import porcelain

    with porcelain.open_repo_closing(str(root)) as git:
        porcelain.add(git, [str(root / name) for name in files if (root / name).exists()])
        staged = {
            path.decode() for kind in porcelain.status(git, untracked_files="no").staged.values() for path in kind
        }
        git.get_worktree().unstage(sorted(staged.difference(files)))
        if staged.isdisjoint(files):
            return
        author = f"{settings.git_name} <{settings.git_email}>".encode()
        porcelain.commit(git, message.encode(), author=author, committer=author, no_verify=True, sign=False)


def last_commit(root: Path, name: str) -> str:
    """Return the newest commit that changed a file of the workspace; empty where there is none, or no git."""
    from dulwich.repo import Repo as Git

    if not (root / ".git").exists():
        return ""
    with Git(str(root)) as git:
        try:
            entries = list(git.get_walker(paths=[name.encode()], max_entries=1))
        except KeyError:  # no commit at all
            return ""
    return str(entries[0].commit.id.decode()) if entries else ""


def _make(root: Path, git: bool) -> None:
    """Make an empty workspace, whole or not at all: under another name first, then renamed."""
    from dvc.repo import Repo

    unfinished = root.with_name(f".{root.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if git:
        _init_git(unfinished)
    Repo.init(str(unfinished), no_scm=not git).close()
    unfinished.rename(root)


def _init_git(root: Path) -> None:
    from dulwich.repo import Repo as Git

    Git.init(str(root), default_branch=b"main").close()


def _mend(root: Path, settings: Settings) -> None:
    """Finish or clear what a process killed in the middle leaves: locks, pointers, records that were not committed.

    The workspace is held by its own lock, so a lock inside is a dead process's. A record is written after its data was
    pushed, so it holds good: a pointer that no record knows gives way to the last that is known, and with git a record
    without a commit gets the one it would have had.
    """
    for left in (*(root / ".git").rglob("*.lock"), *root.glob(".dvc/tmp/rwlock*")):
        left.unlink(missing_ok=True)
    for pointer in root.glob("*/*.dvc"):
        known = _recorded(pointer)
        if pointer.read_bytes() not in known:
            _restore(pointer, known[-1] if known else _committed(root, pointer))
    if settings.git:
        commit(root, settings, FILES, "Configure the store of versioned tables")
        for record in _by_age(root.glob(f"*/{RECORDS}/*.json")):
            if _committed(root, record) is None:
                commit_version(root, settings, record)


def _recorded(pointer: Path) -> list[bytes]:
    """Return the pointers that the task's records hold, the newest last."""
    records = _by_age((pointer.parent / RECORDS).glob("*.json"))
    return [json.loads(record.read_bytes())["pointer"].encode() for record in records]


def _by_age(records: Iterable[Path]) -> list[Path]:
    return sorted(records, key=lambda path: (str(json.loads(path.read_bytes())["as_of"]), path))


def _committed(root: Path, path: Path) -> bytes | None:
    """Return a file as it was committed last, or None where it is in no commit, or there is no git."""
    from dulwich.object_store import tree_lookup_path
    from dulwich.repo import Repo as Git

    if not (root / ".git").exists():
        return None
    with Git(str(root)) as git:
        try:
            head = git[git.head()]
            _, blob = tree_lookup_path(
                git.__getitem__, head.tree, path.relative_to(root).as_posix().encode()  # type: ignore[attr-defined]
            )
        except KeyError:
            return None
        return git[blob].as_raw_string()


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != content:
        write_bytes(path, content)


def _sweep(root: Path) -> None:
    """Remove what a process that was killed while it wrote a file has left beside it; nobody else is at work here."""
    for pattern in (".*.part", "*/.*.part", "*/*/.*.part"):
        for torn in root.glob(pattern):
            torn.unlink(missing_ok=True)


def _configure(root: Path, git: bool, remote: Remote) -> None:
    """Write DVC's configuration; it holds nothing that may not be read by anyone."""
    core = ["analytics = False", f"remote = {NAME}", *([] if git else ["no_scm = True"])]
    options = [f"{name} = {value}" for name, value in remote.public.items()]
    lines = ["[core]", *(f"    {one}" for one in core), f"['remote \"{NAME}\"']", *(f"    {one}" for one in options)]
    content = ("\n".join(lines) + "\n").encode()
    path = root / ".dvc" / "config"
    if not path.exists() or path.read_bytes() != content:
        if path.exists() and (root / ".dvc" / "config.local").exists():
            _edit_local(root, {})  # the login was for another place
        write_bytes(path, content)


def _edit_local(root: Path, login: Mapping[str, str]) -> None:
    """Let the local configuration hold this login at the remote, and none where it is empty; the rest stays."""
    from dvc.config import Config

    with Config(str(root / ".dvc"), validate=False).edit("local", validate=False) as local:
        kept = {name: value for name, value in local["remote"].get(NAME, {}).items() if name not in LOGIN}
        local["remote"][NAME] = {**kept, **login}
