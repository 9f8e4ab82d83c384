"""How far a model's outcomes have moved its intervals, followed once: what no truth changes any more is remembered.

A loop asks this at every pass, of a journal that grows for ever. What lies some days back is followed once a day and
what came of it remembered, so that the end is the one that following all anew has, to the last bit: outcomes count in
the order of their times. It is followed anew where the journal says that outcomes of that time came, went or were
revised since (a late truth, a prune), and for a past ``now``; where that happens, twice as far back counts as open from
then on, up to what a late truth is looked for. Nothing is stored: another process follows for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sql

from forecastle.models.intervals import follow, outcome_weight
from forecastle.monitoring.tables import HEARTBEATS, OUTCOMES

LATEST_TRUTH = timedelta(days=30)  # how long after its time a truth that was given up is still looked for
SETTLED = timedelta(days=1)  # after which most sources' truths seldom come or change; where they do, it is doubled
FORGOTTEN = "forgotten:"  # the heartbeats that count what is there no more, by what it was
Moved = dict[tuple[str, int], float]
"""By series, and horizon or 0 for the series itself: the logarithm of what widths are multiplied by."""


@dataclass(frozen=True)
class _Settled:
    until: datetime
    now: datetime
    seen: tuple[int, ...]
    moved: Moved


@dataclass
class Tallies:
    """What one process remembers of the outcomes of each task and model."""

    settled: dict[tuple[str, str, float], _Settled] = field(default_factory=dict)
    open_for: dict[str, timedelta] = field(default_factory=dict)

    def tally(self, connection: sql.Connection, task: str, model_version: str, now: datetime, coverage: float) -> Moved:
        """Return how far the outcomes scored by ``now`` have moved a model's intervals, which promise a coverage."""
        known = self._settle(connection, task, model_version, now, coverage)
        since, moved = (None, {}) if known is None else (known.until, known.moved)
        return _follow(connection, task, model_version, now, coverage, since, None, moved)

    def _settle(
        self, connection: sql.Connection, task: str, model: str, now: datetime, coverage: float
    ) -> _Settled | None:
        """Return what is settled, up to a day's midnight, after remembering what has newly become so."""
        key = task, model, coverage
        known = self.settled.get(key)
        if known is not None and known.now > now:
            del self.settled[key]
            known = None
        elif known is not None and _seen(connection, task, known.until) != known.seen:
            del self.settled[key]
            known = None
            self.open_for[task] = min(2 * self.open_for.get(task, SETTLED), LATEST_TRUTH + timedelta(days=1))
        until = (now - self.open_for.get(task, SETTLED)).replace(hour=0, minute=0, second=0, microsecond=0)
        since, moved = (None, {}) if known is None else (known.until, known.moved)
        if since is not None and until <= since:
            return known
        seen = _seen(connection, task, until)
        if _rows(connection, task, until, OUTCOMES.c.scored_at > now, since):
            return known
        moved = _follow(connection, task, model, now, coverage, since, until, moved)
        settled = _Settled(until, now, seen, moved)
        self.settled[key] = settled
        return settled


def _seen(connection: sql.Connection, task: str, until: datetime) -> tuple[int, ...]:
    """Return numbers of which one is another when an outcome up to a time came or was revised, or any went."""
    within = _of(task, None, until)
    revised = sql.select(sql.func.sum(OUTCOMES.c.revisions)).where(within & (OUTCOMES.c.revisions > 0))
    went = sql.select(HEARTBEATS.c.count).where(HEARTBEATS.c.task == task, HEARTBEATS.c.work == f"{FORGOTTEN}scored")
    others = (connection.execute(query).scalar() for query in (revised, went))  # each along an index of its own
    return (_rows(connection, task, until), *(int(one or 0) for one in others))


def _rows(
    connection: sql.Connection, task: str, until: datetime, also: Any = True, since: datetime | None = None
) -> int:
    query = sql.select(sql.func.count()).select_from(OUTCOMES).where(_of(task, since, until) & also)
    return int(connection.execute(query).scalar_one())


def _follow(
    connection: sql.Connection,
    task: str,
    model: str,
    now: datetime,
    coverage: float,
    since: datetime | None,
    until: datetime | None,
    before: Moved,
) -> Moved:
    """Return where the outcomes for times from ``since`` up to but without ``until`` move what was moved before."""
    missed = (OUTCOMES.c.actual < OUTCOMES.c.lower) | (OUTCOMES.c.actual > OUTCOMES.c.upper)
    own = _of(task, since, until) & (OUTCOMES.c.model_version == model) & (OUTCOMES.c.scored_at <= now)
    moment = sql.type_coerce(OUTCOMES.c.timestamp, sql.types.NullType)  # compared only: not worth a datetime each
    query = (
        sql.select(moment, OUTCOMES.c.series_id, OUTCOMES.c.horizon, sql.case((missed, 1), else_=0))
        .where(own & OUTCOMES.c.lower.is_not(None) & OUTCOMES.c.upper.is_not(None))
        .order_by(OUTCOMES.c.timestamp, OUTCOMES.c.series_id, OUTCOMES.c.horizon)
    )
    moved = dict(before)
    for (_, series), sharing in groupby(connection.execute(query), itemgetter(0, 1)):
        alike = list(sharing)  # forecasts that share a truth
        weight = float(outcome_weight(len(alike)))
        whole = moved.get((series, 0), 0.0)
        for _, _, step, miss in alike:
            whole, moved[series, step] = follow(whole, moved.get((series, step), 0.0), bool(miss), weight, coverage)
        moved[series, 0] = whole
    return moved


def _of(task: str, since: datetime | None, until: datetime | None) -> Any:
    within = OUTCOMES.c.task == task
    if since is not None:
        within &= OUTCOMES.c.timestamp >= since
    return within if until is None else within & (OUTCOMES.c.timestamp < until)
