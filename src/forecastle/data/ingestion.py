"""Fetch what a task's source has, archive every answer before it is parsed, and make one batch of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.data.archive import Archive
from forecastle.data.providers import PROVIDERS, Provider, file
from forecastle.errors import AnswerChanged, SourceUnavailable, UserError
from forecastle.frame import (
    AVAILABLE_AT,
    COLLECTED_AT,
    KEYS,
    SERIES,
    TIME,
    TIMESTAMP,
    conform,
    empty_observations,
    iso,
    write_json,
    write_table,
)
from forecastle.http import Answer, Client, Request, excerpt
from forecastle.settings import Settings
from forecastle.task import Task

__all__ = ["Archive", "Batch", "fetch", "load_batch", "make_batch", "save_batch"]

MOST_PAGES = 1_000
"""Pages of one window that are asked for; a source with more is asked for shorter windows."""

ASKING = timedelta(minutes=1)
"""How long after ``now`` an answer may be made: the time of asking, and clocks that differ."""

BATCH_TABLE = "batch.parquet"
BATCH_NOTE = "batch.json"
_BANNED = frozenset({418})  # Binance's answer to who does not stop at 429; it heals by waiting


@dataclass(frozen=True)
class Batch:
    """What one collection brought: an observation table, one row a series and timestamp, and how it came.

    Rows lie from ``start`` to ``end``, both included. ``duplicates`` counts identical repeated rows that were
    dropped, ``after_collection`` rows whose value could not be known yet (a forecast in the answer).
    """

    rows: pl.DataFrame
    start: datetime
    end: datetime
    collected_at: datetime
    live: bool
    archived: tuple[str, ...] = ()
    duplicates: int = 0
    after_collection: int = 0


def fetch(
    task: Task,
    settings: Settings,
    client: Client,
    archive: Archive,
    start: datetime,
    end: datetime,
    now: datetime,
    live: bool,
) -> Batch:
    """Collect the task's observations from start to end (UTC, both included) as they are at ``now``.

    Each answer is archived before it is parsed, refused ones too. ``live`` says that ``now`` is when the values
    became known; without it (a backfill, a file) they count as known when they were published. What only the present
    was asked for is never known before ``now``.
    Raises SourceUnavailable for no answer or an empty one, AnswerChanged for one that is not what was agreed.
    """
    task = task.measured
    provider = PROVIDERS[task.source.provider]
    tables: list[pl.DataFrame] = []
    archived: list[str] = []
    for request in provider.requests(task, settings, start, end, now):
        if not provider.wanted(task, request, archive, now):
            continue
        for page in _pages(provider, task, request, client):
            archived.append(archive.save(page.answer, now))
            _check_status(page.answer)
            tables.append(provider.parse(task, page.request, page.answer.body))
    parsed = [*provider.join(task, tables), *provider.recall(task, archive, start, now)]
    present = provider.gives_present_only(task)
    if present:
        parsed = [_as_asked(one, now) for one in parsed]
        start = min((at for one in parsed for at in one[TIMESTAMP]), default=start)
    return make_batch(task, parsed, start, end, now, live or present, archived)


def make_batch(
    task: Task,
    parsed: Sequence[pl.DataFrame],
    start: datetime,
    end: datetime,
    now: datetime,
    live: bool,
    archived: Sequence[str],
) -> Batch:
    """Make one batch of parsed answers (series_id, timestamp, value columns), collected at ``now``.

    Values not knowable at ``now`` and identical repeated rows are dropped and counted; rows outside start to end are
    dropped. Where all there is was asked for (the task names no start), the window begins with the first row.
    Raises AnswerChanged for two different rows of one series and timestamp, SourceUnavailable where nothing
    is left.
    """
    task = task.measured
    columns = tuple(task.columns)
    answered = pl.concat(parsed) if parsed else empty_observations(columns)
    knowable = answered.filter(pl.col(TIMESTAMP) + task.knowable_after <= now)
    inside = knowable.filter(pl.col(TIMESTAMP).is_between(start, end))
    rows = inside.unique()
    if rows.is_empty():
        last = answered.select(pl.col(TIMESTAMP).max()).item()
        raise SourceUnavailable(
            f"observations of task {task.name!r} from {iso(start)} to {iso(end)}, known at {iso(now)}",
            f"none; the newest row answered is of {iso(last)}" if last else "none",
            "Check the window and the source; what it answered is in the archive.",
        )
    _check_one_value(rows, columns)
    if task.source.start is None and start <= task.start:
        start = rows.select(pl.col(TIMESTAMP).min()).item()
    published = pl.col(TIMESTAMP) + task.knowable_after + task.source.publication_delay
    known_from = pl.lit(now, dtype=TIME) if live else pl.min_horizontal(published, pl.lit(now, dtype=TIME))
    rows = rows.with_columns(known_from.alias(AVAILABLE_AT), pl.lit(now, dtype=TIME).alias(COLLECTED_AT))
    return Batch(
        rows=conform(rows, columns),
        start=start,
        end=end,
        collected_at=now,
        live=live,
        archived=tuple(archived),
        duplicates=inside.height - rows.height,
        after_collection=answered.height - knowable.height,
    )


def save_batch(folder: Path, batch: Batch) -> Path:
    """Write a batch as ``batch.parquet`` and ``batch.json`` and return the folder.

    The note is written last and names the table's digest: without both, whole and of each other, there is no batch.
    """
    table = write_table(folder / BATCH_TABLE, batch.rows)
    note = {name: getattr(batch, name) for name in Batch.__dataclass_fields__ if name != "rows"}
    write_json(folder / BATCH_NOTE, {**note, "rows": batch.rows.height, "sha256": _digest(table.read_bytes())})
    return folder


def load_batch(folder: Path) -> Batch:
    """Return the batch ``save_batch`` wrote. Raises UserError where there is none, or only part of one."""
    try:
        note: dict[str, Any] = json.loads((folder / BATCH_NOTE).read_bytes())
        table = (folder / BATCH_TABLE).read_bytes()
    except FileNotFoundError:
        note, table = {}, b""
    if note.get("sha256") != _digest(table):
        raise UserError(f"a whole batch in {folder}", "none", "Run the ingest step of this run first.")
    return Batch(
        rows=pl.read_parquet(table),
        **{name: datetime.fromisoformat(note[name]) for name in ("start", "end", "collected_at")},
        live=note["live"],
        archived=tuple(note["archived"]),
        duplicates=note["duplicates"],
        after_collection=note["after_collection"],
    )


@dataclass(frozen=True)
class _Page:
    request: Request
    answer: Answer


def _pages(provider: Provider, task: Task, request: Request, client: Client) -> Iterator[_Page]:
    """Yield a request's answer and the pages that follow it; the caller has checked one before it asks for the next."""
    for _ in range(MOST_PAGES):
        answer = file.read(request) if request.url.startswith(file.SCHEME) else client.get(request)
        yield _Page(request, answer)
        following = provider.following(task, request, answer.body)
        if following is None:
            return
        request = following
    raise AnswerChanged(
        f"at most {MOST_PAGES} pages from {request.source}", "more", "Ask for a shorter window, or for larger pages."
    )


