"""Series that the gate withholds: told with why and what to do, until nothing of them is missing in the history."""

from __future__ import annotations

import polars as pl

from forecastle.data import intake, roster
from forecastle.data.ingestion import Batch, load_batch
from forecastle.data.quality_check import QualityReport
from forecastle.data.quarantine import quarantined
from forecastle.errors import StorageUnavailable, printable
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.monitoring import verdicts
from forecastle.run import Run

KIND = verdicts.WITHHELD  # of incident


def tell(run: Run, batch: Batch, report: QualityReport) -> list[str]:
    """Close the incident of series that the gate withheld when nothing of them is missing in the history any more;
    return what is to be said to whoever runs this.

    That a series passes again is not enough: of one that was withheld from a training the next answer brings two days.
    """
    if report.withheld:
        names = printable(", ".join(report.withheld))
        return [
            f"Withheld: {names}, for {report.reason}.",
            f"The other series go on without. {_remedy(run)} If the gate is wrong: forecastle quarantine release"
            f" {intake.name_of(batch)} --task FILE",
        ]
    try:
        lacking = _lacking(run)
    except StorageUnavailable as unread:  # of what was kept aside; the batch at hand has passed
        return [f"Whether what was withheld is there by now could not be learnt: {unread}"]
    if lacking:
        waits = "; ".join(f"{name} (forecastle quarantine show {batch} --task FILE)" for name, batch in lacking.items())
        return [f"Missing in the history since the gate withheld it: {waits}. {_remedy(run, past=True)}"]
    run.journal.close_incident(run.task.name, KIND, run.now, "Every series passes again, and its past is there.")
    return []


def _lacking(run: Run) -> dict[str, str]:
    """Return the series of which rows that were withheld since the incident began are not in the history, each with a
    batch that holds them."""
    opened = [one.opened_at for one in run.journal.incidents(run.task.name, open_only=True) if one.kind == KIND]
    if not opened:
        return {}
    waiting = [one for one in quarantined(run.home) if one.series and one.is_waiting and one.collected_at >= opened[0]]
    there = {name: (first, last) for name, first, last, _ in run.history.extent().iter_rows()}
    absent = roster.missing(run.task, run.home, run.history, run.now)
    found: dict[str, str] = {}
    for one in waiting:
        rows = roster.in_service(run.task, load_batch(one.folder).rows.drop_nulls(run.task.measured.target))
        for name, first, last in rows.group_by(SERIES).agg(pl.min(TIMESTAMP), last=pl.max(TIMESTAMP)).iter_rows():
            since, until = there.get(name, (None, None))
            late = name in absent if run.task.series else since is None or since > max(first, run.task.start)
            if late or until is None or until < last:
                found[name] = one.name
    return dict(sorted(found.items()))


def _remedy(run: Run, past: bool = False) -> str:
    """Say what brings a series back: of its past where ``past``, or where a training has asked for it."""
    if run.flow == "live" and not past:
        return "What they lack comes with the next answer that passes."
    if run.task.source.provider == "file":
        return "Mend the table, or [gate] of the task, and train again: forecastle run train --task FILE."
    return (
        "Mend the source, or [gate] of the task. Live runs ask for the past once a day, forecastle backfill --task FILE"
        " does at once."
    )
