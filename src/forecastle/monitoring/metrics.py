"""Every metric by name, in one place: what the service counts itself, and what is read from the stores.

The service counts its own requests and predictions in this process. Everything other processes know (forecasts,
outcomes, drift, incidents, the age of data) is read from the stores as *readings* when somebody asks, so that it is
right whoever answers. A reading that does not exist yet is absent, not 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from forecastle.data import budget
from forecastle.monitoring.drift import WINDOW, drift_ratio
from forecastle.monitoring.journal import FORGOTTEN, Heartbeat, Journal
from forecastle.monitoring.live import live_figures
from forecastle.settings import Settings
from forecastle.task import Task

# heartbeats that are no work of their own: verdicts of the gate, what came of trainings, what was measured
GATE, TRAINED, CONCEPT_DRIFT, STORED = "gate:", "trained:", "state:concept-drift", "state:stored"
POLLED, PUSHED = "state:gate-polled", "state:gate-pushed"  # what the gate said of the newest batch that came that way
PUSH_REFUSED = "push-refused"  # the incident of a batch that was pushed
_COUNTED = {
    "forecastle_predictions_total": "predictions",
    "forecastle_outcomes_total": "scored",
    "forecastle_truth_never_came_total": "never_came",
    "forecastle_outcomes_revised_total": "revised",
}
LIVE_WINDOW = timedelta(days=14)
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ALL_HORIZONS = "all"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


@dataclass(frozen=True)
class Metric:
    """A metric: its name, its kind, what it says, and the labels that tell its series apart."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One value read from the stores, with its labels in the metric's order."""

    metric: str
    labels: tuple[str, ...]
    value: float


