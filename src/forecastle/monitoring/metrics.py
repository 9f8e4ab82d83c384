"""Every metric by name, in one place: what the service counts itself, and what is read from the stores.

The service counts its own requests and predictions in this process. Everything other processes know (forecasts,
outcomes, drift, incidents, the age of data) is read from the stores as *readings* when somebody asks, so that it is
right whoever answers. A reading that does not exist yet is absent, not 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from forecastle.models.untrained import of_models
from forecastle.monitoring.alerts import PENDING
from forecastle.monitoring.drift import WINDOW, drift_ratio
from forecastle.monitoring.journal import FIGURES, Journal
from forecastle.monitoring.outcomes import live_scores

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
        Metric("forecastle_forecasts_waiting", "gauge", "Forecasts that wait for their truth.", _TASK),
        Metric("forecastle_data_age_seconds", "gauge", "Age of the newest observation.", _TASK),
        Metric("forecastle_drift_ratio", "gauge", "Share of the newest predictions with drifted features.", _TASK),
        Metric("forecastle_live_rmse", "gauge", "Live root mean squared error, in the target's unit.", _HORIZON),
        Metric("forecastle_live_mae", "gauge", "Live mean absolute error, in the target's unit.", _HORIZON),
        Metric("forecastle_live_skill", "gauge", "Live skill over persistence on the same rows.", _HORIZON),
        Metric("forecastle_live_coverage", "gauge", "Share of truths inside the interval, live.", _HORIZON),
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
    own, method = _own(), method if method in METHODS else "other"
    own.counters["forecastle_requests_total"].labels(method, route, str(status)).inc()
    own.histograms["forecastle_request_seconds"].labels(method, route).observe(seconds)


def observe_prediction(task: str, model_version: str, seconds: float) -> None:
    """Count the time one prediction took in this process."""
    _own().histograms["forecastle_prediction_seconds"].labels(task, model_version).observe(seconds)


def readings(journal: Journal, task: str, now: datetime, newest: datetime | None = None) -> Iterator[Reading]:
    """Yield what the journal says about a task as of ``now``; ``newest`` is the newest observation's time.

    Live errors are those of the last two weeks, per horizon and pooled (horizon "all").
    """
    flags = journal.drift_flags(task, WINDOW, now)
    counts = journal.counts(task)
    if any(counts.values()):
        yield Reading("forecastle_predictions_total", (task,), journal.predictions(task))
        yield Reading("forecastle_outcomes_total", (task,), counts["scored"])
        yield Reading("forecastle_truth_never_came_total", (task,), counts["never_came"])
        yield Reading("forecastle_forecasts_waiting", (task,), counts["waiting"])
    if newest is not None:
        yield Reading("forecastle_data_age_seconds", (task,), (now - newest).total_seconds())
    ratio = drift_ratio(flags)
    if ratio is not None:
        yield Reading("forecastle_drift_ratio", (task,), ratio)
    yield from _live(task, live_scores(of_models(journal.outcomes(task, now - LIVE_WINDOW, FIGURES))))
    for incident in journal.incidents(task, open_only=True):
        yield Reading("forecastle_incidents_open", (task, incident.kind), 1)
    beats = journal.heartbeats(task)
    for work in sorted(work for work in beats if not work.startswith(PENDING)):
        beat = beats[work]
        yield Reading("forecastle_work_total", (task, work), beat.count)
        yield Reading("forecastle_work_last_seconds", (task, work), beat.at.timestamp())


def model_reading(task: str, model_version: str, data_version: str, estimator: str) -> Reading:
    """Return the reading that says which model serves."""
    return Reading("forecastle_model_info", (task, model_version, data_version, estimator), 1)


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


def _live(task: str, scores: dict[str, Any]) -> Iterator[Reading]:
    for horizon, figures in [(ALL_HORIZONS, scores), *((str(one["horizon"]), one) for one in scores["horizons"])]:
        for figure in ("rmse", "mae", "skill", "coverage"):
            if figures[figure] is not None:
                yield Reading(f"forecastle_live_{figure}", (task, horizon), figures[figure])
