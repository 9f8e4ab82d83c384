"""The page a person looks at: each task's charts and numbers as HTML, from what the board holds in memory.

Everything is drawn here; the only script asks for the board again. Times are shown in the task's own time zone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from markupsafe import Markup

from forecastle import __version__
from forecastle.data.pages import templates
from forecastle.duration import age_text
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.monitoring.freshness import window
from forecastle.serving import panels
from forecastle.serving.chart import Drawing, draw
from forecastle.serving.schemas import HorizonScores, Model, Scores, SeriesForecasts
from forecastle.serving.snapshot import Details, Snapshot
from forecastle.serving.wording import UNKNOWN, clock, day, interval, number, percent, spoken
from forecastle.task import Task

if TYPE_CHECKING:
    from jinja2 import Environment

FRAGMENT = "/fragment"
REFRESH_SECONDS = 15
MOST_SERIES = 24
PAST_ROWS = 48

_SCORES = ("rmse", "mae", "r2", "skill", "coverage")


def board(states: Sequence[tuple[Snapshot, Details]], now: datetime, note: str = "") -> str:
    """Return the part of the page that changes, as HTML, for each task's state, headed by a note if there is one."""
    tasks = [_task(snapshot, details, now, f"t{number}") for number, (snapshot, details) in enumerate(states)]
    return environment().get_template("board.html").render(tasks=tasks, note=note)


def page(board_html: str) -> str:
    """Return the whole page around a board."""
    return (
        environment()
        .get_template("page.html")
        .render(
            board=Markup(board_html),
            etag=etag(board_html),
            fragment=FRAGMENT,
            seconds=REFRESH_SECONDS,
            version=__version__,
        )
    )


