"""What was measured lately, so that the embedded evaluator can look at a stretch of time as Prometheus does.

Only the metrics of rules with a window are kept, at each look, in the journal, so that looks of different processes
see one past.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import sqlalchemy as sql

from forecastle.monitoring.journal import Journal
from forecastle.monitoring.rules import Aggregation, Rule
from forecastle.monitoring.tables import SAMPLES

KEPT = timedelta(days=7)  # beyond the longest window, so that rare looks find one from before it
BOUND = "le"  # the label of a histogram's bucket: its upper bound


@dataclass(frozen=True)
class Sample:
    """A metric's value at a time; ``labels`` in the order of their names."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    at: datetime
    value: float


def keep(journal: Journal, task: str, samples: Iterable[Sample], rules: Iterable[Rule], now: datetime) -> None:
    """Keep what rules with a window look at, once a time, and forget what is too old for any of them."""
    windows = {name: rule.window for rule in rules if rule.window for name in (_series_name(rule),)}
    rows = [
        {
            "task": task,
            "metric": one.metric,
            "labels": json.dumps(dict(one.labels), ensure_ascii=False),
            "at": one.at,
            "value": one.value,
        }
        for one in samples
        if one.metric in windows
    ]
    oldest = now - max(windows.values(), default=timedelta(0)) - KEPT
    keys = ["task", "metric", "labels", "at"]
    with journal.transaction() as connection:
        if rows:
            connection.execute(journal.insert(SAMPLES).on_conflict_do_nothing(index_elements=keys), rows)
        connection.execute(sql.delete(SAMPLES).where((SAMPLES.c.task == task) & (SAMPLES.c.at < oldest)))


def recall(journal: Journal, task: str, now: datetime) -> tuple[Sample, ...]:
    """Return what was kept before now, in the order of time."""
    query = sql.select(SAMPLES.c.metric, SAMPLES.c.labels, SAMPLES.c.at, SAMPLES.c.value)
    query = query.where((SAMPLES.c.task == task) & (SAMPLES.c.at < now)).order_by(SAMPLES.c.at)
    with journal.transaction() as connection:
        rows = connection.execute(query).all()
    return tuple(Sample(metric, _labels(told), at, value) for metric, told, at, value in rows)


@lru_cache(maxsize=4096)
def _labels(told: str) -> tuple[tuple[str, str], ...]:
    return tuple(json.loads(told).items())


def measure(rule: Rule, present: Iterable[Sample], past: Iterable[Sample], now: datetime) -> float | None:
    """Return the number a rule compares: of several series of the metric the worst; None where there is none to tell.

    As in Prometheus, a series that is not there now and has no window to look back on says nothing.
    """
    name, chosen = _series_name(rule), rule.labels.items()
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for one in (*past, *present):
        if one.metric == name and chosen <= dict(one.labels).items():
            groups.setdefault(one.labels, []).append(one)
    if rule.aggregation == "p95":
        found = _percentile(groups, rule, now)
        return found
    looked = (AGGREGATIONS[rule.aggregation](_within(samples, rule, now), now) for samples in groups.values())
    values = [value for value in looked if value is not None]
    return None if not values else max(values) if rule.comparison == ">" else min(values)


def _last(samples: Sequence[Sample], now: datetime) -> float | None:
    return samples[-1].value if samples and samples[-1].at == now else None


def _least(samples: Sequence[Sample], now: datetime) -> float | None:
    return min((one.value for one in samples), default=None)


def _greatest(samples: Sequence[Sample], now: datetime) -> float | None:
    return max((one.value for one in samples), default=None)


def _increase(samples: Sequence[Sample], now: datetime) -> float | None:
    """Return what a counter has gained; one that fell began anew from zero."""
    if len(samples) < 2:
        return None
    steps = ((before.value, after.value) for before, after in pairwise(samples))
    return sum(after - before if after >= before else after for before, after in steps)


AGGREGATIONS: dict[Aggregation, Callable[[Sequence[Sample], datetime], float | None]] = {
    "last": _last,
    "min": _least,
    "max": _greatest,
    "increase": _increase,
}


def _within(samples: Sequence[Sample], rule: Rule, now: datetime) -> list[Sample]:
    """Return the samples of a rule's window; of what counts up, the newest from before it is where it starts."""
    start = now - rule.window
    inside = [one for one in samples if one.at >= start]
    if rule.aggregation in ("increase", "p95"):
        exact = bool(inside) and inside[0].at == start
        before = [] if exact else [one for one in samples if one.at < start][-1:]
        return [*before, *inside] if before or exact or rule.aggregation == "p95" else []
    return inside


def _percentile(groups: dict[tuple[tuple[str, str], ...], list[Sample]], rule: Rule, now: datetime) -> float | None:
    """Return the 95th percentile as Prometheus' histogram_quantile does: within a bucket evenly spread."""
    buckets: dict[float, float] = {}
    for labels, samples in groups.items():
        gained = _increase(_within(samples, rule, now), now)
        bound = float(dict(labels)[BOUND])
        buckets[bound] = buckets.get(bound, 0.0) + (gained or 0.0)
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    rank, below = 0.95 * total, (0.0, 0.0)
    for bound in bounds:
        if buckets[bound] >= rank:
            break
        below = (bound, buckets[bound])
    if bound == float("inf"):
        return below[0]
    return below[0] + (bound - below[0]) * (rank - below[1]) / (buckets[bound] - below[1])


def _series_name(rule: Rule) -> str:
    return f"{rule.metric}_bucket" if rule.aggregation == "p95" else rule.metric
