"""Series that the gate withholds: told with why and what to do, until nothing of them is missing in the history."""

from __future__ import annotations

from datetime import datetime

from forecastle.data import intake
from forecastle.data.ingestion import Batch
from forecastle.data.quality_check import QualityReport
from forecastle.errors import StorageUnavailable, printable
from forecastle.monitoring import verdicts, withheld
from forecastle.run import Run

KIND = verdicts.WITHHELD  # of incident


def tell(run: Run, batch: Batch, report: QualityReport, since: datetime) -> list[str]:
    """Close the incident of series that the gate withheld when nothing of them is missing in the history any more (see
    ``monitoring.withheld``); return what is to be said to whoever runs this. The batch was asked for ``since`` a time.
    """
    unread = ""
    lacking: dict[str, str] = {}
    try:
        lacking = withheld.settle(
            run.journal, run.task, run.home, run.history, batch, report, since, run.now, polls=True
        )
    except StorageUnavailable as error:  # of what was kept aside; the batch at hand has passed
        unread = f"Whether what was withheld is there by now could not be learnt: {error}"
    if report.withheld:
        names = printable(", ".join(report.withheld))
        return [
            f"Withheld: {names}, for {report.reason}.",
            f"The other series go on without. {_remedy(run)} If the gate is wrong: forecastle quarantine release"
            f" {intake.name_of(batch)} --task FILE",
        ]
    if lacking:
        waits = "; ".join(f"{name} (forecastle quarantine show {batch} --task FILE)" for name, batch in lacking.items())
        return [f"Missing in the history since the gate withheld it: {waits}. {_remedy(run, past=True)}"]
    return [unread] if unread else []


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
