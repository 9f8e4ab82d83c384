"""Putting a backup back: into an empty home, or over one that is moved aside.

Every file is verified against the manifest while it is copied into the home folder under another name; only a copy that
is whole is put into place. While that lasts a note tells every command that the stores are not whole, so a restore that
was cut short is neither used nor taken for empty; it is done again with ``--force``.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forecastle.data import formats
from forecastle.data.store import Store
from forecastle.errors import StorageUnavailable, UserError, plainly
from forecastle.frame import write_json, write_text
from forecastle.operations import buckets
from forecastle.operations.backup import ARCHIVES, FORMAT, MANIFEST, Progress, Tell, digest_of, is_file, moving
from forecastle.operations.places import HOME, REGISTRY, STORES, Places, places
from forecastle.settings import Settings

STAGE = ".restoring"
ASIDE = ".before-restore-"
URIS = (  # where MLflow's database keeps addresses of files
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


@dataclass(frozen=True)
class Restored:
    """What was restored: how many files and bytes, when the backup was made, where what was there before lies now, and
    what the backup does not hold."""

    files: int
    bytes: int
    made_at: datetime
    aside: Path | None
    elsewhere: dict[str, str]


def restore(
    settings: Settings,
    source: Path,
    now: datetime,
    force: bool = False,
    tell: Tell = lambda store, files: None,
    progress: Progress = lambda what, done, of: None,
) -> Restored:
    """Put a backup into the places the settings name. Stop whatever runs on them first.

    With ``force`` what is there is moved aside, never deleted. Raises UserError for what is no whole backup and for
    places that are not empty, FormatError for a newer one, StorageUnavailable where a disk refuses.
    """
    where = places(settings)
    local = where.local
    with _opened(source, progress) as folder:
        manifest = _manifest(folder, source)
        bucket = where.bucket if STORES in manifest["places"] else None
        _require_stores(manifest, where)
        _require_free(local, bucket, force)
        try:
            home = local[HOME]
            home.mkdir(parents=True, exist_ok=True)
            _stage(folder, manifest, home, tell, progress)
            write_json(home / formats.RESTORING, {"from": source.absolute(), "at": now})
            aside = _move_aside(local, bucket, home, f"{ASIDE}{now:%Y%m%dT%H%M%SZ}") if force else None
            _put_in_place(home, local, bucket)
            if (local.get(REGISTRY) or home / "none").exists():
                rewrite_uris(local[REGISTRY], Path(manifest["places"][HOME]), home)
            rewrite_remote(home / "versions" / ".dvc" / "config", Path(manifest["places"][HOME]), home)
            (home / formats.RESTORING).unlink()
        except (OSError, sqlite3.Error) as error:
            raise StorageUnavailable(
                f"to restore to {local[HOME]}", plainly(error), "Mend the disk, then restore again with --force."
            ) from error
    files = manifest["files"].values()
    made_at = datetime.fromisoformat(manifest["made_at"])
    return Restored(len(files), sum(one["bytes"] for one in files), made_at, aside, manifest["elsewhere"])


_AS_DATA: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Debian 12's Python has none


@contextmanager
def _opened(source: Path, progress: Progress) -> Iterator[Path]:
    """Give the folder of a backup, unpacked where it is one file."""
    if not source.exists():
        raise UserError(f"a backup at {source}", "nothing", "Name one that forecastle backup has made.")
    if not is_file(source):
        if not source.is_dir():
            kinds = ", ".join(ARCHIVES)
            raise UserError(f"a folder, or a file of {kinds}, at {source}", "another file", "Name a backup.")
        yield source
        return
    with TemporaryDirectory(dir=source.parent, prefix=".unpacking-") as unpacked:
        try:
            size = source.stat().st_size
            with source.open("rb") as raw, tarfile.open(fileobj=raw) as archive:
                for entry in archive:
                    progress("Unpacking…", raw.tell(), size)
                    _require_inside(entry)
                    archive.extract(entry, unpacked, **_AS_DATA)
        except (tarfile.TarError, EOFError, OSError) as error:
            found = plainly(error) if isinstance(error, OSError) and error.strerror else "no tar file, or a torn one"
            raise UserError(f"a whole backup in {source}", found, "Take another backup.") from error
        yield Path(unpacked)


def _require_inside(entry: tarfile.TarInfo) -> None:
    """Raise TarError for what no backup holds: anything but a file or a folder, or one that lies outside."""
    names = [entry.name, *([entry.linkname] if entry.islnk() else [])]
    if not (entry.isfile() or entry.isdir() or entry.islnk()):
        raise tarfile.TarError(entry.name)
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
        raise tarfile.TarError(entry.name)


def _manifest(folder: Path, source: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        formats.require(int(found["format"]), FORMAT, f"the backup {source}", found)
        formats.require(int(found["formats"]["home"] or 0), formats.FORMAT, f"the stores in the backup {source}", found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"a whole backup in {source}",
            f"no manifest that can be read ({MANIFEST}: {plainly(error)})",
            "Take another backup.",
        ) from error
    strange = [name for name in found["files"] if Path(name).is_absolute() or ".." in Path(name).parts]
    if strange:
        raise UserError(f"a backup of forecastle in {source}", f"the file {strange[0]}", "Take another backup.")
    return found


def _require_stores(manifest: dict[str, Any], where: Places) -> None:
    """Raise UserError where the settings want history and archive in the home folder and the backup has them apart, or
    the other way round; leave the place alone where an older backup does not hold them."""
    apart, local = STORES in manifest["places"], where.local
    if STORES in manifest["elsewhere"]:
        local.pop(STORES, None)
    elif apart != (STORES in where.known):
        raise UserError(
            f"FORECASTLE_STORES to be {'a folder or bucket' if apart else 'empty'}, as when the backup was made",
            where.known.get(STORES, "none"),
            "Restore with it set so; history and archive can be copied to another place after that.",
        )
    elif STORES in local and local[HOME].is_relative_to(local[STORES]):
        raise UserError(
            "the home folder outside that of FORECASTLE_STORES", f"{local[HOME]}", "Restore with two folders."
        )


def _require_free(local: dict[str, Path], bucket: Store | None, force: bool) -> None:
    if force:
        return
    action = "Stop what runs on it; --force moves what is there aside and restores."
    for path in local.values():
        if _holds_something(path):
            raise UserError(f"nothing at {path} yet", "stores" if path.is_dir() else "a file", action)
    if bucket is not None and (there := buckets.names(bucket)):
        raise UserError(f"nothing at {bucket.uri} yet", f"{there[0]} and {len(there) - 1} more", action)


def _holds_something(path: Path) -> bool:
    if not path.is_dir():
        return path.exists()
    if (path / formats.RESTORING).exists():
        return True
    return any(one.name != STAGE and not one.name.startswith(ASIDE) for one in path.iterdir())


def _stage(folder: Path, manifest: dict[str, Any], home: Path, tell: Tell, progress: Progress) -> None:
    """Copy every file of the manifest beside the stores, and verify it."""
    stage = home / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    counts: dict[str, int] = {}
    moved = moving("Verifying and copying…", sum(one["bytes"] for one in manifest["files"].values()), progress)
    for name, promised in manifest["files"].items():
        try:
            found = digest_of(folder / name, stage / name, moved)
        except FileNotFoundError:
            found = {}
        if found != promised:
            shutil.rmtree(stage, ignore_errors=True)
            raise UserError(
                "every file of the backup as it was copied", f"{name} is missing or differs", "Take another backup."
            )
        store = "/".join(Path(name).parts[:3][:-1]) or name
        counts[store] = counts.get(store, 0) + 1
    for store, count in counts.items():
        tell(store, count)


def _move_aside(local: dict[str, Path], bucket: Store | None, home: Path, name: str) -> Path | None:
    """Move what is in the stores' places into a folder of the home folder; in a bucket below a name of its own."""
    aside = home / name
    outside = {key: path for key, path in local.items() if not path.is_relative_to(home) and path.exists()}
    inside = [
        one for one in home.iterdir() if one.name not in (STAGE, formats.RESTORING) and not one.name.startswith(ASIDE)
    ]
    for one in inside:
        aside.mkdir(exist_ok=True)
        one.rename(aside / one.name)
    for key, path in outside.items():
        if _holds_something(path):
            path.rename(path.with_name(f"{path.name}{name}"))
    if bucket is not None:
        buckets.move_aside(bucket, name)
    return aside if inside else None


