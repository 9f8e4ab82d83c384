"""What the gate said of a batch, in the journal: the same for what is polled and for what is pushed."""

from __future__ import annotations

from datetime import datetime

from forecastle.data.quality_check import QualityReport
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.metrics import GATE

REFUSED, WITHHELD = "quality-check-failed", "series-withheld"


def refused(journal: Journal, task: str, reason: str, now: datetime) -> None:
    """Note that a batch was refused, and open the incident of it."""
    journal.beat(task, f"{GATE}fail", now)
    journal.open_incident(task, REFUSED, reason, now)


def pushed(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was pushed passed, which ends the incident of those that did not."""
    _passed(journal, task, report, now)
    journal.close_incident(task, REFUSED, now, "It works again.")


def polled(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was polled passed: it is of all series, and so tells when none is withheld any more."""
    _passed(journal, task, report, now)
    if not report.withheld:
        journal.close_incident(task, WITHHELD, now, "Every series passes again.")


def _passed(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    journal.beat(task, f"{GATE}{report.verdict}", now)
    if report.withheld:
        reason = f"Withheld by the gate: {', '.join(report.withheld)}. {report.reason}"
        journal.open_incident(task, WITHHELD, reason, now)
