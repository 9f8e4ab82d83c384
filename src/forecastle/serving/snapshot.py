"""What is known of one task at one time, and how far an answer made of it can be relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

from forecastle.duration import age_text
from forecastle.errors import DataTooOld
from forecastle.frame import SERIES
from forecastle.models.audit import Event
from forecastle.models.untrained import UNTRAINED
from forecastle.monitoring.freshness import bearable, newest_of_each
from forecastle.monitoring.journal import Incident
from forecastle.serving.schemas import Forecast, Model, Scores, SeriesForecasts
from forecastle.task import Task

_UNKNOWN = b'"data_age":null,"degraded":false,"degraded_reason":null'


Staleness = Literal["fine", "stale", "lost"]


@dataclass(frozen=True)
class Condition:
    """How far an answer can be relied on now: the age of its data in seconds, and why it is degraded if it is."""

    data_age: int | None
    reason: str | None

    @property
    def fields(self) -> dict[str, Any]:
        """The three fields that every answer carries."""
        return {"data_age": self.data_age, "degraded": self.reason is not None, "degraded_reason": self.reason}


@dataclass(frozen=True)
class Snapshot:
    """One task's state, built by ``build``.

    ``observed`` holds series_id, timestamp and the target of the newest two days (24 steps, or what can be borne, where
    that is longer); ``newest`` is each series' last timestamp there with a value. ``forecasts`` are the journal's
    current ones.
    """

    task: Task
    model: Model | None
    promise: Scores | None
    model_fault: str | None
    observed: pl.DataFrame
    newest: Mapping[str, datetime]
    forecasts: pl.DataFrame
    answers: Mapping[str, SeriesForecasts]
    bodies: Mapping[str, tuple[bytes, bytes]]
    fault: str | None = None

    @property
    def series_ids(self) -> tuple[str, ...]:
        """The series this task answers for: those it names, else those that were seen."""
        return tuple(self.answers)

    def condition(self, now: datetime, series_id: str | None = None) -> Condition:
        """Return the condition of a series' answer, or of the whole task's."""
        task = self.task
        newest = self.newest.get(series_id) if series_id is not None else max(self.newest.values(), default=None)
        age = None if newest is None else task.age(newest, now)
        reasons = [reason for reason in (self.fault, self.model_fault) if reason]
        if self.model is None and self.model_fault is None:
            reasons.append("no model has been promoted yet")
        if age is None:
            reasons.append("no value has been collected lately")
        elif age > (patience := task.patience(task.monitoring.stale_after)):
            limit = age_text(patience)
            reasons.append(f"the newest value is {age_text(age)} old, and {limit} is the task's limit")
        elif age > task.patience(timedelta(0)):
            reasons.append(f"the newest value is {age_text(age)} old, and a newer one is overdue")
        last = self._last_target(series_id)
        if last is None:
            reasons.append("no forecast has been made yet")
        elif last <= now:
            reasons.append("every time that was forecast has passed")
        return Condition(None if age is None else int(age.total_seconds()), "; ".join(reasons) or None)

    def staleness(self, series_id: str, now: datetime) -> Staleness:
        """Tell what the age of a series' data allows: the model's forecasts, one that stands in for them, or none.

        Where the grid is that of the observed bars nobody knows when one is due: there it is always the first.
        """
        task, newest = self.task, self.newest.get(series_id)
        if task.grid != "regular" or self.model is None:
            return "fine"
        if newest is None:  # silent for longer than can be borne, or never heard of: then nothing was forecast either
            return "fine" if self._last_target(series_id) is None else "lost"
        age = task.age(newest, now)
        if age <= task.patience(task.monitoring.stale_after):
            return "fine"
        return "stale" if age <= bearable(task) else "lost"

    def too_old(self, series_id: str, now: datetime) -> DataTooOld:
        """Return the error that says so of a series."""
        task, newest = self.task, self.newest.get(series_id)
        found = "none lately" if newest is None else f"one that is {age_text(task.age(newest, now))} old"
        wait = min(max(int(task.frequency.total_seconds()), 10), 3600)
        return DataTooOld(
            f"a value of {series_id!r} not older than {age_text(bearable(task))}",
            found,
            "See why none is collected: GET /v1/incidents, and the gate's last report.",
            wait,
        )

    def body(self, series_id: str, now: datetime) -> bytes:
        """Return a series' answer as JSON; only the fields that change with the clock are written anew."""
        before, after = self.bodies[series_id]
        condition = self.condition(now, series_id)
        if condition.reason is None and condition.data_age is not None:
            return b'%b"data_age":%d,"degraded":false,"degraded_reason":null%b' % (before, condition.data_age, after)
        return self.answers[series_id].model_copy(update=condition.fields).model_dump_json().encode()

    def shown(self, series_id: str, now: datetime) -> SeriesForecasts:
        """Return a series' answer, without its forecasts where they rest on data too old for any."""
        answer = self.answers[series_id]
        return answer.model_copy(update={"forecasts": ()}) if self.staleness(series_id, now) == "lost" else answer

    def without_forecasts(self, series_id: str, now: datetime) -> bytes:
        """Return a series' answer as JSON without its forecasts, which are too old to be shown."""
        fields = self.condition(now, series_id).fields | {"forecasts": ()}
        return self.answers[series_id].model_copy(update=fields).model_dump_json().encode()

    def _last_target(self, series_id: str | None) -> datetime | None:
        chosen = self.answers.values() if series_id is None else [self.answers[series_id]]
        return max((answer.forecasts[-1].timestamp for answer in chosen if answer.forecasts), default=None)


