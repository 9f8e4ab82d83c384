"""When a series that the gate withheld is back: nothing of it is missing in the history, or its source took it back.

What was withheld waits in quarantine. A batch that passes later, of the same series and of all the time that was
withheld, says what is true of it now: rows that are no longer in it were left out by whoever mended it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import polars as pl

from forecastle.data import roster
from forecastle.data.history import History
from forecastle.data.ingestion import Batch, load_batch
from forecastle.data.quality_check import QualityReport
from forecastle.data.quarantine import Quarantined, quarantined
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.monitoring import verdicts
from forecastle.monitoring.journal import Journal
from forecastle.task import Task

BACK = "Every series passes again, and its past is there."


def settle(
    journal: Journal,
    task: Task,
    folder: Path,
    history: History,
    batch: Batch,
    report: QualityReport,
    since: datetime,
    now: datetime,
    polls: bool,
) -> dict[str, str]:
    """End the incident of series that are withheld where nothing of them is missing any more, now that a batch, asked
    for ``since`` a time, has passed; return those that still lack something, each with a batch that holds it.

    That a series passes again is not enough: of one that was withheld from a training the next answer brings two days.
    Where it ``polls``, the task's list of series knows whose past is still to be fetched. Raises StorageUnavailable
    where the quarantine cannot be read.
    """
    opened = [one.opened_at for one in journal.incidents(task.name, open_only=True) if one.kind == verdicts.WITHHELD]
    if not opened:
        return {}
    waiting = [one for one in quarantined(folder) if one.series and one.is_waiting and one.collected_at >= opened[0]]
    known = set(verdicts.withheld(journal, task.name))
    names = known or {name for one in waiting for name in one.series}
    absent = roster.missing(task, folder, history, now) if polls and task.series else None
    lacking = _lacking(task, history, waiting, names, absent, batch, report, since)
    left = names & {*lacking, *report.withheld}
    if not left:
        journal.close_incident(task.name, verdicts.WITHHELD, now, BACK)
    elif left != known:
        verdicts.hold(journal, task.name, left, now)
    return lacking


def _lacking(
    task: Task,
    history: History,
    waiting: Collection[Quarantined],
    names: Collection[str],
    absent: Collection[str] | None,
    batch: Batch,
    report: QualityReport,
    since: datetime,
) -> dict[str, str]:
    """Return the series, of these names, of which rows that wait are not in the history, with a batch of those."""
    there = {name: (first, last) for name, first, last, _ in history.extent().iter_rows()}
    heard = set(batch.rows[SERIES].unique()) - set(report.withheld)
    found: dict[str, str] = {}
    for one in waiting:
        rows = roster.in_service(task, load_batch(one.folder).rows.drop_nulls(task.measured.target))
        for name, first, last in rows.group_by(SERIES).agg(pl.min(TIMESTAMP), last=pl.max(TIMESTAMP)).iter_rows():
            said_again = one.collected_at < batch.collected_at and since <= first and last <= batch.end
            if name not in names or (name in heard and said_again):
                continue
            begun, until = there.get(name, (None, None))
            late = name in absent if absent is not None else begun is None or begun > max(first, task.start)
            if late or until is None or until < last:
                found[name] = one.name
    return dict(sorted(found.items()))
