"""The service's heartbeats: a row for every slot of fifteen seconds in which it was there, and the uptime they tell.

They are of the real clock, whatever moment the service stands for. Of several services on one journal any will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sql

from forecastle.frame import EPOCH
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tables import SIGNS_OF_LIFE

EVERY = timedelta(seconds=15)


@dataclass(frozen=True)
class Uptime:
    """How many slots between the first heartbeat and the last had one, of how many there are (both ends included)."""

    first: datetime
    last: datetime
    seen: int
    slots: int

    @property
    def share(self) -> float:
        """The share of slots with a heartbeat, 0 to 1."""
        return self.seen / self.slots


def beat(journal: Journal, now: datetime) -> None:
    """Note that the service is there; twice in a slot is once. Rows are only ever added."""
    insert = journal.insert(SIGNS_OF_LIFE).on_conflict_do_nothing(index_elements=["at"])
    with journal.transaction() as connection:
        connection.execute(insert, [{"at": _slot(now)}])


def uptime(journal: Journal, since: datetime | None = None) -> Uptime | None:
    """Return the uptime from the first heartbeat (since a time) to the last; None where there was none.

    What came before the first and after the last is not known: the service may have been stopped on purpose.
    """
    column = SIGNS_OF_LIFE.c.at
    query = sql.select(sql.func.min(column), sql.func.max(column), sql.func.count())
    if since is not None:
        query = query.where(column >= _slot(since))
    with journal.transaction() as connection:
        first, last, seen = connection.execute(query).one()
    return None if not seen else Uptime(first, last, seen, (last - first) // EVERY + 1)


def forget(journal: Journal, before: datetime) -> int:
    """Remove heartbeats from before a time; return how many that were."""
    with journal.transaction() as connection:
        return connection.execute(sql.delete(SIGNS_OF_LIFE).where(SIGNS_OF_LIFE.c.at < before)).rowcount


def _slot(now: datetime) -> datetime:
    return now - (now - EPOCH) % EVERY
