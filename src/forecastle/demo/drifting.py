"""A chapter of the demo: a sensor drifts, the alarm is raised, a model is trained for it, and the page shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import polars as pl

from forecastle import pipeline
from forecastle.console import figure
from forecastle.data.faults import in_the_sun
from forecastle.demo.stage import Claim, Stage
from forecastle.frame import SERIES, TIMESTAMP, iso
from forecastle.http import Client, Request
from forecastle.monitoring import retraining
from forecastle.monitoring.journal import OPENED, Incident, Journal

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WARMED = 6.0  # K, at noon
WIDER = 1.1  # times, at least, of a day's intervals beside the others'
MOST_DAYS = 14  # that the alarm may take: the recording ends two days later
ALARM = "concept-drift"
STEPS = (OPENED, retraining.ASKED, retraining.STARTED, retraining.PROMOTED, retraining.KEPT_OUT)


def drift(stage: Stage) -> Iterator[Claim]:
    """Let the sun shine on one airport's sensor from one midnight on: raise the alarm, train for it, show it."""
    victim = stage.task.series[0].id
    stage.warmed_from = _next_midnight(stage.now, stage.task.timezone)
    stage.fault = partial(in_the_sun, since=stage.warmed_from, timezone=stage.task.timezone, kelvin=WARMED)
    until = stage.warmed_from + MOST_DAYS * DAY
    with Journal(stage.settings.journal_url) as journal:
        before, after, incident = _width(journal, stage, victim), math.nan, None
        while stage.now < until and not (incident and after > WIDER * before):
            stage.now += HOUR
            watched = stage.must_run("live")["watch"]
            if stage.now >= stage.warmed_from + DAY and stage.now.hour == stage.warmed_from.hour:
                stage.telling.say(f"   {iso(stage.now)}: RMSE of the day " + _errors(journal, stage))
            if incident is None:
                incident = next((one for one in journal.incidents(stage.task.name, True) if one.kind == ALARM), None)
                if incident is not None:
                    yield _raised(stage, victim, watched["concept_drift"])
            after = _width(journal, stage, victim)
        if incident is None:
            yield _raised(stage, victim, "")
            return
        yield Claim(
            f"the intervals followed within {_warmed_for(stage)} hours: {victim}'s went from {before:.2f} to "
            f"{after:.2f} times as wide as the others'",
            after > WIDER * before,
        )
        yield from _answered(stage, journal, incident)
    with Client(stage.settings) as client:
        page = client.get(Request(f"{stage.address}/")).body.decode()
        told = client.get(Request(f"{stage.address}/v1/incidents")).body.decode()
    yield Claim(
        "the page and the incident log of the service show it", ALARM.replace("-", " ") in page and ALARM in told
    )


def _raised(stage: Stage, victim: str, found: str) -> Claim:
    name, _, since = found.partition(" since ")
    return Claim(
        f"{_warmed_for(stage)} hours after {victim}'s sensor began to be warmed, up to {WARMED:g} K at noon: "
        f"{found or 'no alarm'}",
        name == victim and ";" not in since and datetime.fromisoformat(since) > _begun(stage),
    )


def _warmed_for(stage: Stage) -> int:
    return (stage.now - _begun(stage)) // HOUR


def _begun(stage: Stage) -> datetime:
    assert stage.warmed_from is not None, "the chapter has begun"
    return stage.warmed_from


def _answered(stage: Stage, journal: Journal, incident: Incident) -> Iterator[Claim]:
    """Train because the incident asks for it, as the live loop does, and yield what came of it."""
    ended = list(pipeline.retrain_if_wanted(stage.passage("live")))
    steps = [one for one in journal.incident_steps([incident.number])[incident.number] if one.what in STEPS]
    came, said = steps[-1].what, steps[-1].detail
    yield Claim(
        f"the incident asked for a retrain once, and got it: {came}. {said}",
        [one.what for one in steps[:-1]] == list(STEPS[:3]) and came in STEPS[3:] and ended[-1].error is None,
    )


def _next_midnight(moment: datetime, timezone: str) -> datetime:
    """Return when the next day begins at a place, in UTC."""
    local = moment.astimezone(ZoneInfo(timezone))
    midnight = datetime.combine(local.date() + DAY, datetime.min.time(), local.tzinfo)
    return midnight.astimezone(UTC)


def _width(journal: Journal, stage: Stage, victim: str) -> float:
    """Return how many times as wide as the others' a series' intervals of the last day were."""
    made = journal.forecasts(stage.task.name, stage.now - DAY)
    widths = made.with_columns(width=pl.col("upper") - pl.col("lower"))
    own = pl.col(SERIES) == victim
    found = widths.select(pl.col("width").filter(own).mean() / pl.col("width").filter(~own).mean()).item()
    return math.nan if found is None else float(found)


def _errors(journal: Journal, stage: Stage) -> str:
    """Say how large each series' live errors of the last day were."""
    outcomes = journal.outcomes(stage.task.name, stage.now - DAY, (SERIES, TIMESTAMP, "value", "actual"))
    rmse = (pl.col("value") - pl.col("actual")).pow(2).mean().sqrt()
    rows = outcomes.group_by(SERIES).agg(rmse.alias("rmse")).sort(SERIES).iter_rows()
    return ", ".join(f"{figure(error)} {stage.task.unit} at {name}" for name, error in rows)
