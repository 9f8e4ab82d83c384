"""What the demo's claims rest on: each function looks at what lies in the stores, whatever the steps said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.store import Place
from forecastle.errors import StorageUnavailable
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.settings import Settings

MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Masked:
    """A value that the gate's report says was masked, and whether the history holds null in its place."""

    value: float
    is_null: bool


def archived_whole(archive: Place, names: Iterable[str], collected_at: datetime) -> int:
    """Count the archived answers whose body is what was received, by digest and length, and that name their time."""
    return sum(_is_whole(Archive(archive), name, collected_at) for name in names)


def masked_value(report: Path, history: History, series_id: str, column: str, at: datetime) -> Masked | None:
    """Return the value that the gate's report (quality.json) lists as out of range; None where it does not."""
    findings = json.loads(report.read_bytes())["findings"]
    rows = (row for one in findings if one["check"] == "range" and one["verdict"] == "mask" for row in one["rows"])
    for row in rows:
        if (row[SERIES], row["column"], datetime.fromisoformat(row[TIMESTAMP])) == (series_id, column, at):
            there = history.read(start=at, end=at + MOMENT).filter(pl.col(SERIES) == series_id)
            return Masked(float(row["value"]), there[column].to_list() == [None])
    return None


def grid_rows(history: History) -> int:
    """Return how many rows a training table of hourly observations has: every series at every hour of the span."""
    span = history.read().select(
        series=pl.col(SERIES).n_unique(),
        hours=(pl.col(TIMESTAMP).max() - pl.col(TIMESTAMP).min()).dt.total_hours() + 1,
    )
    return int(span["series"].item() * span["hours"].item())


def is_versioned(settings: Settings, table: Path, pointer: str, found: Mapping[str, Any]) -> bool:
    """Tell whether the DVC remote's folder holds the table's bytes, and the named commit a pointer to them."""
    digest = hashlib.md5(table.read_bytes(), usedforsecurity=False).hexdigest()
    stored = Path(settings.remote) / "files" / "md5" / digest[:2] / digest[2:]
    return (
        found["version"] == digest
        and stored.is_file()
        and stored.read_bytes() == table.read_bytes()
        and digest in _committed(settings.versions, str(found["commit"]), pointer)
    )


def _is_whole(archive: Archive, name: str, collected_at: datetime) -> bool:
    note = archive.note(name)
    try:
        length = len(archive.read(name))
    except StorageUnavailable:
        return False
    return length == note["bytes"] and datetime.fromisoformat(note["collected_at"]) == collected_at


def _committed(workspace: Path, commit: str, file: str) -> str:
    """Return a file's text at a commit; empty where there is no such commit or file."""
    from dulwich.object_store import tree_lookup_path
    from dulwich.repo import Repo

    with Repo(str(workspace)) as git:
        try:
            tree = git[commit.encode()].tree  # type: ignore[attr-defined]  # a commit has a tree
            _, blob = tree_lookup_path(git.__getitem__, tree, file.encode())
        except KeyError:
            return ""
        return git[blob].as_raw_string().decode()
