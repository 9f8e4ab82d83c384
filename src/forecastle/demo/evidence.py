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
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIMESTAMP
from forecastle.models.evaluation import scored_rows
from forecastle.settings import Settings

MOMENT = timedelta(microseconds=1)
BUSY = 5
CLOSE = 1e-3  # minutes; features are float32


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


def told_at_departure(rows: pl.DataFrame, flights: pl.DataFrame) -> int:
    """Count the collected rows that say of a recorded flight how late it was, and are known from when it had left.

    A flight that left early counts from its place in the schedule.
    """
    there = rows.join(flights, left_on=[SERIES, TIMESTAMP], right_on=[SERIES, "slot"])
    left = pl.max_horizontal("departed_at", TIMESTAMP)
    return there.filter(pl.col("delay") == pl.col("delay_minutes"), pl.col(AVAILABLE_AT) == left).height


def beyond_departed(rows: pl.DataFrame, flights: pl.DataFrame) -> pl.DataFrame:
    """Return the rows (series_id, origin, issued_at, mean) that know more, or less, than the recording says.

    What may be known is the mean delay of the flights scheduled within the origin's hour that had left when the row was
    issued; nothing where none had.
    """
    hour = pl.col("slot").dt.truncate("1h").alias("origin")
    left = flights.select(SERIES, hour, "delay_minutes", pl.max_horizontal("departed_at", "slot").alias("left"))
    known = (
        rows.select(SERIES, "origin", "issued_at")
        .join(left.drop_nulls(), on=[SERIES, "origin"])
        .filter(pl.col("left") <= pl.col("issued_at"))
        .group_by(SERIES, "origin", "issued_at")
        .agg(pl.col("delay_minutes").mean().alias("right"))
    )
    both = rows.with_columns(pl.col("mean").cast(pl.Float64).fill_nan(None)).join(
        known, on=[SERIES, "origin", "issued_at"], how="left"
    )
    same = (pl.col("mean") - pl.col("right")).abs() < CLOSE
    return both.filter(
        ~pl.when(pl.col("mean").is_null()).then(pl.col("right").is_null()).otherwise(same.fill_null(False))
    )


def seen_by(versions: pl.DataFrame, origins: pl.DataFrame) -> pl.DataFrame:
    """Return origins (series_id, origin, issued_at) with the mean delay of their own hour as known when issued."""
    told = versions.select(SERIES, pl.col(TIMESTAMP).alias("origin"), AVAILABLE_AT, pl.col("mean_delay").alias("mean"))
    known = (
        origins.join(told, on=[SERIES, "origin"])
        .filter(pl.col(AVAILABLE_AT) <= pl.col("issued_at"))
        .sort(AVAILABLE_AT)
        .group_by(SERIES, "origin", "issued_at", maintain_order=True)
        .agg(pl.col("mean").last())
    )
    return origins.join(known, on=[SERIES, "origin", "issued_at"], how="left")


def most_revised(versions: pl.DataFrame, collected_after: datetime) -> pl.DataFrame:
    """Return the versions, of those collected since, of the step whose mean changed most from its first to its last.

    Steps that began with less than BUSY departures are left out: one flight is no mean.
    """
    told = versions.filter(pl.col(COLLECTED_AT) > collected_after).sort(SERIES, TIMESTAMP, AVAILABLE_AT)
    mean = pl.col("mean_delay")
    busy = pl.col("departures").first() >= BUSY
    change = told.group_by(SERIES, TIMESTAMP).agg(
        (mean.last() - mean.first()).abs().alias("change"), busy.alias("busy")
    )
    most = change.filter("busy", pl.col("change") > 0).sort("change", SERIES, TIMESTAMP).tail(1)
    return told.join(most, on=[SERIES, TIMESTAMP], how="semi")


def rmse_of(backtest: pl.DataFrame, method: str) -> float:
    """Return the RMSE of a method's column of back-test rows, on the rows that can be scored."""
    error = pl.col(method) - pl.col("actual")
    return float(scored_rows(backtest).select((error**2).mean().sqrt()).item())


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
