"""What the page says beside the series' charts: all tasks at a glance, drift, decisions about models, incidents."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from markupsafe import Markup

from forecastle.duration import DAY, age_text
from forecastle.frame import TIMESTAMP
from forecastle.models.audit import Event
from forecastle.models.untrained import of_models
from forecastle.monitoring.drift import MINIMUM, WINDOW
from forecastle.monitoring.journal import Incident
from forecastle.serving.chart import Drawing, Point, draw
from forecastle.serving.schemas import Scores
from forecastle.serving.snapshot import Details, Snapshot
from forecastle.serving.wording import UNKNOWN, clock, day, number, percent
from forecastle.task import Task

ISO = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
SHORT = 160  # letters of an incident's reason that are shown at once
FEWEST_DAYS = 3  # a line through fewer says nothing
DAY_TICKS = 4  # of that line's axis, which is narrow
BROKEN = 1.5  # times the promised RMSE: from there on the page says that the promise is not kept
FULL = 2.5  # of the alarm's limit: where the bar that shows the drift ratio ends

# of a decision about a version: what is said, and in which tone
DECISIONS = {
    "promote": ("promoted", "good"),
    "keep": ("kept out", ""),
    "reject": ("rejected", "poor"),
    "rollback": ("rolled back to", "warn"),
    "sync": ("taken up again", ""),
}


def overview(snapshot: Snapshot, details: Details, now: datetime) -> list[dict[str, str]]:
    """Return a task's few figures for the list of all tasks: label, value, tone."""
    live = details.live or Scores()
    age = snapshot.condition(now).data_age
    unsolved = sum(one.closed_at is None for one in details.incidents)
    limit = snapshot.task.monitoring.drift_ratio
    coverage_off = misses(live.coverage, snapshot.task)
    return [
        {"label": "Skill", "value": percent(live.skill, 0, signed=True), "tone": _sign(live.skill)},
        {"label": "Coverage", "value": percent(live.coverage), "tone": "warn" if coverage_off else ""},
        {"label": "Drift", "value": percent(details.drift_ratio), "tone": _over(details.drift_ratio, limit)},
        {"label": "Data age", "value": UNKNOWN if age is None else age_text(timedelta(seconds=age)), "tone": ""},
        {"label": "Incidents", "value": str(unsolved), "tone": "poor" if unsolved else ""},
    ]


def misses(coverage: float | None, task: Task) -> bool:
    """Tell whether the intervals hold far fewer or far more truths than promised (for 90 %: outside 80 to 97 %)."""
    promised = task.training.coverage
    return coverage is not None and not promised - 0.1 <= coverage <= promised + 0.7 * (1 - promised)


def broken(snapshot: Snapshot, details: Details) -> float | None:
    """Return how many times its promise the error of the model that serves is, where that is too many.

    RMSE against what the back-test promised of the same horizons. None where it is not, or nobody can tell yet: before
    a day, and so many outcomes as drift is measured on, have come true.
    """
    model, promise = snapshot.model, snapshot.promise
    if model is None or promise is None:
        return None
    promised = {one.horizon: one.rmse**2 for one in promise.horizons if one.rmse is not None}
    own = details.outcomes.filter(pl.col("model_version") == model.version, pl.col("horizon").is_in(list(promised)))
    own = own.drop_nulls(["actual", "value"])
    if own.height < MINIMUM or own[TIMESTAMP].max() - own[TIMESTAMP].min() < DAY:  # type: ignore[operator]
        return None
    delivered = float(((own["value"] - own["actual"]) ** 2).mean())  # type: ignore[arg-type]
    expected = float(own["horizon"].replace_strict(promised, return_dtype=pl.Float64).mean())  # type: ignore[arg-type]
    if delivered < BROKEN**2 * expected or delivered == 0:
        return None
    return math.sqrt(delivered / expected) if expected else math.inf


def _local(told: str, task: Task) -> str:
    """Return what was found of errors with its times in the task's own zone."""
    return ISO.sub(lambda found: clock(datetime.fromisoformat(found.group()), task), told)