def _put_in_place(home: Path, local: dict[str, Path], bucket: Store | None) -> None:
    """Move the staged stores to where they belong; databases lose what a former one left beside them."""
    stage = home / STAGE
    for staged in sorted((stage / HOME).iterdir()) if (stage / HOME).is_dir() else ():
        staged.rename(home / staged.name)
    for name, path in local.items():
        staged = stage / name
        if name == HOME or not staged.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in (f"{path}-wal", f"{path}-shm", f"{path}-journal"):
            Path(left).unlink(missing_ok=True)
        if staged.is_dir():
            path.mkdir(exist_ok=True)  # it may be a mounted disk, which cannot be taken away
            for one in sorted(staged.iterdir()):
                shutil.move(one, path / one.name)
        else:
            shutil.move(staged, path)
    if bucket is not None and (stage / STORES).is_dir():
        buckets.put_in(bucket, stage / STORES)
    shutil.rmtree(stage)


def rewrite_remote(config: Path, before: Path, now: Path) -> None:
    """Let DVC look for its data where it is now, if its remote is a folder of the home."""
    if config.exists() and before != now:
        text = config.read_text(encoding="utf-8")
        write_text(config, text.replace(f"url = {before}/", f"url = {now}/"))


def rewrite_uris(database: Path, before: Path, now: Path) -> None:
    """Let MLflow's database name the files where they are now, where the home folder has another path."""
    old, new = before.as_uri(), now.as_uri()
    if old == new:
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in URIS:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{new}/", len(old) + 2, len(old) + 1, f"{old}/"),
                )
