"""What a request for forecasts brings: its observations, checked and bounded, as numbers.

    {"series": [{"series_id": "JFK",
                 "timestamps": ["2013-12-16T18:00:00Z", "2013-12-16T19:00:00Z"],
                 "values": {"temperature_2m": [4.1, 4.4], "pressure_msl": [null, 1013.2]}}]}

It is read by hand rather than by a model of each row, which would take longer than the forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic_core import from_json

from forecastle.data.panel import Floats, Integers, micros
from forecastle.errors import RequestError
from forecastle.frame import iso
from forecastle.task import Task, nearest

MOST_SERIES = 1000
MOST_OBSERVATIONS = 10_000  # of a series
MOST_TEXT = 200  # characters of a series' id
LARGEST = 1e30  # a float32 holds it
AHEAD = timedelta(minutes=1)  # how far another clock may be before this one

_FIELDS = {"series_id", "timestamps", "values"}
_NUMBERS = {float, int, type(None)}
_HOW = "GET /docs shows the body; times are ISO 8601 in UTC, values numbers or null."


@dataclass(frozen=True)
class Asked:
    """The recent observations of one series: m of them in the order of their times, in C columns, NaN for null."""

    series_id: str
    times: Integers  # (m,) microseconds
    values: Floats  # (C, m)


def parse(body: bytes, task: Task, columns: tuple[str, ...], now: datetime) -> tuple[Asked, ...]:
    """Return what the body of a request says, its values in the order of ``columns`` (one not given is NaN throughout).

    Raises RequestError naming the place of what cannot be: no JSON, a field, a time, a value or a column there is none
    of, times of the future, more series or observations than are answered at once.
    """
    try:
        read = from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise RequestError("a body in JSON", str(error), _HOW) from None
    series = read.get("series") if isinstance(read, dict) else None
    if not isinstance(series, list) or not 0 < len(series) <= MOST_SERIES or len(read) > 1:
        found = f"{len(series)} of them" if isinstance(series, list) else "something else"
        raise RequestError(f"an object with a list `series` of 1 to {MOST_SERIES} series, and no more", found, _HOW)
    latest = micros(now + AHEAD)
    asked = tuple(_series(one, f"series[{place}]", task, columns, latest) for place, one in enumerate(series))
    if len({one.series_id for one in asked}) < len(asked):
        raise RequestError("each series once", "one that comes twice", "Put its observations together.")
    return asked


def _series(one: Any, place: str, task: Task, columns: tuple[str, ...], latest: int) -> Asked:
    if not isinstance(one, dict) or one.keys() != _FIELDS:
        found = ", ".join(map(str, one)) if isinstance(one, dict) else type(one).__name__
        raise RequestError(f"series_id, timestamps and values in {place}", found[:MOST_TEXT] or "nothing", _HOW)
    series_id, timestamps, values = one["series_id"], one["timestamps"], one["values"]
    if not isinstance(series_id, str) or not 0 < len(series_id) <= MOST_TEXT:
        raise RequestError(f"text of 1 to {MOST_TEXT} characters in {place}.series_id", _shown(series_id), _HOW)
    if not isinstance(timestamps, list) or not 0 < len(timestamps) <= MOST_OBSERVATIONS:
        found = f"{len(timestamps)}" if isinstance(timestamps, list) else type(timestamps).__name__
        raise RequestError(f"a list of 1 to {MOST_OBSERVATIONS} times in {place}.timestamps", found, _HOW)
    times = _times(timestamps, place, latest)
    numbers = _values(values, place, task, columns, len(times))
    if (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
        times, numbers = times[order], numbers[:, order]
    return Asked(series_id, times, numbers)


def _times(texts: Sequence[Any], place: str, latest: int) -> Integers:
    try:
        times = np.array(list(map(_micros, texts)), dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        number = next(number for number, text in enumerate(texts) if not _is_time(text))
        raise RequestError(
            f"a time such as 2013-12-16T19:00:00Z in {place}.timestamps[{number}]", _shown(texts[number]), _HOW
        ) from None
    if times.max() > latest:
        number = int(times.argmax())
        raise RequestError(
            "observations of what has been", f"{texts[number]} in {place}.timestamps[{number}]", "Leave out the future."
        )
    return times


def _values(values: Any, place: str, task: Task, columns: tuple[str, ...], size: int) -> Floats:
    if not isinstance(values, dict) or task.target not in values:
        raise RequestError(f"{task.target!r} in {place}.values", _shown(values), _HOW)
    for name, numbers in values.items():
        if name not in task.columns and name not in columns:
            raise RequestError(
                f"columns of task {task.name!r} in {place}.values",
                f"{name[:MOST_TEXT]!r}{nearest(name, columns)}",
                f"They are {', '.join(columns)}.",
            )
        where = f"{place}.values.{name}"
        if not isinstance(numbers, list) or len(numbers) != size:
            told = f"{len(numbers)}" if isinstance(numbers, list) else type(numbers).__name__
            raise RequestError(f"{size} numbers in {where}, one for each time", told, _HOW)
        if not _NUMBERS.issuperset(map(type, numbers)):
            number = next(number for number, one in enumerate(numbers) if type(one) not in _NUMBERS)
            raise RequestError(f"a number or null in {where}[{number}]", _shown(numbers[number]), _HOW)
    nothing = [None] * size
    try:
        found = np.array([values.get(name, nothing) for name in columns], dtype=np.float64)
        fine = not (np.abs(found) > LARGEST).any()
    except OverflowError:
        fine = False
    if not fine:
        raise RequestError(f"numbers of a size below {LARGEST:g} in {place}.values", "a greater one", _HOW)
    return found


@lru_cache(maxsize=65_536)
def _micros(text: str) -> int:
    if not isinstance(text, str):
        raise TypeError
    at = datetime.fromisoformat(text)
    return micros(at.replace(tzinfo=UTC) if at.tzinfo is None else at)


def _is_time(text: Any) -> bool:
    try:
        _micros(text)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


@lru_cache(maxsize=4096)
def told(at: int) -> str:
    """Write a time in microseconds as an answer says it."""
    return iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at))


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return type(value).__name__
    return repr(value)[:MOST_TEXT]
