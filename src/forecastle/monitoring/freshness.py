"""How old a task's data is: that of the series furthest behind, so that a dead one among living ones is seen.

Counted are the series in service that have begun, but for those that the gate withholds, which have an incident of
their own. Where a task names its series, one that died counts until the task names it no more: the newest value of each
that is older than the task allows is remembered, in the journal, so that the service sees as far back as the live flow.
Where the source decides which series there are, one that is silent for longer than ``reach`` is taken for gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from forecastle.data.history import History
from forecastle.frame import SERIES, TIMESTAMP, iso
from forecastle.monitoring import verdicts
from forecastle.monitoring.journal import Heartbeat, Journal
from forecastle.task import DAY, Task

BEHIND = "state:behind"  # the heartbeat whose detail is the newest value's time of each series that is behind
WINDOW, LEAST_STEPS = timedelta(days=2), 24


@dataclass(frozen=True)
class Oldest:
    """The series whose newest value is the oldest, and how old that is."""

    series_id: str
    age: timedelta


def bearable(task: Task) -> timedelta:
    """Return the age of data past which nothing is forecast: the season before stands in for a day, or seven steps,
    once the task's limit is passed."""
    return task.patience(task.monitoring.stale_after) + max(DAY, 7 * task.frequency)


def window(task: Task) -> timedelta:
    """Return how much of the past is shown: two days, or 24 steps where those are longer."""
    return max(WINDOW, LEAST_STEPS * task.frequency)


def reach(task: Task) -> timedelta:
    """Return how far before the newest row of all each series' newest value is looked for."""
    return max(window(task), bearable(task))


def newest_of_each(task: Task, rows: pl.DataFrame) -> dict[str, datetime]:
    """Return of rows when the newest value of the target is from, by series; one without any value is left out."""
    values = rows.filter(pl.col(task.target).is_not_null())
    return dict(values.group_by(SERIES).agg(pl.col(TIMESTAMP).max()).iter_rows())


def oldest(journal: Journal, task: Task, newest: Mapping[str, datetime], now: datetime) -> Oldest | None:
    """Return the series that is furthest behind; None where none has any value.

    ``newest`` is what ``newest_of_each`` says of the rows within ``reach``.
    """
    lasts = {**_behind(journal.heartbeats(task.name).get(BEHIND)), **newest}
    if task.series:
        lasts = {name: lasts[name] for name in task.series_ids if name in lasts}
    withheld = verdicts.withheld(journal, task.name)
    counted = {name: last for name, last in lasts.items() if name not in withheld} or lasts
    if not counted:
        return None
    name = min(counted, key=lambda one: (counted[one], one))
    return Oldest(name, task.age(counted[name], now))


def remember(journal: Journal, task: Task, history: History, newest: Mapping[str, datetime], now: datetime) -> None:
    """Remember the newest value's time of every series the task names that is older than it allows, for when it lies
    beyond ``reach``.

    Of one that is silent and of which nothing is remembered, the whole history is asked, once a day at most.
    """
    beat = journal.heartbeats(task.name).get(BEHIND)
    known = _behind(beat)
    unknown = [name for name in task.series_ids if name not in newest and name not in known]
    asks = bool(unknown) and (beat is None or now - beat.at >= DAY)
    if asks:
        extents = history.extent().filter(pl.col(SERIES).is_in(unknown))
        known |= dict(extents.select(SERIES, "last").iter_rows())
    limit = task.patience(task.monitoring.stale_after)
    lasts = {name: last for name, last in {**known, **newest}.items() if name in task.series_ids}
    behind = {name: iso(last) for name, last in sorted(lasts.items()) if task.age(last, now) > limit}
    detail = json.dumps(behind, ensure_ascii=False) if behind else ""
    if asks or detail != ("" if beat is None else beat.detail):
        journal.beat(task.name, BEHIND, now, detail)


def _behind(beat: Heartbeat | None) -> dict[str, datetime]:
    found = json.loads(beat.detail) if beat is not None and beat.detail else {}
    return {name: datetime.fromisoformat(last) for name, last in found.items()}
