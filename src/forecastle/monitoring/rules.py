"""The alert rules as data, in one place: what Prometheus, Grafana and the embedded evaluator go by.

A rule compares one number, an aggregation of one metric over a window, with a threshold, and fires when the comparison
has been true for as long as it says. Nothing here evaluates or renders: see ``alerts`` and ``rendering``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from forecastle.duration import age_text
from forecastle.monitoring.drift import WINDOW
from forecastle.task import Task

Aggregation = Literal["last", "min", "max", "increase", "p95"]
"""Of a metric over the window: its newest value, its least, its greatest, what a counter gained, or of a histogram the
95th percentile of what came in. What speaks of the whole window, ``min`` and ``increase``, says nothing of a metric
that was not there yet when the window began, or within its ``grace`` before."""

ENTIRE = "forecastle"  # the job's name in Prometheus, by which it knows whether the service is up
PAGE = "docs/incidents.md"
LEAST_OUTCOMES = 100  # below this many outcomes live figures are too rough to raise an alarm

MINUTE = 60.0
AT_ONCE, MINUTES, DAY = timedelta(0), timedelta(minutes=5), timedelta(days=1)
GRACE = timedelta(minutes=30)  # what a service takes to start again, and a Prometheus, is less


@dataclass(frozen=True)
class Rule:
    """When to raise an alarm, how grave it is, what a person reads of it, and what to do about it.

    ``figure`` is what to say of the number after the summary, with ``{value}`` and ``{limit}`` in their ``unit`` (s or
    %) and the window as ``{span}``; of a number that is only a sign nothing is said. ``labels`` choose among the
    metric's series. ``hold`` is how long the comparison must be true (Prometheus' ``for``). ``least`` is a metric of
    the same task that must have at least so much for the rule to say anything. Where ``retrain`` is set, its incident
    asks for a retrain.
    """

    name: str
    metric: str
    aggregation: Aggregation
    comparison: Literal[">", "<"]
    threshold: float
    severity: Literal["warning", "critical"]
    summary: str
    action: str
    window: timedelta = AT_ONCE
    hold: timedelta = AT_ONCE
    figure: str = ""
    unit: Literal["s", "%"] = "%"
    labels: Mapping[str, str] = field(default_factory=dict)
    least: tuple[str, float] | None = None
    retrain: bool = False

    @property
    def grace(self) -> timedelta:
        """How long a metric may be missing about the window's start and count as there: so that no gap in the looks
        ends an alarm that speaks of the whole window."""
        return min(GRACE, self.window / 2)

    def runbook(self, handbook: str = PAGE) -> str:
        """Return where to read what to do."""
        return f"{handbook}#{self.name}"

    def told(self, value: float) -> str:
        """Return what a person reads of an alarm at this value."""
        numbers = {"value": _written(value, self.unit), "limit": _written(self.threshold, self.unit)}
        return f"{self.summary} {self.figure.format(**numbers, span=age_text(self.window))}".rstrip()

    def is_met(self, value: float) -> bool:
        """Tell whether a value is past the threshold."""
        return value > self.threshold if self.comparison == ">" else value < self.threshold


def rules_for(task: Task) -> tuple[Rule, ...]:
    """Return the rules of a task; what the task file sets (drift ratio, staleness, coverage) is taken from it."""
    stale = task.patience(task.monitoring.stale_after)
    low, high = coverage_limits(task.training.coverage)
    live = {"horizon": "all"}
    enough = ("forecastle_live_outcomes", float(LEAST_OUTCOMES))
    return (
        Rule(
            *("inference-slow", "forecastle_prediction_seconds", "p95", ">", 0.5, "warning"),
            summary="95 % of predictions should take less than 500 ms, and more of them take longer.",
            action="Look at the load of the service and its host; add a replica.",
            figure="They take up to {value}.",
            unit="s",
            window=MINUTES,
            hold=MINUTES,
        ),
        Rule(
            *("data-drift", "forecastle_drift_ratio", "last", ">", task.monitoring.drift_ratio, "warning"),
            summary="Too many predictions are asked for with feature values that the training data never held.",
            action="See which series and column moved; mend the source or train on the new data.",
            figure=f"They are {{value}} of the newest {WINDOW}; the limit is {{limit}}.",
            retrain=True,
        ),
        Rule(
            *("concept-drift", "forecastle_concept_drift", "last", ">", 0.0, "warning"),
            summary="The live errors have changed: what the model learnt holds no longer as it did.",
            action="See which series errs and since when; mend its source or train on the new data.",
            retrain=True,
        ),
        Rule(
            *("data-stale", "forecastle_data_age_seconds", "last", ">", stale.total_seconds(), "critical"),
            summary="The data of a series, or of all, is older than the task allows.",
            action="See why collection stopped: the source, the gate's last report, the schedule.",
            figure="It is {value} old; the limit is {limit}.",
            unit="s",
        ),
        Rule(
            *("no-forecasts", "forecastle_predictions_total", "increase", "<", 0.5, "critical"),
            summary="No forecast has been made for longer than the task allows.",
            action="See whether the live flow runs, and at which step it stops.",
            figure="None was in the last {span}.",
            window=stale,
        ),
        Rule(
            *("gate-failing", "forecastle_gate_failing", "min", ">", 0.5, "critical"),
            summary="For longer than the task allows the gate has refused what is polled, or what is pushed.",
            action="Read the gate's last report; mend the source, or release what is right after all.",
            figure="It has been so for {span}.",
            window=stale,
        ),
        Rule(
            *("skill-lost", "forecastle_live_skill", "last", "<", 0.0, "critical"),
            summary="For a day the forecasts have been worse than the last value repeated.",
            action="Train and promote a challenger on recent data, or roll back to the champion before.",
            figure="Their skill over it is {value}, in the last two weeks.",
            hold=DAY,
            labels=live,
            least=enough,
            retrain=True,
        ),
        Rule(
            *("coverage-low", "forecastle_live_coverage", "last", "<", low, "warning"),
            summary=f"For a day fewer truths than {100 * low:.4g} % have come inside the intervals.",
            action="Train again, so that the intervals are calibrated on recent errors.",
            figure=f"In the last two weeks it is {{value}}; {100 * task.training.coverage:.4g} % are promised.",
            hold=DAY,
            labels=live,
            least=enough,
        ),
        Rule(
            *("coverage-high", "forecastle_live_coverage", "last", ">", high, "warning"),
            summary=f"For a day more truths than {100 * high:.4g} % have come inside the intervals: they are too wide.",
            action="Train again, so that the intervals are calibrated on recent errors.",
            figure=f"In the last two weeks it is {{value}}; {100 * task.training.coverage:.4g} % are promised.",
            hold=DAY,
            labels=live,
            least=enough,
        ),
        Rule(
            *("budget-nearly-spent", "forecastle_budget_used_ratio", "max", ">", 0.9, "warning"),
            summary="More than 90 % of what a source may be asked has been used.",
            action="Ask less often or for fewer series, or get a key that allows more.",
            figure="It is {value}.",
            window=MINUTES,
        ),
        Rule(
            *("service-down", "up", "last", "<", 0.5, "critical"),
            summary="The service does not answer.",
            action="See what it logged last, then start it again.",
            hold=timedelta(minutes=1),
            labels={"job": ENTIRE},
        ),
    )


def coverage_limits(promised: float) -> tuple[float, float]:
    """Return between which shares of truths inside the intervals lie may be taken for the promised one.

    Below, the intervals miss twice as often as promised (never more than halfway to missing all); above, less than a
    third as often. Of 90 % these are 80 % and 97 %.
    """
    missed = 1 - promised
    return round(1 - min(2 * missed, (1 + missed) / 2), 9), round(1 - 0.3 * missed, 9)


def asks_for_retrain(kind: str, rules: Sequence[Rule]) -> bool:
    """Tell whether an incident of this kind asks for a retrain."""
    return any(rule.name == kind and rule.retrain for rule in rules)


def _written(value: float, unit: Literal["s", "%"]) -> str:
    """Write a share as a percentage, and a length of time in seconds, or its two largest units."""
    if unit == "%":
        return f"{100 * value:.3g} %".replace("-", "−")
    return f"{value:.3g} s" if value < MINUTE else age_text(timedelta(seconds=value))
