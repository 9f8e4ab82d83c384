"""Fetch what a task's source has, archive every answer before it is parsed, and make one batch of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from forecastle.data import formats
from forecastle.data.ahead import ISSUED_AT, make_issued
from forecastle.data.archive import Archive
from forecastle.data.budget import open_ledger
from forecastle.data.decoded import decode, keep
from forecastle.data.ledger import LastAnswer
from forecastle.data.providers import PROVIDERS, Provider, file
from forecastle.errors import AnswerChanged, NothingThere, SourceUnavailable, StorageUnavailable, UserError
from forecastle.frame import (
    AVAILABLE_AT,
    COLLECTED_AT,
    KEYS,
    TIME,
    TIMESTAMP,
    as_arrived,
    empty_observations,
    instant,
    iso,
    read_note,
    write_json,
    write_table,
)
from forecastle.http import REPLAY_NOW, Answer, Client, Request, excerpt
from forecastle.settings import Settings
from forecastle.task import Task

__all__ = ["Archive", "Batch", "fetch", "load_batch", "make_batch", "save_batch"]

MOST_PAGES = 1_000
"""Pages of one window that are asked for; a source with more is asked for shorter windows."""

ASKING = timedelta(minutes=1)
"""How long after ``now`` an answer may be made: the time of asking, and clocks that differ."""

BATCH_TABLE = "batch.parquet"
BATCH_NOTE = "batch.json"
ISSUED_TABLE = "issued.parquet"
FORMAT = 1
SAME_MOMENT = timedelta(minutes=10)
"""How far ``now`` may be from the clock when a live source is asked: a pass takes a while, and is tried again."""

NOT_MODIFIED = 304
Clock = Callable[[], datetime]
_BANNED = frozenset({418})  # Binance's answer to who does not stop at 429; it heals by waiting


@dataclass(frozen=True)
class Batch:
    """What one collection brought: an observation table, in the order in which it arrived, and how it came.

    Rows lie from ``start`` to ``end``, both included; one that came twice is there twice, for the gate to judge.
    ``duplicates`` counts identical repeated rows, ``after_collection`` dropped ones whose value could not be known yet
    (a forecast in the answer); of the columns that the task knows ahead these are ``issued`` (see ``data.ahead``).
    ``archived`` names the answers it came in, ``recalled`` those of earlier collections that
    its rows were read back from.
    """

    rows: pl.DataFrame
    start: datetime
    end: datetime
    collected_at: datetime
    live: bool
    archived: tuple[str, ...] = ()
    duplicates: int = 0
    after_collection: int = 0
    recalled: tuple[str, ...] = ()
    issued: pl.DataFrame = field(default_factory=lambda: empty_observations(()), compare=False)


def fetch(
    task: Task,
    settings: Settings,
    client: Client,
    archive: Archive,
    start: datetime,
    end: datetime,
    now: datetime,
    live: bool,
    clock: Clock | None = None,
) -> Batch:
    """Collect the task's observations from start to end (UTC, both included) as they are at ``now``.

    Each answer is archived before it is parsed, refused ones too. ``live`` says that ``now`` is when the values
    became known; without it (a backfill, a file) they count as known when they were published. What only the present
    was asked for is never known before ``now``. ``clock`` tells the real time where the source is somebody else's: then
    an address that gives validators is asked for news alone, and ``now`` has to be the present, or the answer that of a
    replay; without it all that is simulated is believed.
    Raises SourceUnavailable for no answer or an empty one, AnswerChanged for one that is not what was agreed, UserError
    for another moment than the source's.
    """
    task = task.measured
    provider = PROVIDERS[task.source.provider]
    source = _Source(task, settings, client, archive, now, clock)
    tables: list[pl.DataFrame] = []
    archived: list[str] = []
    for request in provider.requests(task, settings, start, end, now):
        if not provider.wanted(task, request, archive, now):
            continue
        for page in _pages(provider, task, request, source):
            archived.append(page.name)
            with client.judging(page.request, page.answer):
                _check_status(page.answer)
                tables.append(provider.parse(task, page.request, page.answer.body))
            source.remember(page)
    parsed = [*provider.join(task, tables), *provider.recall(task, archive, start, now)]
    recalled = [name for name in provider.recalled(task, archive, start, now) if name not in archived]
    present = provider.gives_present_only(task)
    if present:
        parsed = [_as_asked(one, now) for one in parsed]
        start = min((at for one in parsed for at in one[TIMESTAMP]), default=start)
    return replace(make_batch(task, parsed, start, end, now, live or present, archived), recalled=tuple(recalled))


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

    A table with issued_at holds forecasts of what the task knows ahead. One may say in available_at since when its
    source has known a row; that is believed of what was not seen live, but never from before the row's own time. Values
    not knowable at ``now`` are dropped and counted, rows outside start to end are dropped. Where all there is was asked
    for (the task names no start), the window begins with the first row. Raises NothingThere where nothing is left.
    """
    task = task.measured
    columns = tuple(task.columns)
    told_ahead = [one for one in parsed if ISSUED_AT in one.columns]
    parsed = [one for one in parsed if ISSUED_AT not in one.columns]
    answered = pl.concat(parsed) if parsed else empty_observations(columns)
    told_by_source = AVAILABLE_AT in answered.columns
    told = pl.col(AVAILABLE_AT) if told_by_source else pl.lit(None, dtype=TIME)
    published = pl.col(TIMESTAMP) + task.knowable_after + task.source.publication_delay
    known_from = pl.max_horizontal(pl.coalesce(told, published), pl.col(TIMESTAMP) + task.knowable_after)
    answered = answered.with_columns(known_from.alias(AVAILABLE_AT))
    is_knowable = pl.col(TIMESTAMP) <= instant(now - task.knowable_after)
    knowable, later = answered.filter(is_knowable), answered.filter(~is_knowable)
    rows = knowable.filter(pl.col(TIMESTAMP).is_between(instant(start), instant(end)))
    duplicates = rows.height - rows.select(*KEYS, *columns).n_unique()
    if told_by_source:  # the same said twice, known from two times on: the earlier counts
        said = [*KEYS, *columns]
        first = pl.col(AVAILABLE_AT) == pl.col(AVAILABLE_AT).min().over(said)
        rows = rows.filter(first).unique(said, keep="first", maintain_order=True)
    if rows.is_empty():
        last = answered.select(pl.col(TIMESTAMP).max()).item()
        raise NothingThere(
            f"observations of task {task.name!r} from {iso(start)} to {iso(end)}, known at {iso(now)}",
            f"none; the newest row answered is of {iso(last)}" if last else "none",
            "Check the window and the source; what it answered is in the archive.",
        )
    if task.source.start is None and start <= task.start:
        start = rows.select(pl.col(TIMESTAMP).min()).item()
    collected = instant(now)
    known = collected if live else pl.min_horizontal(AVAILABLE_AT, collected)
    rows = rows.with_columns(known.alias(AVAILABLE_AT), collected.alias(COLLECTED_AT))
    return Batch(
        rows=as_arrived(rows, columns),
        start=start,
        end=end,
        collected_at=now,
        live=live,
        archived=tuple(archived),
        duplicates=duplicates,
        after_collection=later.height,
        issued=make_issued(task, told_ahead, later, now) if task.ahead else empty_observations(()),
    )