@dataclass(frozen=True)
class Details:
    """What came of a task's forecasts: outcomes since a time, their live scores, and the incidents, newest first.

    ``drift_ratio`` is None while there are too few predictions, ``errors_changed`` while errors were not tested yet,
    else the series whose errors have changed (empty: none). ``decisions`` on what serves are the newest first,
    ``handbook`` is where it is published what to do about incidents.
    """

    since: datetime
    outcomes: pl.DataFrame
    live: Scores | None
    incidents: tuple[Incident, ...]
    drift_ratio: float | None = None
    errors_changed: str | None = None
    decisions: tuple[Event, ...] = ()
    handbook: str = ""


def build(
    task: Task,
    model: Model | None,
    promise: Scores | None,
    model_fault: str | None,
    observed: pl.DataFrame,
    forecasts: pl.DataFrame,
) -> Snapshot:
    """Build a snapshot from what was read; every series' answer is serialised here, once."""
    newest = newest_of_each(task, observed)
    answers = _answers(task, forecasts, newest)
    halves = {name: answer.model_dump_json().encode().split(_UNKNOWN, 1) for name, answer in answers.items()}
    return Snapshot(
        task=task,
        model=model,
        promise=promise,
        model_fault=model_fault,
        observed=observed,
        newest=newest,
        forecasts=forecasts,
        answers=answers,
        bodies={name: (before, after) for name, (before, after) in halves.items()},
    )


def _answers(task: Task, forecasts: pl.DataFrame, newest: Mapping[str, datetime]) -> dict[str, SeriesForecasts]:
    """Return an answer for every series the task names, else for those seen; one may be without forecasts."""
    made: dict[str, list[dict[str, Any]]] = {}
    for row in forecasts.sort(SERIES, "horizon").iter_rows(named=True):
        made.setdefault(row[SERIES], []).append(row)
    return {
        series_id: _answer(task, series_id, made.get(series_id, []))
        for series_id in task.series_ids or sorted({*newest, *made})
    }


def _answer(task: Task, series_id: str, rows: Sequence[Mapping[str, Any]]) -> SeriesForecasts:
    head: Mapping[str, Any] = rows[0] if rows else {}
    return SeriesForecasts(
        task=task.name,
        series_id=series_id,
        target=task.target,
        unit=task.unit,
        data_age=None,
        degraded=False,
        degraded_reason=None,
        origin=head.get("origin"),
        issued_at=head.get("issued_at"),
        model_version=head.get("model_version"),
        data_version=head.get("data_version") or None,
        estimator=head.get("estimator"),
        trained=head["model_version"] != UNTRAINED if head else None,
        forecasts=tuple(Forecast(**{name: row[name] for name in Forecast.model_fields}) for row in rows),
    )
