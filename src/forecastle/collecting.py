"""From where on a run collects, and the past of series that are new to their task or back in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from forecastle.data import ingestion, intake, roster
from forecastle.data.providers import PROVIDERS
from forecastle.errors import GateError, SourceUnavailable
from forecastle.frame import SERIES, TIMESTAMP, read_note, write_json
from forecastle.run import Run
from forecastle.watching import newest_of

BACKFILLED = "backfilled.json"  # in the task's folder: what the first TRAIN has fetched need not be fetched again
ASK_AGAIN = timedelta(days=1)  # after which the past of a new series is asked for again where it could not be had
WELCOME_FAILED = "series-backfill-failed"
CATCH_UP = timedelta(days=7)  # how far a collection reaches back for a series that is behind the others


def collect_from(run: Run) -> datetime:
    """Return where to collect from: the window, reaching back over any gap since the newest row; TRAIN: the start,
    where it never was there. A table of one's own TRAIN always reads whole, for any row of that may have been mended.

    It is decided once a run and noted, so that a run done again, its rows in the history by then, asks the same.
    """
    note = run.folder / "window.json"
    if decided := read_note(note):
        return datetime.fromisoformat(decided["from"])
    start = run.now - max(run.task.source.window, run.task.gate.window)
    if run.flow == "train" and (run.task.source.provider == "file" or backfilled_from(run) > run.task.start):
        start = run.task.start
    elif run.history.newest() is not None and (gap := _oldest_gap(run)) < start:
        start = gap - run.task.gate.window  # what is known already shows whether a series still speaks in one unit
    write_json(note, {"from": start}, flushed=False)
    return start


def welcome(run: Run) -> list[str]:
    """Fetch the past of every series that is new to the task, or back in it; return those whose past is there now.

    Each comes through the gate by itself, so that one whose past cannot be had stops no other: that opens an incident,
    and it is asked for again a day later. Before the first TRAIN, which collects everything, nothing is done.
    """
    if backfilled_from(run) > run.task.start:
        return []
    done: list[str] = []
    failed: dict[str, str] = {}
    absent = roster.missing(run.task, run.home, run.history, run.now)
    for name, series in absent.items():
        if series.tried_at is not None and timedelta(0) <= run.now - series.tried_at < ASK_AGAIN:
            continue
        try:
            if not PROVIDERS[run.task.source.provider].gives_present_only(run.task):
                _backfill_one(run, name, max(series.start - run.task.gate.window, run.task.start))
        except (GateError, SourceUnavailable) as error:
            roster.postpone(run.home, name, run.now)
            failed[name] = str(error)
        else:
            roster.enrol(run.home, [name], run.now)
            done.append(name)
    if failed:
        reason = "; ".join(f"{name}: {said}" for name, said in failed.items())
        run.journal.open_incident(run.task.name, WELCOME_FAILED, reason, run.now)
    elif len(done) == len(absent):
        run.journal.close_incident(run.task.name, WELCOME_FAILED, run.now, "No series lacks its past any more.")
    return done


def _backfill_one(run: Run, name: str, start: datetime) -> None:
    """Collect one series from a time on, or from its first row on, through the gate into the history."""
    one = run.task.model_copy(update={"series": tuple(each for each in run.task.series if each.id == name)})
    archive = ingestion.Archive(run.stores / "archive")
    batch = ingestion.fetch(one, run.settings, run.client, archive, start, run.now, run.now, False, run.clock)
    first: Any = batch.rows.drop_nulls(one.measured.target)[TIMESTAMP].min() or start
    batch = replace(batch, start=first, rows=batch.rows.filter(pl.col(TIMESTAMP) >= first))
    roster.expect(run.home, name, intake.name_of(batch))
    intake.admit(one, run.home, batch, run.now, stores=run.stores)


def backfilled_from(run: Run) -> datetime:
    """Return from where on a TRAIN has collected everything already; now, where none has."""
    note = run.home / BACKFILLED
    return datetime.fromisoformat(json.loads(note.read_bytes())["from"]) if note.exists() else run.now


def _oldest_gap(run: Run) -> datetime:
    """Return the newest row of the series that is furthest behind, at most CATCH_UP before the newest of all.

    So an outage is filled whole, however long. A series that has been silent, or withheld, for longer than the others
    is not asked for with them ever after: it lapses, and what it lacks is fetched for it alone (see ``welcome``).
    """
    earliest = (newest_of(run) or run.now) - CATCH_UP
    recent = run.history.read(as_of=run.now, start=earliest)
    last = dict(recent.group_by(SERIES).agg(pl.col(TIMESTAMP).max()).iter_rows())
    if (newest := run.history.newest()) is not None and newest <= run.now:  # as of the past many were not there yet
        roster.lapse(run.home, [name for name in run.task.series_ids if name not in last], run.now)
    return min((last[name] for name in run.task.series_ids or last if name in last), default=earliest)
