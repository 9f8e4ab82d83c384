"""The one way into the history: gate, then history or quarantine. Polled and pushed observations both go this way.

A task's folder holds ``archive/``, ``history/``, ``quarantine/<batch>/`` (the batch, the gate's report) and, for what
is pushed, ``reports/intake/<batch>/`` (the report). A batch is named by its time of collection and the
answers it came in, so that repeating an intake repeats into the same places.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from forecastle.data import identity, quality_check
from forecastle.data.archive import Archive
from forecastle.data.history import Appended, History
from forecastle.data.ingestion import Batch, make_batch, save_batch
from forecastle.data.providers import file
from forecastle.data.quality_check import QualityReport
from forecastle.errors import QualityGateFailed
from forecastle.frame import TIMESTAMP, to_json
from forecastle.http import Answer, Request
from forecastle.task import Task


@dataclass(frozen=True)
class Intake:
    """What became of a batch that passed: the gate's report, and how much of it was news to the history."""

    report: QualityReport
    appended: Appended


def admit(task: Task, folder: Path, batch: Batch, now: datetime, report_folder: Path | None = None) -> Intake:
    """Let a batch into the history if the gate passes it, masked values as null; else into quarantine.

    ``folder`` is the task's; the report is saved in ``report_folder`` (default: of the batch's name under ``reports``),
    whatever the verdict. Raises QualityGateFailed after the report and the quarantined batch are written; nothing of
    a failed batch reaches the history. Repeating it ends in the same state. Raises TaskError where the stores were
    begun for another target, unit, frequency or grid.
    """
    report, passed = quality_check.judge(task, batch.rows, batch.start, batch.end, now)
    saved = quality_check.save_report(report_folder or folder / "reports" / "intake" / _name(batch), report)
    if not report.passed:
        quarantine = folder / "quarantine" / _name(batch)
        quality_check.save_report(quarantine, report)
        save_batch(quarantine, batch)
        raise QualityGateFailed(
            f"a batch of task {task.name!r} that passes every check",
            "; ".join(f"{one.check}: expected {one.expected}, found {one.found}" for one in report.failures),
            f"The batch is in quarantine in {quarantine}, the report in {saved}; the next good answer heals the gap.",
        )
    identity.hold(task, folder)
    measured = task.measured
    history = History(folder / "history", (measured.target, *measured.covariates))
    return Intake(report, history.append(passed))


def accept(task: Task, folder: Path, answer: Answer, now: datetime) -> Intake:
    """Take in observations that were pushed: archive the body as it came, then parse, judge and append it.

    The body is a long table in CSV or Parquet (see ``providers.file``); its values count as known from ``now``, and
    the window that is judged is the one it spans. Raises as ``providers.file.parse``, ``make_batch`` and ``admit``.
    """
    archived = Archive(folder / "archive").save(answer, now)
    parsed = file.parse(task.measured, Request(answer.url), answer.body)
    span = parsed.select(pl.col(TIMESTAMP).min().alias("start"), pl.col(TIMESTAMP).max().alias("end")).row(
        0, named=True
    )
    batch = make_batch(task, [parsed], span["start"], min(span["end"], now), now, True, [archived])
    return admit(task, folder, batch, now)


def _name(batch: Batch) -> str:
    what = to_json([batch.start, batch.end, batch.live, batch.archived])
    return f"{batch.collected_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
