"""Any JSON API that a declaration describes: the task's own, under ``[source.http_json]``, or one shipped beside this.

What can be declared is in ``forecastle.declaration``; docs/task-file.md says it field by field. The answer's rows are
found by JMESPath; a value that is not there is missing, rows that are not there are an answer that changed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import polars as pl

from forecastle.data.providers.answers import COMPARE, Row, check_unit, read_json, read_time, to_table
from forecastle.declaration import HttpJson
from forecastle.errors import AnswerChanged, SourceUnavailable, TaskError
from forecastle.frame import AVAILABLE_AT, EPOCH, TIME, iso
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Series, Task, duration_text, nearest

MOST_CALLS = 5_000
"""More calls than that for one series are a mistake of the task, such as a start before there was anything."""

_SECOND = timedelta(seconds=1)


@cache
def shipped(name: str) -> HttpJson:
    """Return the declaration of a provider that comes with forecastle."""
    text = (Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
    return HttpJson.model_validate(tomllib.loads(text))


def declaration(task: Task) -> HttpJson:
    """Return what declares the task's source."""
    return task.source.http_json or shipped(task.source.provider)


def gives_present_only(task: Task) -> bool:
    """Tell whether the source answers with the present alone, whatever window is asked for."""
    return declaration(task).present


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return the calls for every row from start to end: for each series, or for all at once, window by window.

    Raises TaskError for a column or a step the declaration does not have, SettingsError where a key is needed and
    not set.
    """
    declared = declaration(task)
    _check_task(task, declared)
    key = {declared.secret.param: settings.secret(declared.secret.setting)} if declared.secret else {}
    first_page = {declared.paging.page: "1"} if declared.paging.page else {}
    windows = [_times(*window) for window in _windows(task, declared, start, min(end, now))]
    calls = []
    for series in [(one,) for one in task.series] if declared.calls == "each" else [task.series]:
        filled = {**_places(task, declared, series), **_addresses(settings)}
        url = declared.url.format_map({name: _quoted(name, value) for name, value in filled.items()})
        for times in windows:
            params = {name: text.format_map({**filled, **times}) for name, text in declared.params.items()}
            secret = frozenset(key)
            calls.append(Request(url, {**params, **first_page, **key}, secret, tuple(one.id for one in series)))
    return tuple(calls)


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Return the rows of one answer that are of the task's series; with available_at where the source tells it.

    Raises SourceUnavailable for an empty answer or an error body that heals by waiting, AnswerChanged for any other
    error body and for what is not declared: no rows, no time, text for numbers, another unit.
    """
    declared = declaration(task)
    answer = read_json(request, body)
    _check_error(declared, request, answer)
    for name, path in declared.unit_paths.items():
        if name in task.columns:
            check_unit(task, request, name, _search(path, answer))
    names = {one.asked: one.id for one in task.series}
    zone = ZoneInfo(declared.zone)
    rows: list[Row] = []
    told: list[datetime | None] = []
    for row in _rows(declared, request, answer):
        series = request.series[0] if declared.series is None else names.get(str(_search(declared.series, row)))
        if series is not None:
            at = read_time(request, _search(declared.time, row), declared.time_format, zone)
            rows.append((series, at, {name: _search(_path(declared, name), row) for name in task.columns}))
            known = _search(declared.available_at, row) if declared.available_at else None
            told.append(None if known is None else read_time(request, known, declared.time_format, zone))
    table = to_table(task, request, rows)
    return table.with_columns(pl.Series(AVAILABLE_AT, told, TIME)) if declared.available_at else table


def following(task: Task, request: Request, body: bytes) -> Request | None:
    """Return the call for the page after this answer, or None after the last one."""
    declared = declaration(task)
    paging, answer = declared.paging, read_json(request, body)
    if paging.page and paging.rows:
        full = len(_rows(declared, request, answer)) >= paging.rows
        return _changed(request, paging.page, str(int(request.params[paging.page]) + 1)) if full else None
    if paging.cursor and paging.next:
        cursor = _search(paging.next, answer)
        if cursor in (None, "", False):
            return None
        if str(cursor) == request.params.get(paging.cursor):
            raise AnswerChanged(f"another page after {request.address}", f"the same, {cursor!r}", COMPARE)
        return _changed(request, paging.cursor, str(cursor))
    return None


