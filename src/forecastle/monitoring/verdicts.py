"""What the gate said of a batch, in the journal: the same for what is polled and for what is pushed."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

from forecastle.data.quality_check import QualityReport
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.metrics import GATE, POLLED, PUSH_REFUSED, PUSHED

REFUSED, WITHHELD = PUSH_REFUSED, "series-withheld"
HELD = "state:withheld"  # the heartbeat whose detail names the series that are withheld, while there is an incident


def refused(journal: Journal, task: str, reason: str, now: datetime) -> None:
    """Note that a batch which was pushed was refused, and open the incident of it: one that was polled has its own."""
    _note(journal, task, PUSHED, "fail", now)
    journal.open_incident(task, REFUSED, reason, now)


def pushed(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was pushed passed, which ends the incident of those pushed that did not."""
    _passed(journal, task, PUSHED, report, now)
    journal.close_incident(task, REFUSED, now, "It works again.")


def stopped(journal: Journal, task: str, now: datetime) -> None:
    """Note that a batch which was polled was refused."""
    _note(journal, task, POLLED, "fail", now)


def polled(journal: Journal, task: str, report: QualityReport, now: datetime) -> None:
    """Note that a batch which was polled passed."""
    _passed(journal, task, POLLED, report, now)


def withheld(journal: Journal, task: str) -> tuple[str, ...]:
    """Return the series that the open incident of those withheld is about; none where there is none."""
    if all(one.kind != WITHHELD for one in journal.incidents(task, open_only=True)):
        return ()
    beat = journal.heartbeats(task).get(HELD)
    return tuple(json.loads(beat.detail)) if beat is not None and beat.detail else ()


def hold(journal: Journal, task: str, names: Collection[str], now: datetime) -> None:
    """Note which series are withheld; without an incident that is void."""
    journal.beat(task, HELD, now, json.dumps(sorted(names), ensure_ascii=False))


def _passed(journal: Journal, task: str, way: str, report: QualityReport, now: datetime) -> None:
    _note(journal, task, way, report.verdict, now)
    if report.withheld:
        hold(journal, task, {*withheld(journal, task), *report.withheld}, now)  # first, for it is void until then
        reason = f"Withheld by the gate: {', '.join(report.withheld)}. {report.reason}"
        journal.open_incident(task, WITHHELD, reason, now)


def _note(journal: Journal, task: str, way: str, verdict: str, now: datetime) -> None:
    journal.beat(task, f"{GATE}{verdict}", now)
    journal.beat(task, way, now, verdict)