def drift(task: Task, details: Details, anchor: str, places: int) -> dict[str, Any]:
    """Return what is said of drift: the features against the limit, the errors against the back-test's, day by day."""
    ratio, limit = details.drift_ratio, task.monitoring.drift_ratio
    changed = details.errors_changed
    if changed is None:
        errors = "Not tested yet: there are too few outcomes of the model that serves."
    else:
        errors = f"Changed: {_local(changed, task)}." if changed else "As in the back-test."
    return {
        "ratio": percent(ratio, 1),
        "tone": _over(ratio, limit),
        "share": None if ratio is None else f"{100 * min(ratio / (FULL * limit), 1.0):.1f}",
        "limit_at": f"{100 / FULL:.1f}",
        "limit": percent(limit),
        "about": (
            f"of the newest predictions, at most {WINDOW}, rest on values training never held; the limit is"
            f" {percent(limit)}."
            if ratio is not None
            else f"There are fewer than {MINIMUM} predictions of the model that serves."
        ),
        "errors": errors,
        "errors_tone": "" if changed is None else "poor" if changed else "good",
        "chart": _days(task, of_models(details.outcomes), f"{anchor}-days", places),
    }


def decision(event: Event, task: Task) -> dict[str, str]:
    """Return one decision about a version, as the page says it."""
    said, tone = DECISIONS[event.action]
    return {
        "version": f"v{event.version}" if event.version.isdigit() else event.version,
        "said": said,
        "tone": tone,
        "when": clock(event.at, task),
        "by": event.by,
        "why": event.why,
    }


def incident(one: Incident, task: Task, handbook: str = "") -> dict[str, Any]:
    """Return one incident; of a long reason the beginning and the rest. A handbook in the web is linked to."""
    until = f" to {clock(one.closed_at, task)}" if one.closed_at else ""
    reason = f"{one.reason} {one.note}".strip()
    cut = len(reason) if len(reason) <= SHORT else reason.rfind(" ", 0, SHORT)
    cut = cut if cut > 0 else SHORT
    return {
        "number": one.number,
        "kind": one.kind.replace("-", " ").replace("_", " "),
        "open": one.closed_at is None,
        "when": f"{clock(one.opened_at, task)}{until}",
        "reason": reason[:cut],
        "rest": reason[cut:].strip(),
        "link": f"{handbook}#{one.kind}" if handbook.startswith(("http://", "https://")) else "",
    }


def _days(task: Task, outcomes: pl.DataFrame, name: str, places: int) -> Markup | None:
    """Draw the RMSE of each local day beside that of the last value repeated; None where there are too few days."""
    error, naive = pl.col("value") - pl.col("actual"), pl.col("last") - pl.col("actual")
    local = pl.col(TIMESTAMP).dt.convert_time_zone(task.calendar).dt.truncate("1d")
    days = (
        outcomes.drop_nulls(["actual", "value", "last"])
        .group_by(local.dt.convert_time_zone("UTC").alias("day"))
        .agg((error**2).mean().sqrt().alias("rmse"), (naive**2).mean().sqrt().alias("naive"))
        .sort("day")
    )
    if days.height < FEWEST_DAYS:
        return None
    ours: list[Point] = list(days.select("day", "rmse").iter_rows())
    theirs: list[Point] = list(days.select("day", "naive").iter_rows())
    start, end = ours[0][0], ours[-1][0]
    worse = sum((one or 0) > (other or 0) for (_, one), (_, other) in zip(ours, theirs, strict=True))
    drawing = Drawing(
        title=f"RMSE day by day from {day(start, task)} to {day(end, task)}",
        description=f"The last day's is {number(ours[-1][1], places + 1)} {task.unit}, that of the last value repeated "
        f"{number(theirs[-1][1], places + 1)}; on {worse} of {len(ours)} days the forecasts were the worse ones.",
        zone=task.zone,
        unit=task.unit,
        step=timedelta(days=1),
        now=end + timedelta(days=1),
        start=start,
        end=end,
        observed=ours,
        promised=theirs,
        most_ticks=DAY_TICKS,
    )
    return draw(drawing, name)


def _sign(skill: float | None) -> str:
    return "" if skill is None else "good" if skill > 0 else "poor"


def _over(ratio: float | None, limit: float) -> str:
    return "" if ratio is None else "poor" if ratio > limit else "good"