def _check_task(task: Task, declared: HttpJson) -> None:
    mistakes = []
    for name, column in task.columns.items():
        if declared.values and name not in declared.values:
            mistakes.append(f"column {name!r}{nearest(name, declared.values)}")
        elif declared.units.get(name, column.unit) != column.unit:
            mistakes.append(f"{name} in {column.unit!r}, where the source sends {declared.units[name]!r}")
    if declared.intervals and _step(task) not in declared.intervals:
        mistakes.append(f"a step of {_step(task)}; there are {', '.join(declared.intervals)}")
    if mistakes:
        raise TaskError(
            f"columns ({', '.join(declared.values)}), units and a step that {task.source.provider} has",
            "; ".join(mistakes),
            "Mend [columns] or the step of the task file.",
        )


def _windows(task: Task, declared: HttpJson, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the window, cut so that no piece holds more rows than a call answers; pieces begin with a step."""
    paging, step = declared.paging, task.source_step
    if paging.rows is None or paging.page or paging.cursor or declared.present:
        yield start, end
        return
    at = start - (start - EPOCH) % step
    if (end - at) / (step * paging.rows) > MOST_CALLS:
        raise TaskError(
            f"at most {MOST_CALLS} calls a series for task {task.name!r}",
            f"a window from {iso(start)} to {iso(end)} in steps of {duration_text(step)}",
            "Name a later start in [source].",
        )
    while at <= end:
        following = at + step * paging.rows
        yield at, min(following - _SECOND, end)
        at = following


def _times(start: datetime, end: datetime) -> dict[str, str]:
    filled: dict[str, str] = {}
    for name, moment in (("start", start.astimezone(UTC)), ("end", end.astimezone(UTC))):
        since = (moment - EPOCH) // timedelta(milliseconds=1)
        filled |= {f"{name}_ms": str(since), f"{name}_s": str(since // 1000), f"{name}_iso": iso(moment)}
        filled |= {f"{name}_text": f"{moment:%Y-%m-%d %H:%M:%S}", f"{name}_date": f"{moment:%Y-%m-%d}"}
    return filled


def _places(task: Task, declared: HttpJson, series: tuple[Series, ...]) -> dict[str, str]:
    def listed(name: str) -> str:
        return ",".join(str(getattr(one, name)) for one in series)

    interval = declared.intervals.get(_step(task), _step(task))
    return {
        "series": listed("asked"),
        "latitude": listed("latitude"),
        "longitude": listed("longitude"),
        "interval": interval,
    }


def _addresses(settings: Settings) -> dict[str, str]:
    return {name: str(getattr(settings, name)) for name in type(settings).model_fields if name.endswith("_url")}


def _quoted(name: str, value: str) -> str:
    return value if name.endswith("_url") else quote(value, safe=",")


def _step(task: Task) -> str:
    return duration_text(task.source_step)


def _path(declared: HttpJson, name: str) -> str:
    return declared.values.get(name, f'"{name}"')


def _check_error(declared: HttpJson, request: Request, answer: Any) -> None:
    if declared.error is None or not _search(declared.error.found, answer):
        return
    message = str(_search(declared.error.message, answer))[:300]
    if declared.error.retry and re.search(declared.error.retry, message, re.IGNORECASE):
        raise SourceUnavailable(f"rows from {request.source}", message, "Ask again when the source's limit allows it.")
    raise AnswerChanged(f"rows from {request.source}", f"an error: {message}", "Mend what the message names.")


def _rows(declared: HttpJson, request: Request, answer: Any) -> list[Any]:
    rows = _search(declared.rows, answer)
    if isinstance(rows, list):
        return rows
    there = ", ".join(map(str, list(answer)[:10])) if isinstance(answer, dict) else type(answer).__name__
    raise AnswerChanged(f"a list of rows at {declared.rows!r} from {request.source}", there or "nothing", COMPARE)


def _changed(request: Request, param: str, value: str) -> Request:
    return replace(request, params={**request.params, param: value})


@cache
def _compiled(path: str) -> Any:
    from jmespath import compile as compiled

    return compiled(path)


def _search(path: str, answer: Any) -> Any:
    """Return what lies at a path, None where nothing does or where the path does not fit what is there."""
    from jmespath.exceptions import JMESPathTypeError

    try:
        return _compiled(path).search(answer)
    except JMESPathTypeError:
        return None