_TASK = ("task",)
_HORIZON = ("task", "horizon")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # counted in this process
        Metric("forecastle_requests_total", "counter", "HTTP requests answered.", ("method", "route", "status")),
        Metric("forecastle_request_seconds", "histogram", "Time to answer an HTTP request.", ("method", "route")),
        Metric(
            "forecastle_prediction_seconds", "histogram", "Time to compute a prediction.", ("task", "model_version")
        ),
        # read from the stores
        Metric("forecastle_predictions_total", "counter", "Predictions made: a series at an origin.", _TASK),
        Metric("forecastle_outcomes_total", "counter", "Forecasts scored against what came true.", _TASK),
        Metric("forecastle_truth_never_came_total", "counter", "Forecasts whose truth never came.", _TASK),
        Metric("forecastle_outcomes_revised_total", "counter", "Outcomes scored again by a revised truth.", _TASK),
        Metric("forecastle_forecasts_waiting", "gauge", "Forecasts that wait for their truth.", _TASK),
        Metric("forecastle_data_age_seconds", "gauge", "Age of the data of the series furthest behind.", _TASK),
        Metric("forecastle_drift_ratio", "gauge", "Share of the newest predictions with drifted features.", _TASK),
        Metric("forecastle_live_rmse", "gauge", "Live root mean squared error, in the target's unit.", _HORIZON),
        Metric("forecastle_live_mae", "gauge", "Live mean absolute error, in the target's unit.", _HORIZON),
        Metric("forecastle_live_skill", "gauge", "Live skill over persistence on the same rows.", _HORIZON),
        Metric("forecastle_live_coverage", "gauge", "Share of truths inside the interval, live.", _HORIZON),
        Metric("forecastle_promised_rmse", "gauge", "RMSE of the champion's back-test.", _HORIZON),
        Metric("forecastle_promised_mae", "gauge", "Mean absolute error of the champion's back-test.", _HORIZON),
        Metric("forecastle_promised_skill", "gauge", "Skill of the champion's back-test.", _HORIZON),
        Metric("forecastle_promised_coverage", "gauge", "Coverage of the champion's back-test.", _HORIZON),
        Metric("forecastle_live_outcomes", "gauge", "Outcomes that the live figures are made of.", _HORIZON),
        Metric("forecastle_concept_drift", "gauge", "1 while the live errors differ from those before, else 0.", _TASK),
        Metric("forecastle_gate_verdicts_total", "counter", "Batches judged by the gate.", ("task", "verdict")),
        Metric(
            "forecastle_gate_failing",
            "gauge",
            "1 where the gate refused what was polled or pushed last, else 0.",
            _TASK,
        ),
        Metric("forecastle_retrains_total", "counter", "Trainings judged, by what came of them.", ("task", "result")),
        Metric("forecastle_budget_calls", "gauge", "Calls used of what a source allows.", ("task", "provider", "span")),
        Metric(
            "forecastle_budget_used_ratio", "gauge", "Share of those that are allowed.", ("task", "provider", "span")
        ),
        Metric("forecastle_stored_bytes", "gauge", "Bytes a store holds, measured once a day.", ("task", "store")),
        Metric("up", "gauge", "Prometheus' own: 1 where the service answered the last scrape.", ("job",)),
        Metric("forecastle_incidents_open", "gauge", "Incidents that are open.", ("task", "kind")),
        Metric("forecastle_work_total", "counter", "Times a kind of work succeeded.", ("task", "work")),
        Metric("forecastle_work_last_seconds", "gauge", "Unix time at which it last did.", ("task", "work")),
        Metric(
            "forecastle_model_info",
            "gauge",
            "Always 1; the labels say which model serves.",
            ("task", "model_version", "data_version", "estimator"),
        ),
        Metric("forecastle_task_changed", "gauge", "1 where the task has changed since its model was trained.", _TASK),
    )
}


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request; ``route`` is the route's template, never a path that was asked for.

    Any word may come as a method, so one that HTTP does not know counts as "other".
    """
    count, time = _of_request(method if method in METHODS else "other", route, status)
    count.inc()
    time.observe(seconds)


def observe_prediction(task: str, model_version: str, seconds: float) -> None:
    """Count the time one prediction took in this process."""
    _of_prediction(task, model_version).observe(seconds)


def readings(journal: Journal, task: str, now: datetime, age: timedelta | None = None) -> Iterator[Reading]:
    """Yield what the journal says about a task as of ``now``; ``age`` is that of its data (``freshness.oldest``).

    Live errors are those of the last two weeks, per horizon and pooled (horizon "all").
    """
    flags = journal.drift_flags(task, WINDOW, now)
    counts, beats = journal.counts(task), journal.heartbeats(task)
    gone = {work.removeprefix(FORGOTTEN): beat.count for work, beat in beats.items() if work.startswith(FORGOTTEN)}
    if any(counts.values()):
        ever = {"predictions": journal.predictions(task), "revised": journal.revised(task), **counts}
        for name, what in _COUNTED.items():
            yield Reading(name, (task,), ever[what] + gone.get(what, 0))
        yield Reading("forecastle_forecasts_waiting", (task,), counts["waiting"])
    if age is not None:
        yield Reading("forecastle_data_age_seconds", (task,), age.total_seconds())
    ratio = drift_ratio(flags)
    if ratio is not None:
        yield Reading("forecastle_drift_ratio", (task,), ratio)
    yield from _live(task, live_figures(journal, task, now - LIVE_WINDOW))
    incidents = journal.incidents(task, open_only=True)
    for incident in incidents:
        yield Reading("forecastle_incidents_open", (task, incident.kind), 1)
    yield from _gate(task, beats, any(one.kind == PUSH_REFUSED for one in incidents), now)
    yield from _beats(task, beats, now)


def outer_readings(settings: Settings, task: Task, now: datetime) -> Iterator[Reading]:
    """Yield what the other stores say about a task: the budget of its source, from the ledger of collecting."""
    provider = task.source.provider
    for span, calls, most in budget.used(task, settings, now):
        yield Reading("forecastle_budget_calls", (task.name, provider, span), calls)
        yield Reading("forecastle_budget_used_ratio", (task.name, provider, span), calls / most)


def model_reading(task: str, model_version: str, data_version: str, estimator: str) -> Reading:
    """Return the reading that says which model serves."""
    return Reading("forecastle_model_info", (task, model_version, data_version, estimator), 1)


def promise_readings(task: str, scores: Mapping[str, Any]) -> Iterator[Reading]:
    """Yield what the champion's back-test (``evaluation.scores``) promises, per horizon and pooled."""
    yield from _figures("promised", task, scores)


def task_changed_reading(task: str, changed: bool) -> Reading:
    """Return the reading that says whether the task file is another than the one its model was trained by."""
    return Reading("forecastle_task_changed", (task,), float(changed))


def exposition(found: Iterable[Reading] = ()) -> tuple[bytes, str]:
    """Return this process' metrics and the readings in Prometheus' text format, and its media type."""
    stores = CollectorRegistry()
    stores.register(_Stores(tuple(found)))
    return generate_latest(_own().registry) + generate_latest(stores), CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True)
