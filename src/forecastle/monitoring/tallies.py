"""How often a model's intervals were missed, counted once: what no truth changes any more is remembered.

A loop asks this at every pass, of a journal that grows for ever. What lies further back than a late truth is looked for
is counted once a day and remembered as whole numbers, so that the sum is the one that counting all anew gives, to
the last bit. It is counted anew where the journal holds another number of outcomes of that time than then (a truth
that came in after all, a prune), and for a past ``now``. Nothing is stored: another process counts for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sql

from forecastle.models.intervals import outcome_weight
from forecastle.monitoring.tables import OUTCOMES

LATEST_TRUTH = timedelta(days=30)  # how long after its time a truth that was given up is still looked for
Counts = dict[tuple[str, int, int], tuple[int, int]]
"""By series, horizon and how many forecasts share a truth: how many outcomes, and how many of them missed."""


@dataclass(frozen=True)
class _Settled:
    until: datetime
    now: datetime
    rows: int
    counts: Counts


@dataclass
class Tallies:
    """What one process remembers of the outcomes of each task and model."""

    settled: dict[tuple[str, str], _Settled] = field(default_factory=dict)

    def tally(
        self, connection: sql.Connection, task: str, model_version: str, now: datetime
    ) -> dict[tuple[str, int], tuple[float, float]]:
        """Return, by series and horizon, how many outcomes scored by ``now`` a model's intervals have, and missed."""
        known = self._settle(connection, task, model_version, now)
        since, counts = (None, {}) if known is None else (known.until, known.counts)
        found: dict[tuple[str, int], tuple[float, float]] = {}
        for (series, step, alike), (count, misses) in sorted(
            _sum(counts, _count(connection, task, model_version, now, since, None)).items()
        ):
            weight, before = float(outcome_weight(alike)), found.get((series, step), (0.0, 0.0))
            found[series, step] = (before[0] + weight * count, before[1] + weight * misses)
        return found

    def _settle(self, connection: sql.Connection, task: str, model: str, now: datetime) -> _Settled | None:
        """Return what is settled, up to a day's midnight, after remembering what has newly become so."""
        known = self.settled.get((task, model))
        if known is not None and (known.now > now or _rows(connection, task, known.until) != known.rows):
            del self.settled[task, model]
            known = None
        until = (now - LATEST_TRUTH - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        since = known.until if known is not None else None
        if since is not None and until <= since:
            return known
        rows = _rows(connection, task, until)
        if _rows(connection, task, until, OUTCOMES.c.scored_at > now, since):
            return known
        new = _count(connection, task, model, now, since, until)
        settled = _Settled(until, now, rows, _sum(known.counts if known is not None else {}, new))
        self.settled[task, model] = settled
        return settled


def _rows(
    connection: sql.Connection, task: str, until: datetime, also: Any = True, since: datetime | None = None
) -> int:
    query = sql.select(sql.func.count()).select_from(OUTCOMES).where(_of(task, since, until) & also)
    return int(connection.execute(query).scalar_one())


def _count(
    connection: sql.Connection, task: str, model: str, now: datetime, since: datetime | None, until: datetime | None
) -> Counts:
    """Count the outcomes for times from ``since`` up to but without ``until``; those that share a truth share its
    time, so that parts add up."""
    missed = (OUTCOMES.c.actual < OUTCOMES.c.lower) | (OUTCOMES.c.actual > OUTCOMES.c.upper)
    shared = sql.func.count().over(partition_by=(OUTCOMES.c.timestamp, OUTCOMES.c.series_id))
    own = _of(task, since, until) & (OUTCOMES.c.model_version == model) & (OUTCOMES.c.scored_at <= now)
    columns = (OUTCOMES.c.series_id, OUTCOMES.c.horizon, shared.label("shared"))
    each = (
        sql.select(*columns, sql.case((missed, 1), else_=0).label("missed"))
        .where(own & OUTCOMES.c.lower.is_not(None) & OUTCOMES.c.upper.is_not(None))
        .subquery()
    )
    cell = (each.c.series_id, each.c.horizon, each.c.shared)
    rows = connection.execute(sql.select(*cell, sql.func.count(), sql.func.sum(each.c.missed)).group_by(*cell))
    return {(series, step, alike): (int(count), int(misses)) for series, step, alike, count, misses in rows}


def _of(task: str, since: datetime | None, until: datetime | None) -> Any:
    within = OUTCOMES.c.task == task
    if since is not None:
        within &= OUTCOMES.c.timestamp >= since
    return within if until is None else within & (OUTCOMES.c.timestamp < until)


def _sum(one: Counts, other: Counts) -> Counts:
    cells = one.keys() | other.keys()
    pairs = {cell: (one.get(cell, (0, 0)), other.get(cell, (0, 0))) for cell in cells}
    return {cell: (first[0] + second[0], first[1] + second[1]) for cell, (first, second) in pairs.items()}
