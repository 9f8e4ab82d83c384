"""Watching what is served: the last two steps of a live pass, score and watch.

What they find goes into the journal; who acts on it, such as ``pipeline.retrain_if_wanted``, reads it there. Only where
an Airflow is at hand it is asked for the training that is wanted.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from importlib.util import find_spec

import polars as pl

from forecastle.data import roster
from forecastle.delivery import airflow
from forecastle.errors import ForecastleError
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, TIMESTAMP, instant
from forecastle.models import pointer
from forecastle.monitoring import (
    alerts,
    concept,
    freshness,
    incidents,
    metrics,
    outcomes,
    retraining,
    scraping,
    telling,
)
from forecastle.monitoring.tallies import LATEST_TRUTH
from forecastle.run import Run, Summary

LOG = logging.getLogger("forecastle.watch")
AT_WORK = timedelta(hours=6)  # how long before a scoring a collection may have begun whose rows it did not see yet


def score(run: Run) -> Summary:
    """Join every forecast whose time has come with the observation that came true, exactly once; where a truth was
    revised since, score again and say so."""

    def read(start: datetime) -> pl.DataFrame:
        return run.history.read(as_of=run.now, start=start)

    settled = outcomes.settle(run.journal, run.task, read, _revised_since(run), run.now)
    run.journal.beat(run.task.name, "score", run.now)
    return dict(settled)


def watch(run: Run) -> Summary:
    """Measure what is served against what was promised, open and close incidents by the alert rules, tell of them, and
    ask for a retrain where one of them wants it."""
    newest = newest_of(run)
    _measure_rarely(run)
    concept_drift = _concept_drift(run)
    age = None if newest is None else run.task.age(newest, run.now)
    oldest = _oldest(run, newest)
    found = [
        *metrics.readings(run.journal, run.task.name, run.now, None if oldest is None else oldest.age),
        *metrics.outer_readings(run.settings, run.task, run.now),
        *scraping.scrape(run.settings, run.task.name),
    ]
    known = {"concept-drift": f"Of {concept_drift}."}
    if oldest is not None:
        known["data-stale"] = f"Furthest behind is {oldest.series_id}."
    opened, closed = alerts.apply(run.journal, run.task, found, run.now, known)
    firing = alerts.met(run.journal.heartbeats(run.task.name))
    closed += incidents.lapse(run.journal, run.task.name, run.now, firing)
    incidents.lapse(run.journal, incidents.INSTALLATION, run.now)
    asked = retraining.consider(run.journal, run.task, newest, run.now)
    training = _hand_over(run)
    about = (run.task.name, incidents.INSTALLATION)
    told = sum(telling.tell(run.journal, run.settings, name, run.now) for name in about)
    run.journal.beat(run.task.name, "watch", run.now)
    read = {one.metric: one.value for one in found}
    return {
        "drift_ratio": read.get("forecastle_drift_ratio"),
        "data_age_seconds": None if age is None else seconds(age),
        "concept_drift": concept_drift,
        "opened": list(opened),
        "closed": list(closed),
        "told": told,
        "retrain_asked": asked,
        "training": training,
    }


def _hand_over(run: Run) -> str | None:
    """Ask Airflow, where there is one, for the training that incidents want, note and return its run; one that cannot
    be asked now is asked at the next look."""
    if not run.settings.airflow_url or not (numbers := retraining.wanted(run.journal, run.task, run.now)):
        return None
    reason = f"incident {', '.join(map(str, numbers))}"
    begun = retraining.last_begun(run.journal, numbers)
    try:
        if begun is not None and airflow.has_failed(run.settings, run.task.name, begun.partition(" ")[0]):
            retraining.note(run.journal, numbers, retraining.FAILED, begun, run.now)
            return None
        made = airflow.request_retrain(run.settings, run.task.name, reason, run.now)
    except ForecastleError as error:
        LOG.warning("the training that %s wants could not be asked for: %s", reason, error)
        return None
    retraining.begin(run.journal, numbers, f"{made.id} of Airflow: {made.page}", run.now)
    return made.id


def _oldest(run: Run, newest: datetime | None) -> freshness.Oldest | None:
    """Return the series that is furthest behind, and remember those that are for whoever looks less far back."""
    if newest is None:
        return None
    rows = run.history.read(as_of=run.now, start=newest - freshness.reach(run.task))
    lasts = freshness.newest_of_each(run.task, roster.in_service(run.task, rows))
    freshness.remember(run.journal, run.task, run.history, lasts, run.now)
    return freshness.oldest(run.journal, run.task, lasts, run.now)


def newest_of(run: Run) -> datetime | None:
    """Return the newest timestamp of any series of the task that was known now."""
    last = run.history.newest()
    if last is not None and last <= run.now - run.task.knowable_after:
        if not roster.in_service(run.task, run.history.read(start=last)).is_empty():
            return last
    known = roster.in_service(run.task, run.history.read(as_of=run.now))
    found: datetime | None = known[TIMESTAMP].max()  # type: ignore[assignment]
    return found


def seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def _revised_since(run: Run) -> datetime:
    """Return from when on truths are compared with what was scored by: once a day as far as a late truth is looked for,
    else, where collecting reaches back anyway, from the oldest observation that came, changed or settled since."""
    beat = run.journal.heartbeats(run.task.name).get("score")
    if beat is not None and beat.at > run.now:  # as of the past, which knows less than what was scored by since
        return run.now
    if beat is not None and beat.at.date() != run.now.date():
        return run.now - LATEST_TRUTH
    reach = run.now - max(run.task.source.window, run.task.gate.window)
    if beat is None or run.task.grid == "observed":  # where a bar that comes late moves the truths of others
        return reach
    versions = run.history.versions(as_of=run.now, start=reach)
    since = pl.max_horizontal(AVAILABLE_AT, COLLECTED_AT, pl.col(TIMESTAMP) + run.task.settled_after)
    lately = versions.filter(since >= instant(beat.at - AT_WORK))
    oldest: datetime | None = lately[TIMESTAMP].min()  # type: ignore[assignment]
    return run.now if oldest is None else oldest - run.task.frequency


def _concept_drift(run: Run) -> str:
    """Test the live errors of the champion for a change, every few hours, note what was found, and return it."""
    before = run.journal.heartbeats(run.task.name).get(metrics.CONCEPT_DRIFT)
    if before is not None and run.now - before.at < concept.EVERY:
        return before.detail
    current = pointer.published(run.settings, run.task)
    if current is None or not (place := concept.place(run.home, current.version)).exists():
        return ""
    if find_spec("river") is None:
        LOG.warning("the errors are not tested for a change: river is not installed here")
        return ""
    rows = run.journal.outcomes(run.task.name, run.now - concept.WINDOW, concept.COLUMNS)
    rows = rows.filter(pl.col("model_version") == current.version)
    if rows["timestamp"].n_unique() < concept.LEAST:
        return ""
    found = concept.test(run.task, json.loads(place.read_text(encoding="utf-8")), rows)
    run.journal.beat(run.task.name, metrics.CONCEPT_DRIFT, run.now, found)
    return found


def _measure_rarely(run: Run) -> None:
    """Note once a day how many bytes the stores of the task hold."""
    beat = run.journal.heartbeats(run.task.name).get(metrics.STORED)
    if beat is None or beat.at.date() < run.now.date():
        sizes = {name: sum(one.size for one in (run.stores / name).entries()) for name in ("archive", "history")}
        files = [path for path in (run.home / "quarantine").rglob("*") if path.is_file()]
        sizes["quarantine"] = sum(path.stat().st_size for path in files)
        run.journal.beat(run.task.name, metrics.STORED, run.now, json.dumps(sizes))
