"""What the journal tells beside forecasts: incidents, what was done about them, signs of life; and how it is asked.

A pass asks these many times over, so the statements are written once: to write one takes longer than to answer it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql

from forecastle.monitoring.tables import HEARTBEATS, INCIDENTS


@dataclass(frozen=True)
class Incident:
    """One thing that went wrong with a task, from when to when; an open incident has no ``closed_at``."""

    number: int
    task: str
    kind: str
    reason: str
    opened_at: datetime
    closed_at: datetime | None
    note: str


@dataclass(frozen=True)
class IncidentStep:
    """One thing that was done about an incident, and when."""

    at: datetime
    what: str
    detail: str


@dataclass(frozen=True)
class Heartbeat:
    """When a kind of work last succeeded, how often it did, and what it said."""

    task: str
    work: str
    at: datetime
    count: int
    detail: str


OF_TASK = INCIDENTS.c.task == sql.bindparam("of")
ALL = sql.select(*(INCIDENTS.c[name] for name in Incident.__dataclass_fields__)).order_by(
    INCIDENTS.c.opened_at, INCIDENTS.c.number
)
OPEN = ALL.where(INCIDENTS.c.closed_at.is_(None))
CLOSE = (
    sql.update(INCIDENTS)
    .where(OF_TASK, INCIDENTS.c.kind == sql.bindparam("such"), INCIDENTS.c.closed_at.is_(None))
    .values(closed_at=sql.bindparam("now"), note=sql.bindparam("said"))
    .returning(INCIDENTS.c.number)
)
BEATS = (
    sql.select(*(HEARTBEATS.c[name] for name in Heartbeat.__dataclass_fields__))
    .where(HEARTBEATS.c.task == sql.bindparam("of"))
    .order_by(HEARTBEATS.c.work)
)
