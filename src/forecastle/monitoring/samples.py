"""What was measured lately, so that the embedded evaluator can look at a stretch of time as Prometheus does.

Only the metrics of rules with a window are kept, and that there was a look, in the journal, so that looks of different
processes see one past. What was absent at a look is known to have been: Prometheus knows it as stale.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

import sqlalchemy as sql

from forecastle.monitoring.journal import Journal
from forecastle.monitoring.rules import Aggregation, Rule
from forecastle.monitoring.tables import SAMPLES

LOOK = "look"  # the metric of the sample that every look leaves
WHOLE: tuple[Aggregation, ...] = ("min", "increase")  # what speaks of all of its window
BOUND = "le"  # the label of a histogram's bucket: its upper bound


@dataclass(frozen=True)
class Sample:
    """A metric's value at a time; ``labels`` in the order of their names."""

    metric: str
    labels: tuple[tuple[str, str], ...]
    at: datetime
    value: float


def last_look(journal: Journal, task: str) -> datetime | None:
    """Return the time of the newest look that left anything."""
    with journal.transaction() as connection:
        found: datetime | None = connection.execute(
            sql.select(sql.func.max(SAMPLES.c.at)).where(SAMPLES.c.task == task)
        ).scalar()
    return found


def keep(
    journal: Journal, task: str, samples: Iterable[Sample], rules: Iterable[Rule], since: datetime, now: datetime
) -> None:
    """Keep what rules with a window look at, once a time, and forget what is from before ``since``."""
    names = {LOOK, *(_series_name(rule) for rule in rules if rule.window)}
    rows = [
        {
            "task": task,
            "metric": one.metric,
            "labels": json.dumps(dict(one.labels), ensure_ascii=False),
            "at": one.at,
            "value": one.value,
        }
        for one in (Sample(LOOK, (), now, 1.0), *samples)
        if one.metric in names
    ]
    keys = ["task", "metric", "labels", "at"]
    with journal.transaction() as connection:
        connection.execute(journal.insert(SAMPLES).on_conflict_do_nothing(index_elements=keys), rows)
        connection.execute(sql.delete(SAMPLES).where((SAMPLES.c.task == task) & (SAMPLES.c.at < since)))


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
    present, past = tuple(present), tuple(past)
    name, chosen = _series_name(rule), rule.labels.items()
    begin = max((one.at for one in (*past, *present) if one.at <= now - rule.window), default=None)
    groups: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for one in (*past, *present):
        if one.metric == name and chosen <= dict(one.labels).items():
            groups.setdefault(one.labels, []).append(one)
    if rule.aggregation == "p95":
        return _percentile(groups, rule, now)
    looked = (AGGREGATIONS[rule.aggregation](_within(samples, rule, begin, now)) for samples in groups.values())
    values = [value for value in looked if value is not None]
    return None if not values else max(values) if rule.comparison == ">" else min(values)


def _last(samples: Sequence[Sample]) -> float | None:
    return samples[-1].value if samples else None


def _least(samples: Sequence[Sample]) -> float | None:
    return min((one.value for one in samples), default=None)


def _greatest(samples: Sequence[Sample]) -> float | None:
    return max((one.value for one in samples), default=None)


def _increase(samples: Sequence[Sample]) -> float | None:
    """Return what a counter has gained; one that fell began anew from zero."""
    if len(samples) < 2:
        return None
    steps = ((before.value, after.value) for before, after in pairwise(samples))
    return sum(after - before if after >= before else after for before, after in steps)


AGGREGATIONS: dict[Aggregation, Callable[[Sequence[Sample]], float | None]] = {
    "last": _last,
    "min": _least,
    "max": _greatest,
    "increase": _increase,
}


def _within(samples: Sequence[Sample], rule: Rule, begin: datetime | None, now: datetime) -> list[Sample]:
    """Return the samples of a rule's window, as of now for one without; ``begin`` is the newest look at or before the
    window's start.

    What speaks of the whole window begins there, and has none where the series was not seen by that look nor within
    the rule's grace before it; what comes in is counted from the newest sample before the window.
    """
    start = now - rule.window
    if rule.aggregation in WHOLE:
        if begin is None or not any(begin - rule.grace <= one.at <= begin for one in samples):
            return []
        start = begin
    elif rule.aggregation == "p95":
        start = max((one.at for one in samples if one.at <= start), default=start)
    return [one for one in samples if one.at >= start]


def _percentile(groups: dict[tuple[tuple[str, str], ...], list[Sample]], rule: Rule, now: datetime) -> float | None:
    """Return the 95th percentile as Prometheus' histogram_quantile does: within a bucket evenly spread."""
    buckets: dict[float, float] = {}
    for labels, samples in groups.items():
        gained = _increase(_within(samples, rule, None, now))
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