class _Own:
    """What this process counts."""

    registry: CollectorRegistry
    counters: dict[str, Counter]
    histograms: dict[str, Histogram]


@dataclass(frozen=True)
class _Stores(Collector):
    """A collector of readings."""

    found: tuple[Reading, ...]

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield a family for every metric that has a reading."""
        for name in dict.fromkeys(reading.metric for reading in self.found):
            metric = METRICS[name]
            family: Any = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                name, metric.help, labels=metric.labels
            )
            for reading in self.found:
                if reading.metric == name:
                    family.add_metric(reading.labels, reading.value)
            yield family


@cache
def _of_request(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return what counts and what times a kind of request: labels are looked up once, not at every request."""
    own = _own()
    count = own.counters["forecastle_requests_total"].labels(method, route, str(status))
    return count, own.histograms["forecastle_request_seconds"].labels(method, route)


@cache
def _of_prediction(task: str, model_version: str) -> Histogram:
    return _own().histograms["forecastle_prediction_seconds"].labels(task, model_version)


@cache
def _own() -> _Own:
    # Else every counter comes with a second metric, its birth, that no dashboard knows.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    requests, *timed = (
        METRICS[name]
        for name in ("forecastle_requests_total", "forecastle_request_seconds", "forecastle_prediction_seconds")
    )
    return _Own(
        registry,
        {requests.name: Counter(requests.name, requests.help, requests.labels, registry=registry)},
        {one.name: Histogram(one.name, one.help, one.labels, buckets=BUCKETS, registry=registry) for one in timed},
    )


def _gate(task: str, beats: Mapping[str, Heartbeat], is_open: bool, now: datetime) -> Iterator[Reading]:
    """Yield what the gate has said, and whether it refuses what is polled or what is pushed: one that passes says
    nothing of the other. Of a push that was refused counts whether its incident ``is_open``: closing that settles it.
    """
    judged = {work.removeprefix(GATE): beat for work, beat in beats.items() if work.startswith(GATE)}
    for verdict, beat in judged.items():
        yield Reading("forecastle_gate_verdicts_total", (task, verdict), beat.count)
    ways = {way: beats[way].detail for way in (POLLED, PUSHED) if way in beats and beats[way].at <= now}
    by_now = [verdict for verdict, beat in judged.items() if beat.at <= now]  # a run may act as of an earlier time
    if ways:
        fails = ways.get(POLLED) == "fail" or (ways.get(PUSHED) == "fail" and is_open)
        yield Reading("forecastle_gate_failing", (task,), float(fails))
    elif by_now:
        newest = max(by_now, key=lambda verdict: judged[verdict].at)
        yield Reading("forecastle_gate_failing", (task,), float(newest == "fail"))


def _beats(task: str, beats: Mapping[str, Heartbeat], now: datetime) -> Iterator[Reading]:
    """Yield what heartbeats say: kinds of work as such; what has a colon in its name has a metric of its own."""
    for work, beat in beats.items():
        if work.startswith(TRAINED):
            yield Reading("forecastle_retrains_total", (task, work.removeprefix(TRAINED)), beat.count)
        elif work == CONCEPT_DRIFT:
            yield Reading("forecastle_concept_drift", (task,), float(bool(beat.detail)))
        elif work == STORED:
            for store, size in json.loads(beat.detail).items():
                yield Reading("forecastle_stored_bytes", (task, store), size)
        elif ":" not in work:
            yield Reading("forecastle_work_total", (task, work), beat.count)
            yield Reading("forecastle_work_last_seconds", (task, work), beat.at.timestamp())


def _live(task: str, scores: Mapping[str, Any]) -> Iterator[Reading]:
    yield from _figures("live", task, scores)
    for horizon, figures in _by_horizon(scores):
        if figures["n"]:
            yield Reading("forecastle_live_outcomes", (task, horizon), figures["n"])


def _figures(kind: str, task: str, scores: Mapping[str, Any]) -> Iterator[Reading]:
    for horizon, figures in _by_horizon(scores):
        for figure in ("rmse", "mae", "skill", "coverage"):
            if figures.get(figure) is not None:
                yield Reading(f"forecastle_{kind}_{figure}", (task, horizon), figures[figure])


def _by_horizon(scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(ALL_HORIZONS, scores), *((str(one["horizon"]), one) for one in scores["horizons"])]
