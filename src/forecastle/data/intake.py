"""The one way into the history: gate, then history or quarantine. Polled and pushed observations both go this way.

A task's folder holds ``archive/``, ``history/``, ``quarantine/<batch>/`` (see ``quarantine``) and, for what is pushed,
``reports/intake/<batch>/`` (the report). A batch is named by its time of collection and the answers it came in, so that
repeating an intake repeats into the same places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.data import admissions, ahead, first_look, identity, quality_check, quarantine, roster, standing
from forecastle.data.archive import Archive
from forecastle.data.history import Appended, History
from forecastle.data.ingestion import Batch, load_batch, make_batch, save_batch
from forecastle.data.providers import file
from forecastle.data.quality_check import QualityReport
from forecastle.data.store import Place
from forecastle.errors import QualityGateFailed
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIMESTAMP, instant, to_json
from forecastle.http import Answer, Request
from forecastle.task import Task

RECENT = timedelta(days=7)
"""How far before the gate's window the history is read for what a batch is compared with."""

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Intake:
    """What became of a batch that passed: the gate's report, how much of it was news to the history, and itself."""

    report: QualityReport
    appended: Appended
    batch: Batch


def admit(
    task: Task,
    folder: Path,
    batch: Batch,
    now: datetime,
    report_folder: Path | None = None,
    stores: Place | None = None,
) -> Intake:
    """Let a batch into the history if the gate passes it, masked values as null; else into quarantine.

    ``folder`` is the task's, ``stores`` where its history lies (default: there too); the report is saved in
    ``report_folder`` (default: of the batch's name under ``reports``), whatever the verdict. Series that the gate
    withholds go into quarantine, the others into the history. Raises QualityGateFailed after the report and the
    quarantined batch are written; nothing of a failed batch reaches the history, unless it has been released. Repeating
    it ends in the same state. Raises TaskError where the stores were begun for another target, unit, frequency or grid.
    """
    history, name = _history(task, stores or folder), name_of(batch)
    released = quarantine.release_of(folder, name)
    withheld = quarantine.find(folder, name).series if released is not None else ()
    recent = _known_before(task, history, batch)
    report, passed = standing.judge(task, folder, batch, now, recent, released)
    refused = not report.passed or bool(report.withheld)
    saved = quality_check.save_report(report_folder or folder / "reports" / "intake" / name, report, flushed=refused)
    place = folder / "quarantine" / name
    if refused:
        held = pl.col(SERIES).is_in(list(report.withheld)) if report.withheld else pl.lit(True)
        quality_check.save_report(place, report)
        save_batch(place, replace(batch, rows=batch.rows.filter(held)))
    if not report.passed:
        raise QualityGateFailed(
            f"a batch of task {task.name!r} that passes every check",
            report.reason,
            f"{_recorded(task, batch, now)}The batch is in quarantine in {place}, the report in {saved}; the next good "
            f"answer heals the gap. If the gate is wrong: forecastle quarantine release {name}, with the same --task.",
        )
    since = now if released is None else released["at"]
    identity.hold(task, folder)
    admissions.note(folder, admissions.Admission(name, batch.collected_at, since, batch.archived, batch.recalled))
    issued = batch.issued
    if released is not None:
        passed, issued = (_known_since(batch, rows, released, withheld) for rows in (passed, issued))
    if issued.height:  # first: who sees the new observations is to see these too
        ahead.store(history.root, task.ahead).append(issued)
    return Intake(report, history.append(passed), batch)


def release(
    task: Task, folder: Path, name: str, by: str, at: datetime, because: str = "", stores: Place | None = None
) -> Intake:
    """Let a quarantined batch into the history against the gate's verdict, and note who did so, when and why.

    It goes the way of every batch, and the report on it says who let it pass; what the gate masks stays masked.
    Rows collected live count as known from ``at``, since nothing knew them before; a newer collection of the same
    observation still counts. A series whose past it was waiting for is in service then. Repeating it, also after a
    crash, ends in the same state. Raises UserError where there is no such batch, or none that the history can hold.
    """
    one = quarantine.find(folder, name)
    batch = load_batch(one.folder)
    note = quarantine.note_release(one, by, at, because)
    intake = admit(task, folder, batch, batch.collected_at, one.folder / "released", stores)
    roster.enrol_past(folder, name, at)
    if one.is_waiting:
        figures = intake.appended
        quarantine.mark_released(one, note, new=figures.new, revised=figures.revised, known=figures.known)
    return intake


def accept(task: Task, folder: Path, answer: Answer, now: datetime, stores: Place | None = None) -> Intake:
    """Take in observations that were pushed: archive the body as it came, then parse, judge and append it.

    The body is a long table in CSV or Parquet (see ``providers.file``); its values count as known from ``now``, and
    the window that is judged is the one it spans. Raises as ``providers.file.parse``, ``make_batch`` and ``admit``.
    """
    archived = Archive((stores or folder) / "archive").save(answer, now)
    parsed = file.parse(task.measured, Request(answer.url), answer.body)
    span = parsed.select(pl.col(TIMESTAMP).min().alias("start"), pl.col(TIMESTAMP).max().alias("end")).row(
        0, named=True
    )
    batch = make_batch(task, [parsed], span["start"], min(span["end"], now), now, True, [archived])
    return admit(task, folder, batch, now, stores=stores)


def _recorded(task: Task, batch: Batch, now: datetime) -> str:
    """Say, of a table of one's own that ended too long ago, how it is used all the same."""
    if task.source.provider != "file" or batch.rows.is_empty():
        return ""
    newest: datetime = batch.rows[TIMESTAMP].max()  # type: ignore[assignment]
    said = first_look.ended(task, newest, now)
    return "" if said is None else f"{said} "


def _history(task: Task, stores: Place) -> History:
    measured = task.measured
    return History(stores / "history", (measured.target, *measured.covariates))


def _known_before(task: Task, history: History, batch: Batch) -> pl.DataFrame:
    """Return the observations of the gate's window and the days before it, as known before the batch came."""
    start = max(batch.start, batch.end - task.gate.window) - RECENT
    known = history.read(as_of=batch.collected_at - MICROSECOND, start=start, end=batch.end + MICROSECOND)
    return known.filter(pl.col(COLLECTED_AT) < instant(batch.collected_at))


def _known_since(
    batch: Batch, rows: pl.DataFrame, released: Mapping[str, Any], withheld: tuple[str, ...]
) -> pl.DataFrame:
    """Return released rows as known from their release; those of series that had passed, and of a backfill, which was
    known long ago, as they are."""
    if not batch.live:
        return rows
    since = pl.max_horizontal(AVAILABLE_AT, pl.lit(released["at"], dtype=rows.schema[AVAILABLE_AT]))
    held = pl.col(SERIES).is_in(list(withheld)) if withheld else pl.lit(True)
    return rows.with_columns(pl.when(held).then(since).otherwise(AVAILABLE_AT).alias(AVAILABLE_AT))


def name_of(batch: Batch) -> str:
    """Return the name of a batch: its collection, and a digest of its window and answers."""
    what = to_json([batch.start, batch.end, batch.live, batch.archived])
    return f"{batch.collected_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
