"""The alert rules as data, and the plain evaluator that opens and closes incidents by them.

A rule fires when its metric has been past its threshold for as long as it says. A metric without a value says nothing:
it neither fires a rule nor ends one.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from forecastle.frame import iso
from forecastle.monitoring.journal import Journal
from forecastle.task import Task

COMPARISONS = {">": operator.gt, "<": operator.lt}
LEAST_OUTCOMES = 100  # below this many outcomes live figures are too rough to raise an alarm
PENDING = "alert:"  # heartbeats of this prefix remember since when a rule's condition holds


@dataclass(frozen=True)
class Rule:
    """When to raise an alarm, how grave it is, and what to do about it.

    ``aggregation`` says which number of the metric is compared: its last value, or of a histogram the 95th percentile.
    ``hold`` is how long the comparison must be true (Prometheus' ``for``).
    """

    name: str
    metric: str
    aggregation: Literal["last", "p95"]
    comparison: Literal[">", "<"]
    threshold: float
    hold: timedelta
    severity: Literal["warning", "critical"]
    summary: str
    action: str

    def is_met(self, value: float) -> bool:
        """Tell whether a value is past the threshold."""
        return bool(COMPARISONS[self.comparison](value, self.threshold))


@dataclass(frozen=True)
class Evaluation:
    """What one look at the rules found: those firing, those no longer true, and since when each true one is true."""

    firing: tuple[Rule, ...]
    ended: tuple[Rule, ...]
    pending: Mapping[str, datetime]


def rules_for(task: Task) -> tuple[Rule, ...]:
    """Return the rules of a task; what the task file sets (drift ratio, staleness, coverage) is taken from it."""
    at_once, day = timedelta(0), timedelta(days=1)
    stale = task.patience(task.monitoring.stale_after).total_seconds()
    low, high = coverage_limits(task.training.coverage)
    return (
        Rule(
            *("inference-slow", "forecastle_prediction_seconds", "p95", ">", 0.5, timedelta(minutes=5), "warning"),
            summary="95 % of predictions should take less than 500 ms, and more of them take longer.",
            action="Look at the load of the service and its host; add a replica.",
        ),
        Rule(
            *("data-drift", "forecastle_drift_ratio", "last", ">", task.monitoring.drift_ratio, at_once, "warning"),
            summary="Too many predictions are asked for with feature values that the training data never held.",
            action="See which series and column moved; mend the source or train on the new data.",
        ),
        Rule(
            *("data-stale", "forecastle_data_age_seconds", "last", ">", stale, at_once, "critical"),
            summary="The newest observation is older than the task allows.",
            action="See why collection stopped: the source, the gate's last report, the schedule.",
        ),
        Rule(
            *("skill-lost", "forecastle_live_skill", "last", "<", 0.0, day, "critical"),
            summary="For a day the forecasts have been worse than the last value repeated.",
            action="Train and promote a challenger on recent data, or roll back to the champion before.",
        ),
        Rule(
            *("coverage-low", "forecastle_live_coverage", "last", "<", low, day, "warning"),
            summary=f"For a day fewer truths than {100 * low:.4g} % have come inside the intervals.",
            action="Train again, so that the intervals are calibrated on recent errors.",
        ),
        Rule(
            *("coverage-high", "forecastle_live_coverage", "last", ">", high, day, "warning"),
            summary=f"For a day more truths than {100 * high:.4g} % have come inside the intervals: they are too wide.",
            action="Train again, so that the intervals are calibrated on recent errors.",
        ),
    )


def coverage_limits(promised: float) -> tuple[float, float]:
    """Return between which shares of truths inside the intervals lie may be taken for the promised one.

    Below, the intervals miss twice as often as promised (never more than halfway to missing all); above, less than a
    third as often. Of 90 % these are 80 % and 97 %.
    """
    missed = 1 - promised
    return round(1 - min(2 * missed, (1 + missed) / 2), 9), round(1 - 0.3 * missed, 9)


def evaluate(
    rules: Iterable[Rule], values: Mapping[str, float | None], pending: Mapping[str, datetime], now: datetime
) -> Evaluation:
    """Compare the newest values (by metric) with the rules; ``pending`` is what the look before this one returned."""
    firing: list[Rule] = []
    ended: list[Rule] = []
    since: dict[str, datetime] = {}
    for rule in rules:
        value = values.get(rule.metric)
        if value is None:
            since |= {rule.name: pending[rule.name]} if rule.name in pending else {}
        elif rule.is_met(value):
            since[rule.name] = pending.get(rule.name, now)
            if now - since[rule.name] >= rule.hold:
                firing.append(rule)
        else:
            ended.append(rule)
    return Evaluation(tuple(firing), tuple(ended), since)


def apply(
    journal: Journal, task: Task, measured: Mapping[str, Any], now: datetime
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Evaluate the task's rules on what was measured; return the names of the incidents opened and closed by it.

    ``measured`` holds drift_ratio, data_age_seconds (None where unknown) and live (as ``outcomes.live_scores``).
    """
    beats = journal.heartbeats(task.name)
    remembered = {
        work.removeprefix(PENDING): datetime.fromisoformat(beat.detail)
        for work, beat in beats.items()
        if work.startswith(PENDING) and beat.detail
    }
    rules, values = rules_for(task), _values(measured)
    found = evaluate(rules, values, remembered, now)
    for name in sorted({*remembered, *found.pending}):
        if remembered.get(name) != found.pending.get(name):
            journal.beat(task.name, PENDING + name, now, iso(found.pending[name]) if name in found.pending else "")
    is_open = {incident.kind for incident in journal.incidents(task.name, open_only=True)}
    opened = tuple(
        rule.name
        for rule in found.firing
        if rule.name not in is_open and journal.open_incident(task.name, rule.name, _reason(rule, values), now)
    )
    closed = tuple(
        rule.name
        for rule in found.ended
        if rule.name in is_open and journal.close_incident(task.name, rule.name, now, "The measure is back.")
    )
    return opened, closed


def _values(measured: Mapping[str, Any]) -> dict[str, float | None]:
    live = measured["live"]
    enough = live["n"] >= LEAST_OUTCOMES
    return {
        "forecastle_drift_ratio": measured["drift_ratio"],
        "forecastle_data_age_seconds": measured["data_age_seconds"],
        "forecastle_live_skill": live["skill"] if enough else None,
        "forecastle_live_coverage": live["coverage"] if enough else None,
    }


def _reason(rule: Rule, values: Mapping[str, float | None]) -> str:
    return f"{rule.summary} {rule.metric} is {values[rule.metric]:.4g}, the limit is {rule.threshold:.4g}."