def etag(html: str) -> str:
    """Return what names this content, without quotes."""
    return hashlib.sha256(html.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Tile:
    """One figure with its label and a note; ``full`` is shown on hover where the value is shortened."""

    label: str
    value: str
    unit: str
    note: str
    tone: str = ""
    full: str = ""


def decimals(scores: Iterable[Scores | None], observed: pl.Series) -> int:
    """Return how many decimals values are shown with: two digits of the forecasts' error, else of half the spread."""
    errors = [one.rmse for one in scores if one is not None and one.rmse]
    spread = observed.std() if observed.len() else None
    size = errors[0] if errors else spread / 2 if isinstance(spread, float) and spread > 0 else 1.0
    return min(max(1 - math.floor(math.log10(size)), 0), 6)


def _task(snapshot: Snapshot, details: Details, now: datetime, anchor: str) -> dict[str, Any]:
    task = snapshot.task
    places = decimals((snapshot.promise, details.live), snapshot.observed[task.target])
    condition = snapshot.condition(now)
    shown = snapshot.series_ids[:MOST_SERIES]
    first = details.outcomes[TIMESTAMP].min()
    broken = panels.broken(snapshot, details)
    tone, state = _state(details, condition.reason, broken is not None)
    return {
        "anchor": anchor,
        "name": task.name,
        "title": task.name,
        "facts": _facts(task),
        "state": state,
        "status": f"{state} · {clock(now, task)}",
        "tone": tone,
        "warning": f"{condition.reason[0].upper()}{condition.reason[1:]}." if condition.reason else "",
        "unit": task.unit,
        "promise": percent(task.training.coverage),
        "horizon": spoken(task.horizon),
        "window": spoken(window(task)),
        "tiles": _tiles(snapshot, details, now, places, broken),
        "series": [_series(snapshot, details, now, one, f"{anchor}-s{i}", places) for i, one in enumerate(shown)],
        "more": max(len(snapshot.series_ids) - MOST_SERIES, 0),
        "since": f" since {day(first, task)}" if isinstance(first, datetime) else "",
        "scores": _score_rows(task, snapshot.promise, details.live, places),
        "overview": panels.overview(snapshot, details, now),
        "drift": panels.drift(task, details, anchor, places),
        "decisions": [panels.decision(one, task) for one in details.decisions],
        "incidents": [panels.incident(one, task, details.handbook) for one in details.incidents],
    }


def _state(details: Details, reason: str | None, broken: bool) -> tuple[str, str]:
    """Return the colour of a task's light, and its state in words: green is what neither lags, fails nor is off."""
    if reason:
        return "warn", "Degraded"
    unsolved = sum(one.closed_at is None for one in details.incidents)
    but = ["worse than promised"] if broken else []
    but += [f"{unsolved} incident{'s' * (unsolved > 1)} open"] if unsolved else []
    return ("warn", f"Up to date, but {' and '.join(but)}") if but else ("good", "Up to date")


def _facts(task: Task) -> str:
    what = f"{task.description}. " if task.description else ""
    every = "every observed bar" if task.grid == "observed" else f"every {spoken(task.frequency).removeprefix('1 ')}"
    return f"{what}{task.target}, {every}; times in {task.calendar}."


def _tiles(snapshot: Snapshot, details: Details, now: datetime, places: int, broken: float | None) -> list[Tile]:
    task, promise, live = snapshot.task, snapshot.promise or Scores(), details.live or Scores()
    age = snapshot.condition(now).data_age
    newest = max(snapshot.newest.values(), default=None)
    scored = f"{live.n:,} forecasts scored" if live.n else "nothing scored yet"
    stale = age is None or timedelta(seconds=age) > task.patience(task.monitoring.stale_after)
    model = snapshot.model
    missing = "could not be loaded" if snapshot.model_fault else "none promoted yet"
    far = "far above" if broken == math.inf else f"{broken or 0:.1f} times"
    off = f" · this model's {far} its promise" if broken is not None else ""
    return [
        Tile(
            "Live skill over persistence",
            percent(live.skill, 1, signed=True),
            "",
            f"promised {percent(promise.skill, 1, signed=True)} · {scored}",
            "" if live.skill is None else "good" if live.skill > 0 else "poor",
        ),
        Tile(
            "Live RMSE",
            number(live.rmse, places + 1),
            task.unit,
            f"promised {number(promise.rmse, places + 1)}{off}",
            "warn" if off else "",
        ),
        Tile(
            "Live interval coverage",
            percent(live.coverage, 1),
            "",
            f"promised {percent(task.training.coverage)} · back-test {percent(promise.coverage, 1)}",
            "warn" if panels.misses(live.coverage, task) else "",
        ),
        Tile(
            "Data age",
            UNKNOWN if age is None else age_text(timedelta(seconds=age)),
            "",
            "nothing collected lately" if newest is None else f"newest value {clock(newest, task, now)}",
            "warn" if stale else "",
        ),
        Tile(
            "Model",
            UNKNOWN if model is None else f"v{model.version}" if model.version.isdigit() else model.version,
            "",
            missing if model is None else _made(model, task),
            "warn" if model is not None and model.task_changed else "",
        ),
        Tile(
            "Data version",
            UNKNOWN if model is None else model.data_version[:8],
            "",
            "none yet" if model is None else "what the model was trained on",
            full="" if model is None else model.data_version,
        ),
    ]


def _made(model: Model, task: Task) -> str:
    changed = " · the task has changed since" if model.task_changed else ""
    return f"{model.estimator}, made {day(model.created_at, task)}{changed}"


def _series(
    snapshot: Snapshot, details: Details, now: datetime, series_id: str, anchor: str, places: int
) -> dict[str, Any]:
    task, answer = snapshot.task, snapshot.shown(series_id, now)
    rows = snapshot.observed.filter(pl.col(SERIES) == series_id)
    observed = list(rows.select(TIMESTAMP, task.target).iter_rows())
    past = _past(task, details.outcomes, series_id, now - window(task))
    last = next(((at, value) for at, value in reversed(observed) if value is not None), None)
    ahead = next((one for one in reversed(answer.forecasts) if one.timestamp > now), None)
    own, whole = snapshot.condition(now, series_id).reason, snapshot.condition(now).reason
    drawing = _drawing(task, series_id, now, observed, answer, past, snapshot.forecasts, places)
    return {
        "anchor": anchor,
        "name": series_id,
        "value": number(last[1] if last else None, places),
        "measured": f"measured {clock(last[0], task, now)}" if last else "nothing measured lately",
        "expected": number(ahead.value if ahead else None, places),
        "ahead": f"expected {clock(ahead.timestamp, task)}" if ahead else "no forecast ahead",
        "warning": f"{own[0].upper()}{own[1:]}." if own and own != whole else "",
        "untrained": _stand_in(answer),
        "chart": draw(drawing, anchor) if _shows_something(drawing) else None,
        "origin": clock(answer.origin, task) if answer.origin else "no origin yet",
        "forecasts": [
            {
                "time": clock(one.timestamp, task),
                "value": number(one.value, places),
                "interval": interval(one.lower, one.upper, places),
                "id": one.forecast_id,
            }
            for one in answer.forecasts
        ],
        "past": [_past_row(task, row, places) for row in past[: -PAST_ROWS - 1 : -1]],
    }


def _stand_in(answer: SeriesForecasts) -> str:
    """Say by what a series is forecast that no model has learnt yet; nothing where one has."""
    if answer.trained is not False or answer.estimator is None:
        return ""
    return f"Forecast by {answer.estimator.replace('_', ' ')} until a model is trained on this series."


def _past(task: Task, outcomes: pl.DataFrame, series_id: str, start: datetime) -> list[dict[str, Any]]:
    """Return the outcomes of the forecasts made a whole horizon ahead; of two for one time, the one issued last."""
    ours = outcomes.filter(
        (pl.col(SERIES) == series_id) & (pl.col("horizon") == task.steps) & (pl.col(TIMESTAMP) >= start)
    )
    return ours.sort(TIMESTAMP, "issued_at").unique(TIMESTAMP, keep="last", maintain_order=True).to_dicts()


def _past_row(task: Task, row: Mapping[str, Any], places: int) -> dict[str, Any]:
    error = None if row["value"] is None else row["value"] - row["actual"]
    sign = "+" if error is not None and round(error, places) > 0 else ""
    return {
        "time": clock(row[TIMESTAMP], task),
        "value": number(row["value"], places),
        "interval": interval(row["lower"], row["upper"], places),
        "actual": number(row["actual"], places),
        "inside": _inside(row),
        "error": f"{sign}{number(error, places)}",
        "id": row["forecast_id"],
    }


def _shows_something(drawing: Drawing) -> bool:
    measured = any(value is not None for _, value in drawing.observed)
    return measured or bool(drawing.forecast) or bool(drawing.promised)


def _inside(row: Mapping[str, Any]) -> bool | None:
    if row["lower"] is None or row["upper"] is None:
        return None
    return bool(row["lower"] <= row["actual"] <= row["upper"])


def _drawing(
    task: Task,
    series_id: str,
    now: datetime,
    observed: Sequence[tuple[datetime, float | None]],
    answer: SeriesForecasts,
    past: Sequence[Mapping[str, Any]],
    forecasts: pl.DataFrame,
    places: int,
) -> Drawing:
    start = now - window(task)
    steps = answer.forecasts
    points = [(one.timestamp, one.value) for one in steps]
    band = [(one.timestamp, one.lower, one.upper) for one in steps]
    last = forecasts.filter(pl.col(SERIES) == series_id)["last"].to_list()
    if steps and answer.origin is not None and last[0] is not None:
        points.insert(0, (answer.origin, last[0]))
        band.insert(0, (answer.origin, last[0], last[0]))
    end = max([now, *(moment for moment, _ in points)])
    inside = [point for point in observed if start <= point[0] <= end]
    known = [value for _, value in inside if value is not None]
    measured = (
        f"Measured between {number(min(known), places)} and {number(max(known), places)} {task.unit}, "
        f"last {number(known[-1], places)}."
        if known
        else "Nothing was measured."
    )
    expected = (
        f" Expected {clock(steps[-1].timestamp, task)}: {number(steps[-1].value, places)} {task.unit}, "
        f"interval {interval(steps[-1].lower, steps[-1].upper, places)}."
        if steps
        else " No forecast yet."
    )
    return Drawing(
        title=f"{series_id}: {task.target} from {clock(start, task)} to {clock(end, task)}",
        description=measured + expected,
        zone=task.zone,
        unit=task.unit,
        step=task.frequency,
        now=now,
        start=start,
        end=end,
        observed=inside,
        forecast=[point for point in points if point[0] >= start],
        band=[interval for interval in band if interval[0] >= start],
        promised=[(row[TIMESTAMP], row["value"]) for row in past],
        promised_band=[(row[TIMESTAMP], row["lower"], row["upper"]) for row in past],
        missed=[(row[TIMESTAMP], row["actual"]) for row in past if _inside(row) is False],
    )


def _score_rows(task: Task, promise: Scores | None, live: Scores | None, places: int) -> list[dict[str, Any]]:
    if promise is None and live is None:
        return []
    promised = {one.horizon: one for one in promise.horizons} if promise else {}
    delivered = {one.horizon: one for one in live.horizons} if live else {}
    steps = sorted({*promised, *delivered})
    rows = [
        {
            "ahead": spoken(step * task.frequency) if task.grid == "regular" else f"{step} bars",
            "pooled": False,
            "pairs": _pairs(task, promised.get(step), delivered.get(step), places),
        }
        for step in steps
    ]
    return [*rows, {"ahead": "all", "pooled": True, "pairs": _pairs(task, promise, live, places)}]


def _pairs(
    task: Task, promise: Scores | HorizonScores | None, live: Scores | HorizonScores | None, places: int
) -> list[dict[str, Any]]:
    def text(name: str, scores: Scores | HorizonScores | None) -> str:
        value = getattr(scores, name) if scores is not None else None
        if name == "skill":
            return percent(value, 1, signed=True)
        return percent(value, 1) if name == "coverage" else number(value, 3 if name == "r2" else places + 1)

    good = {
        "skill": None if live is None or live.skill is None else live.skill > 0,
        "coverage": False if live is not None and panels.misses(live.coverage, task) else None,
    }
    return [{"promised": text(name, promise), "live": text(name, live), "good": good.get(name)} for name in _SCORES]


@cache
def environment() -> Environment:
    """Return the templates, which escape whatever they are given."""
    return templates(Path(__file__).parent / "templates")