def save_batch(folder: Path, batch: Batch, flushed: bool = True) -> Path:
    """Write a batch as ``batch.parquet`` and ``batch.json`` (see ``frame.write_bytes``) and return the folder.

    The note is written last and names the table's digest: without both, whole and of each other, there is no batch.
    """
    content = write_table(folder / BATCH_TABLE, batch.rows, flushed).read_bytes()
    digests = {"sha256": _digest(content), "issued": ""}
    keep(content, batch.rows)
    if batch.issued.height:
        digests["issued"] = _digest(write_table(folder / ISSUED_TABLE, batch.issued, flushed).read_bytes())
    note = {name: getattr(batch, name) for name in Batch.__dataclass_fields__ if name not in ("rows", "issued")}
    write_json(folder / BATCH_NOTE, {"format": FORMAT, **note, "rows": batch.rows.height, **digests}, flushed)
    return folder


def load_batch(folder: Path) -> Batch:
    """Return the batch ``save_batch`` wrote. Raises UserError where there is none, or only part of one."""
    note = read_note(folder / BATCH_NOTE) or {}
    asked = (folder / BATCH_TABLE, folder / ISSUED_TABLE)
    table, issued = (place.read_bytes() if place.exists() else b"" for place in asked)
    said = note.get("issued", "")  # empty where the answers held no forecasts
    formats.require(int(note.get("format", 1)), FORMAT, f"the batch in {folder}")
    if note.get("sha256") != _digest(table) or (said and said != _digest(issued)):
        raise UserError(f"a whole batch in {folder}", "none", "Run the ingest step of this run first.")
    return Batch(
        rows=decode(table),
        **{name: datetime.fromisoformat(note[name]) for name in ("start", "end", "collected_at")},
        live=note["live"],
        archived=tuple(note["archived"]),
        duplicates=note["duplicates"],
        after_collection=note["after_collection"],
        recalled=tuple(note.get("recalled", ())),
        issued=decode(issued) if said else empty_observations(()),
    )