def _as_asked(present: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return readings of the present; one stamped while it was asked for, just after ``now``, counts as of ``now``."""
    at = pl.col(TIMESTAMP)
    return present.with_columns(
        pl.when(at.is_between(now, now + ASKING)).then(now).otherwise(at).cast(TIME).alias(TIMESTAMP)
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_status(answer: Answer) -> None:
    if answer.status in _BANNED:
        raise SourceUnavailable(
            f"an answer from {answer.url}", f"HTTP {answer.status}: {excerpt(answer.body)}", "Ask less, and later."
        )
    if not 200 <= answer.status < 300:
        raise AnswerChanged(
            f"a good answer from {answer.url}",
            f"HTTP {answer.status}: {excerpt(answer.body)}",
            "Mend what the answer complains of: a column, a place, a date or a key.",
        )


def _check_one_value(rows: pl.DataFrame, columns: Sequence[str]) -> None:
    """Refuse two different rows of one series and timestamp; ``rows`` are distinct already."""
    twice = rows.filter(pl.struct(KEYS).is_duplicated()).sort(*KEYS, *columns)
    if twice.is_empty():
        return
    first, second = twice.row(0, named=True), twice.row(1, named=True)
    name = next(name for name in columns if first[name] != second[name])
    raise AnswerChanged(
        "one value a series, column and timestamp",
        f"series {first[SERIES]}, column {name}, at {iso(first[TIMESTAMP])}: {first[name]} and {second[name]}",
        "Drop the wrong row at the source; the answer is archived.",
    )
