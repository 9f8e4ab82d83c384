"""Alpha Vantage: intraday bars of a stock, a month a call (https://www.alphavantage.co/documentation/#intraday).

Bars are named by their start in New York's time, newest first, as traded (not adjusted for splits that came later) and
in regular hours only. Errors, spent limits included, come with HTTP 200 and may quote the key; the client has hidden
it before anything here sees the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from forecastle.data.providers.answers import COMPARE, Row, check_member, read_json, read_time, to_table
from forecastle.data.providers.pieces import months
from forecastle.errors import AnswerChanged, SourceUnavailable, TaskError
from forecastle.frame import iso
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task, duration_text, nearest

EASTERN = ZoneInfo("America/New_York")
FIRST_MONTH = (2000, 1)
TRAILING = timedelta(days=29)
"""How far back a call reaches that names no month; the API says thirty days."""

INTERVALS = {timedelta(minutes=minutes): f"{minutes}min" for minutes in (1, 5, 15, 30, 60)}
COLUMNS = ("open", "high", "low", "close", "volume")

_ZONES = ("US/Eastern", "America/New_York")
_PREMIUM = re.compile(r"premium endpoint|premium feature", re.IGNORECASE)
_LIMIT = re.compile(r"rate limit|call frequency|requests? per|per (second|minute|day)", re.IGNORECASE)


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return a call for each series and each month (New York's) from start to end.

    A window over the turn of a month that the trailing thirty days hold is one call for those: a day's calls are few.
    Raises TaskError for a column or a step the API does not have, SettingsError without a key.
    """
    _check_task(task)
    asked = {
        "function": "TIME_SERIES_INTRADAY",
        "interval": INTERVALS[task.source_step],
        "outputsize": "full",
        "adjusted": "false",
        "extended_hours": "false",
        "apikey": settings.secret("alpha_vantage_key"),
    }
    asked_for = [{"month": month} for month in _months(start, min(end, now))]
    if len(asked_for) == 2 and start > now - TRAILING:
        asked_for = [{}]
    return tuple(
        Request(
            f"{settings.alpha_vantage_url}/query",
            {**asked, "symbol": series.asked, **month},
            frozenset({"apikey"}),
            (series.id,),
        )
        for series in task.series
        for month in asked_for
    )


def pieces(start: datetime, end: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut a past into New York's months: what a call answers."""
    return months(start, end, EASTERN)


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Return the bars of one answer.

    Raises SourceUnavailable for an empty answer or a spent limit, AnswerChanged for any other error and for what is not
    the documented layout: another symbol, another zone, no bars, text for numbers.
    """
    answer = read_json(request, body)
    if answer == {}:
        raise SourceUnavailable(f"bars from {request.source}", "an empty object", "Ask again later.")
    _check_error(request, answer)
    meta = check_member(answer, "Meta Data", "the answer", request)
    _check_meta(request, "2. Symbol", meta, (request.params["symbol"],))
    _check_meta(request, "6. Time Zone", meta, _ZONES)
    bars = check_member(answer, f"Time Series ({request.params['interval']})", "the answer", request)
    if not isinstance(bars, dict):
        raise AnswerChanged(f"bars by their times from {request.source}", type(bars).__name__, COMPARE)
    return to_table(task, request, list(_rows(task, request, bars)))


def _rows(task: Task, request: Request, bars: dict[str, Any]) -> Iterator[Row]:
    numbered = {name: f"{number}. {name}" for number, name in enumerate(COLUMNS, 1)}
    for text, bar in bars.items():
        at = read_time(request, text, "iso", EASTERN)
        what = f"the bar at {iso(at)}"
        yield request.series[0], at, {name: check_member(bar, numbered[name], what, request) for name in task.columns}


def _months(start: datetime, end: datetime) -> Iterator[str]:
    first, last = start.astimezone(EASTERN), end.astimezone(EASTERN)
    year, month = max((first.year, first.month), FIRST_MONTH)
    while (year, month) <= (last.year, last.month):
        yield f"{year}-{month:02}"
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def _check_task(task: Task) -> None:
    mistakes = [f"column {name!r}{nearest(name, COLUMNS)}" for name in task.columns if name not in COLUMNS]
    if task.source_step not in INTERVALS:
        mistakes.append(f"a step of {duration_text(task.source_step)}")
    if mistakes:
        raise TaskError(
            f"columns of alpha-vantage ({', '.join(COLUMNS)}) and a step of 1m, 5m, 15m, 30m or 1h",
            "; ".join(mistakes),
            "Mend [columns] or the step of the task file.",
        )


def _check_error(request: Request, answer: Any) -> None:
    for kind in ("Error Message", "Information", "Note"):
        message = answer.get(kind) if isinstance(answer, dict) else None
        if not message:
            continue
        said = f"{kind}: {str(message)[:300]}"
        if kind != "Error Message" and _LIMIT.search(said) and not _PREMIUM.search(said):
            raise SourceUnavailable(f"bars from {request.source}", said, "Ask again when the limit allows it.")
        raise AnswerChanged(
            f"bars of {request.params['symbol']} {_asked_for(request)} from {request.source}",
            said,
            "Mend the symbol, the start, or the key in FORECASTLE_ALPHA_VANTAGE_KEY.",
        )


def _asked_for(request: Request) -> str:
    return f"in {request.params['month']}" if "month" in request.params else "of the last thirty days"


def _check_meta(request: Request, name: str, meta: Any, wanted: tuple[str, ...]) -> None:
    found = check_member(meta, name, "Meta Data", request)
    if str(found).casefold() not in {one.casefold() for one in wanted}:
        raise AnswerChanged(f"{name} {wanted[0]!r} from {request.source}", f"{found!r}", COMPARE)