@dataclass(frozen=True)
class _Page:
    request: Request
    answer: Answer
    name: str


@dataclass
class _Source:
    """A source as one collection asks it: each answer is in the archive when it is handed out."""

    task: Task
    settings: Settings
    client: Client
    archive: Archive
    now: datetime
    clock: Clock | None
    last: LastAnswer | None = None
    heard: bool = False

    def ask(self, request: Request) -> _Page:
        if request.url.startswith(file.SCHEME):
            answer = file.read(request)
        elif self.clock is None:
            answer = self.client.get(request, self._keep)
        else:
            answer = self._ask_for_news(request)
            self._check_moment(answer, self.clock())
        return _Page(request, answer, self.archive.save(answer, self.now))

    def remember(self, page: _Page) -> None:
        """Keep by what an answer that was good can be asked for again, if the source said."""
        etag, modified = (page.answer.headers.get(name, "") for name in ("etag", "last-modified"))
        if page.answer.status == NOT_MODIFIED and self.last is not None:
            etag, modified = etag or self.last.etag, modified or self.last.modified
        if self.clock is not None and (etag or modified):
            last = LastAnswer(etag, modified, page.name)
            open_ledger(self.settings).remember(self.task.name, page.request.address, last, self.clock())

    def _ask_for_news(self, request: Request) -> Answer:
        """Return the source's answer, or the archived one where the source says that there is no other since."""
        self.last = open_ledger(self.settings).last_answer(self.task.name, request.address)
        if self.last is None:
            return self.client.get(request, self._keep)
        try:
            body = self.archive.read(self.last.archived)
        except StorageUnavailable:  # pruned, or lost: then it has to be sent again
            self.last = None
            return self.client.get(request, self._keep)
        answer = self.client.get(replace(request, headers=self.last.conditions), self._keep)
        return replace(answer, body=body) if answer.status == NOT_MODIFIED else answer

    def _keep(self, refused: Answer) -> None:
        self.archive.save(refused, self.now)

    def _check_moment(self, answer: Answer, wall: datetime) -> None:
        """Refuse to pass off what a live source says now as what it said at another time."""
        if self.heard or REPLAY_NOW in answer.headers or abs(wall - self.now) <= SAME_MOMENT:
            self.heard = True
            return
        self.archive.save(answer, wall)
        raise UserError(
            f"to collect from {answer.url.partition('?')[0]} as of the present, {iso(wall.replace(microsecond=0))}",
            f"--now {iso(self.now)}: a live source says what it knows now",
            "Leave --now out; fetch the past with forecastle backfill, or act in it against forecastle replay.",
        )


def _pages(provider: Provider, task: Task, request: Request, source: _Source) -> Iterator[_Page]:
    """Yield a request's answer and the pages that follow it; the caller has checked one before it asks for the next."""
    for _ in range(MOST_PAGES):
        page = source.ask(request)
        yield page
        following = provider.following(task, request, page.answer.body)
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
    if not 200 <= answer.status < 300 and not (answer.status == NOT_MODIFIED and answer.body):
        raise AnswerChanged(
            f"a good answer from {answer.url}",
            f"HTTP {answer.status}: {excerpt(answer.body)}",
            "Mend what the answer complains of: a column, a place, a date or a key.",
        )
