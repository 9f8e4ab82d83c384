"""What the gate said of a batch, in the journal: the same for what is polled and for what is pushed."""

from __future__ import annotations

import json
from datetime import datetime

from forecastle.data.quality_check import QualityReport
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.metrics import GATE

REFUSED, WITHHELD = "push-refused", "series-withheld"
HELD = "state:withheld"  # the heartbeat whose detail names the series that are withheld, while there is an incident


def refused(journal: Journal, task: str, reason: str, now: datetime) -> None:
    """Note that a batch which was pushed was refused, and open the incident of it: one that was polled has its own."""
    journal.beat(task, f"{GATE}fail", now)
    journal.open_incident(task, REFUSED, reason, now)


def pushed(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was pushed passed, which ends the incident of those pushed that did not."""
    _passed(journal, task, report, now)
    journal.close_incident(task, REFUSED, now, "It works again.")


def polled(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was polled passed; when what was withheld is back, ``withholding`` tells."""
    _passed(journal, task, report, now)


def withheld(journal: Journal, task: str) -> tuple[str, ...]:
    """Return the series that the open incident of those withheld is about; none where there is none."""
    if all(one.kind != WITHHELD for one in journal.incidents(task, open_only=True)):
        return ()
    beat = journal.heartbeats(task).get(HELD)
    return tuple(json.loads(beat.detail)) if beat is not None and beat.detail else ()


def _passed(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    journal.beat(task, f"{GATE}{report.verdict}", now)
    if report.withheld:
        names = sorted({*withheld(journal, task), *report.withheld})
        journal.beat(task, HELD, now, json.dumps(names, ensure_ascii=False))  # first: without the incident it is void
        reason = f"Withheld by the gate: {', '.join(report.withheld)}. {report.reason}"
        journal.open_incident(task, WITHHELD, reason, now)
