"""The board: every task's state in memory, read again from the stores only when they changed.

At most every ``poll_every`` seconds one request asks the stores for their *revision* (a few look-ups by index and a
list of file names). Where it changed, that request reads everything anew while others go on with the state before; a
state is replaced whole, so no answer mixes two. What only the page and the scores need (Details) is read when they ask.
Where the stores do not answer, the last state is kept and says so; nobody waits long for one that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import polars as pl
from starlette.concurrency import run_in_threadpool

from forecastle.affinity import one_processor
from forecastle.data import roster
from forecastle.data.derivation import open_history
from forecastle.data.history import History
from forecastle.data.recipe import Recipe
from forecastle.data.store import task_stores
from forecastle.errors import ForecastleError, NotEnoughHistory, OutsideError, StorageUnavailable, TaskError
from forecastle.frame import EPOCH, SERIES, TIMESTAMP
from forecastle.models import audit
from forecastle.models.baked import serving
from forecastle.models.bundle import Bundle, load, self_check
from forecastle.models.pointer import Pointer
from forecastle.models.untrained import of_models
from forecastle.monitoring import drift, freshness, metrics
from forecastle.monitoring.incidents import REFUSED
from forecastle.monitoring.journal import FIGURES, OUTCOME, Journal
from forecastle.monitoring.metrics import Reading
from forecastle.monitoring.outcomes import live_scores
from forecastle.serving.schemas import Model, Scores, SeriesForecasts
from forecastle.serving import standing_in, workbench
from forecastle.serving.snapshot import Details, Snapshot, build
from forecastle.serving.workbench import Workbench
from forecastle.settings import Settings
from forecastle.task import Task, nearest

SCORED = timedelta(days=30)
RELOAD_SECONDS = 60.0
MOST_INCIDENTS = 20
MOST_DECISIONS = 8
MOST_STAND_INS = 20_000
READING_POLLS = 5
PATIENCE = 5.0  # seconds: so long stores may take to say whether anything changed
FIRST_PATIENCE = 30.0  # and so long to say what
Answer = TypeVar("Answer")
DRAWN = (*FIGURES, "timestamp", "issued_at", "forecast_id")  # of an outcome: what scores and the page are made of


class Board:
    """Keep the snapshots of tasks; safe to share between threads."""

    def __init__(self, settings: Settings, tasks: Sequence[Task], poll_every: float = 1.0) -> None:
        self._settings = settings
        self._poll_every = poll_every
        self._journal: Journal | None = None
        self._journal_lock = Lock()
        self._entries = {
            task.name: _Entry(task, open_history(task, task_stores(settings, task.name) / "history", target_only=True))
            for task in tasks
        }

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks in the order they were given."""
        return tuple(entry.task for entry in self._entries.values())

    def task(self, name: str) -> Task:
        """Return a task of this service; TaskError with the nearest name where it has none."""
        return self._entry(name).task

    def is_due(self, name: str, now: datetime) -> bool:
        """Tell whether the stores are to be asked before the next answer."""
        entry = self._entry(name)
        if entry.snapshot is None or entry.checked is None:
            return True
        at, real = entry.checked
        return monotonic() - real >= self._poll_every or abs((now - at).total_seconds()) >= self._poll_every

    async def state(self, name: str, now: datetime, patience: float = FIRST_PATIENCE) -> Snapshot:
        """Return a task's state, after the stores were asked for a newer one if that is due.

        Where they take longer than PATIENCE the state before is returned, and names that fault if they hang; without
        one StorageUnavailable is raised after ``patience`` seconds.
        """
        if self.is_due(name, now):
            entry = self._entry(name)
            silent = entry.hangs
            if not silent and not self._is_refreshing(name):
                asking = begin(self.refresh, name, now)
                await asyncio.wait([asking], timeout=patience if entry.snapshot is None else PATIENCE)
                if asking.done():
                    asking.result()
                else:
                    silent = not entry.reads
            if entry.snapshot is None:
                raise _silent(patience)
            if silent and entry.snapshot.fault is None:
                entry.snapshot = replace(entry.snapshot, fault=_fault(_silent(PATIENCE)))
        return self.snapshot(name)

    def _is_refreshing(self, name: str) -> bool:
        """Tell whether another is asking the stores, and there is a state to go on with meanwhile."""
        entry = self._entry(name)
        return entry.snapshot is not None and entry.lock.locked()

    def snapshot(self, name: str) -> Snapshot:
        """Return the state last read; there is one after a ``refresh`` that raised nothing.

        An unknown task is a TaskError that names the nearest.
        """
        snapshot = self._entry(name).snapshot
        assert snapshot is not None, "refresh comes first"
        return snapshot

    def refresh(self, name: str, now: datetime) -> None:
        """Read the task's state anew if its stores changed; where another thread is at it, go on with the state before.

        Where the stores do not answer, the state before is kept and names the fault; without one that fault is raised.
        """
        entry = self._entry(name)
        if not entry.lock.acquire(timeout=0 if entry.snapshot is not None else FIRST_PATIENCE):
            if entry.snapshot is None:
                raise _silent(FIRST_PATIENCE)
            return
        try:
            entry.until = monotonic() + PATIENCE
            revision = self._revision(entry)
            entry.until, entry.reads = monotonic() + FIRST_PATIENCE, True
            again = monotonic() - entry.read > RELOAD_SECONDS
            if entry.snapshot is None or entry.revision != revision or entry.snapshot.fault or again:
                with one_processor(len(entry.task.series)):
                    entry.snapshot = self._read(entry, revision, now)
                entry.revision, entry.read = revision, monotonic()
        except OutsideError as error:
            if entry.snapshot is None:
                raise
            entry.snapshot = replace(entry.snapshot, fault=_fault(error))
        finally:
            entry.checked, entry.until, entry.reads = (now, monotonic()), None, False
            entry.lock.release()

    def details(self, name: str, now: datetime) -> Details:
        """Return what came of the task's forecasts in the last 30 days, read again when its stores changed."""
        snapshot = self.snapshot(name)
        entry = self._entry(name)
        known, revision = entry.details, entry.revision
        if known is not None and (known[0] == revision or snapshot.fault):
            return known[1]
        since = now - SCORED
        if snapshot.fault:
            return Details(since, pl.DataFrame(schema={name: OUTCOME[name] for name in DRAWN}), None, ())
        outcomes = self.journal().outcomes(name, since, DRAWN)
        ours = of_models(outcomes)
        scores = Scores.model_validate(live_scores(ours)) if ours.height else None
        incidents = self.journal().incidents(name)[: -MOST_INCIDENTS - 1 : -1]
        tested = self.journal().heartbeats(name).get(metrics.CONCEPT_DRIFT)
        details = Details(
            since=since,
            outcomes=outcomes,
            live=scores,
            incidents=incidents,
            drift_ratio=drift.drift_ratio(self.journal().drift_flags(name, drift.WINDOW, now)),
            errors_changed=None if tested is None else tested.detail,
            decisions=audit.events(self._settings, entry.task, MOST_DECISIONS)[::-1],
            handbook=self._settings.runbook_url,
        )
        entry.details = (revision, details)
        return details

    def bench(self, name: str) -> Workbench | None:
        """Return what the task's forecasts on request are made with, if nothing newer is to be built."""
        entry = self._entry(name)
        known = entry.bench
        return known[1] if known is not None and known[0] == entry.revision else None

    def build_bench(self, name: str, now: datetime) -> Workbench:
        """Build that anew; where another thread is at it, go on with the one before.

        Raises NotEnoughHistory where no model serves yet.
        """
        entry = self._entry(name)
        if not entry.bench_lock.acquire(blocking=entry.bench is None):
            assert entry.bench is not None, "only the first one is waited for"
            return entry.bench[1]
        try:
            if (known := self.bench(name)) is not None:
                return known
            revision, champion = entry.revision, entry.champion
            if champion is None:
                raise NotEnoughHistory(
                    f"a champion of task {name!r}", "none that could be loaded", "Train one: forecastle run train"
                )
            made = workbench.build(self._settings, entry.task, champion[1], self.journal(), now)
            entry.bench = (revision, made)
            return made
        finally:
            entry.bench_lock.release()

    def stand_in(self, name: str, series_id: str, now: datetime) -> bytes:
        """Return the answer for a series whose data is too old for the model: the season before, marked as such.

        Raises DataTooOld where even that is not known. Made once for each step of the clock.
        """
        entry, snapshot = self._entry(name), self.snapshot(name)
        key = (entry.revision, series_id, (now - EPOCH) // entry.task.frequency)
        if key not in entry.stand_ins:
            if len(entry.stand_ins) >= MOST_STAND_INS:
                entry.stand_ins.clear()
            entry.stand_ins[key] = standing_in.make(entry.task, entry.history, _recipe(entry), snapshot, series_id, now)
        made = entry.stand_ins[key]
        if made is None:
            raise snapshot.too_old(series_id, now)
        return standing_in.told(made, snapshot.condition(now, series_id))

    def readings(self, name: str, now: datetime) -> tuple[Reading, ...]:
        """Return what the metrics say about a task, from its stores; asked again after five polls' time."""
        entry = self._entry(name)
        if entry.readings is None or monotonic() - entry.readings[0] >= READING_POLLS * self._poll_every:
            snapshot = self.snapshot(name)
            oldest = freshness.oldest(self.journal(), entry.task, snapshot.newest, now)
            found = [*metrics.readings(self.journal(), name, now, None if oldest is None else oldest.age)]
            found += metrics.outer_readings(self._settings, entry.task, now)
            if snapshot.model is not None:
                model = snapshot.model
                found.append(metrics.model_reading(name, model.version, model.data_version, model.estimator))
                found.append(metrics.task_changed_reading(name, model.task_changed))
            if entry.champion is not None:
                found += metrics.promise_readings(name, entry.champion[1].backtest)
            entry.readings = (monotonic(), tuple(found))
        return entry.readings[1]

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise TaskError(
                f"a task of this service ({', '.join(self._entries)})",
                f"{name!r}{nearest(name, self._entries)}",
                "GET /v1/tasks lists them.",
            ) from None

    def journal(self) -> Journal:
        """Return the journal, opened when first asked for."""
        with self._journal_lock:
            if self._journal is None:
                self._journal = Journal(self._settings.journal_url)
            return self._journal

    def _revision(self, entry: _Entry) -> _Revision:
        """Return a value that differs after anything changed that a snapshot or its details hold."""
        return _Revision(
            serving(self._settings, entry.task), entry.history.state(), self.journal().revision(entry.task.name)
        )

    def _read(self, entry: _Entry, revision: _Revision, now: datetime) -> Snapshot:
        task = entry.task
        fault = _load_champion(entry, revision.pointer)
        self._tell(entry, fault, now)
        pointer, champion = entry.champion or (None, None)
        return build(
            task,
            model=_model(task, pointer, champion) if pointer is not None and champion is not None else None,
            promise=Scores.model_validate(champion.backtest) if champion is not None else None,
            model_fault=fault,
            observed=_observed(task, entry.history),
            forecasts=self.journal().latest(task.name),
        )

    def _tell(self, entry: _Entry, fault: str | None, now: datetime) -> None:
        """Open an incident while the published champion is refused, and close it when one serves again."""
        if fault == entry.told:
            return
        if fault is not None:
            self.journal().open_incident(entry.task.name, REFUSED, f"{fault[0].upper()}{fault[1:]}.", now)
        else:
            self.journal().close_incident(entry.task.name, REFUSED, now, "The published champion serves.")
        entry.told = fault


@dataclass(frozen=True)
class _Revision:
    """What the stores hold, by name only: two equal ones mean that nothing changed."""

    pointer: Pointer | None
    files: frozenset[str]
    journal: tuple[Any, ...]


@dataclass
class _Entry:
    task: Task
    history: History
    lock: Lock = field(default_factory=Lock)
    checked: tuple[datetime, float] | None = None
    until: float | None = None  # when stores that are being asked count as hanging
    reads: bool = False  # whether they said that something changed, and are asked what
    read: float = float("-inf")
    revision: _Revision | None = None
    snapshot: Snapshot | None = None
    details: tuple[_Revision | None, Details] | None = None
    champion: tuple[Pointer, Bundle] | None = None
    stand_ins: dict[tuple[Any, ...], SeriesForecasts | None] = field(default_factory=dict)
    told: str | None = ""  # of the champion, so that an incident is opened or closed once; at first nothing was told
    bench: tuple[_Revision | None, Workbench] | None = None
    bench_lock: Lock = field(default_factory=Lock)
    readings: tuple[float, tuple[Reading, ...]] | None = None

    @property
    def hangs(self) -> bool:
        """Whether the stores were asked, and should have answered by now."""
        until = self.until
        return until is not None and monotonic() > until


def begin(work: Callable[..., Answer], *arguments: object) -> asyncio.Future[Answer]:
    """Begin work in a thread beside the event loop, which goes on whoever waits for it and however long."""
    going = asyncio.ensure_future(run_in_threadpool(work, *arguments))
    going.add_done_callback(lambda done: done.cancelled() or done.exception())  # a fault nobody waits for is none
    return going


def _silent(seconds: float) -> StorageUnavailable:
    return StorageUnavailable(
        "the stores to answer", f"nothing in {seconds:g} seconds", "Look at the journal and the history."
    )


def _fault(error: OutsideError) -> str:
    return f"a store does not answer, so this is what it said last ({error.found.rstrip('.')})"


def _observed(task: Task, history: History) -> pl.DataFrame:
    newest = history.newest()
    start = None if newest is None else newest - freshness.reach(task)
    rows = roster.in_service(task, history.read(start=start))
    return rows.select(SERIES, TIMESTAMP, task.target).sort(SERIES, TIMESTAMP)


def _model(task: Task, pointer: Pointer, champion: Bundle) -> Model:
    return Model(
        version=pointer.version,
        data_version=pointer.data_version,
        estimator=champion.estimator,
        created_at=champion.created_at,
        task_changed=champion.task_digest != task.digest,
    )


def _recipe(entry: _Entry) -> Recipe:
    assert entry.champion is not None, "nothing stands in for a model that is not there"
    return entry.champion[1].recipe


def _load_champion(entry: _Entry, pointer: Pointer | None) -> str | None:
    """Load the published champion if it is another, and have it examine itself.

    One that cannot be loaded, or does not forecast what it did when it was made, is refused: it is named, and the one
    before stays, or comes back where this process has not had it yet.
    """
    if pointer is None or (entry.champion is not None and entry.champion[0] == pointer):
        return None
    try:
        entry.champion = (pointer, _examined(pointer))
        return None
    except ForecastleError as error:
        if entry.champion is None and pointer.previous is not None:
            with suppress(ForecastleError):
                entry.champion = (pointer.previous, _examined(pointer.previous))
        return f"the champion, version {pointer.version}, could not be loaded ({error.found.rstrip('.')})"


def _examined(pointer: Pointer) -> Bundle:
    found = load(pointer.folder, pointer.version)
    self_check(found)
    return found
