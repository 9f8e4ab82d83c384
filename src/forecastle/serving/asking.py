"""What a request for forecasts brings: its observations, checked and bounded, as numbers.

    {"series": [{"series_id": "JFK",
                 "timestamps": ["2013-12-16T18:00:00Z", "2013-12-16T19:00:00Z"],
                 "values": {"temperature_2m": [4.1, 4.4], "pressure_msl": [null, 1013.2]}}]}

It is read by hand rather than by a model of each row, which would take longer than the forecast; and the times, which
many requests have in common, are read once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from struct import Struct, error as NoNumbers
from typing import Any

import numpy as np
from pydantic_core import from_json

from forecastle.data.panel import Floats, Integers, micros, moment
from forecastle.errors import RequestError
from forecastle.frame import CONTROL, iso
from forecastle.task import Task, nearest

MOST_SERIES = 1000
MOST_OBSERVATIONS = 10_000  # of a series
MOST_TEXT = 200  # characters of a series' id
MOST_NAMES = 5  # of an object, where others are wanted
LARGEST = 1e30  # a float32 holds it
AHEAD = timedelta(minutes=1)  # how far another clock may be before this one
FEW_TIMES, MOST_SPANS = 500, 64  # how many times of one series are remembered together, and how often

_has_control = re.compile(CONTROL).search
_FIELDS = {"series_id", "timestamps", "values"}
_NUMBERS = {float, int, type(None)}
_HOW = "GET /docs shows the body; times are ISO 8601 in UTC, values numbers or null."


@dataclass(frozen=True)
class Asked:
    """The recent observations of one series: m of them in the order of their times, in C columns, NaN for null."""

    series_id: str
    times: Integers  # (m,) microseconds; those that were sent with the same times share one array
    values: Floats  # (C, m)
    stride: int = 0  # between each time and the next, microseconds; 0 where it is not always the same


def parse(body: bytes, task: Task, columns: tuple[str, ...], now: datetime) -> tuple[Asked, ...]:
    """Return what the body of a request says, its values in the order of ``columns`` (one not given is NaN throughout).

    Raises RequestError naming the place of what cannot be: no JSON, a field, a time, a value or a column there is none
    of, an id with what cannot be printed, times of the future or before 1970, more series or observations than are
    answered at once.
    """
    try:
        read = from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise RequestError("a body in JSON", str(error), _HOW) from None
    series = read.get("series") if isinstance(read, dict) else None
    if not isinstance(series, list) or not 0 < len(series) <= MOST_SERIES or len(read) > 1:
        found = f"{len(series)} of them" if isinstance(series, list) else _names(read, ("series",))
        raise RequestError(f"an object with a list `series` of 1 to {MOST_SERIES} series, and no more", found, _HOW)
    latest = micros(now + AHEAD)
    plain = b"true" not in body and b"false" not in body  # or one of them could be taken for a number
    asked = tuple(_series(one, f"series[{place}]", task, columns, latest, plain) for place, one in enumerate(series))
    if len({one.series_id for one in asked}) < len(asked):
        raise RequestError("each series once", "one that comes twice", "Put its observations together.")
    return asked


def _series(one: Any, place: str, task: Task, columns: tuple[str, ...], latest: int, plain: bool) -> Asked:
    if not isinstance(one, dict) or one.keys() != _FIELDS:
        raise RequestError(f"series_id, timestamps and values in {place}", _names(one, sorted(_FIELDS)), _HOW)
    series_id, timestamps, values = one["series_id"], one["timestamps"], one["values"]
    if not isinstance(series_id, str) or not 0 < len(series_id) <= MOST_TEXT or _has_control(series_id):
        raise RequestError(
            f"text of 1 to {MOST_TEXT} characters, none a control, in {place}.series_id", _shown(series_id), _HOW
        )
    if not isinstance(timestamps, list) or not 0 < len(timestamps) <= MOST_OBSERVATIONS:
        found = f"{len(timestamps)}" if isinstance(timestamps, list) else _shown(timestamps)
        raise RequestError(f"a list of 1 to {MOST_OBSERVATIONS} times in {place}.timestamps", found, _HOW)
    span = _span_of(timestamps, place, latest)
    numbers = _values(values, place, task, columns, len(span.times), plain)
    return Asked(series_id, span.times, numbers if span.order is None else numbers[:, span.order], span.stride)


@dataclass(frozen=True, eq=False)
class _Span:
    """Times in their order; ``order`` brings what was sent with them into it, None where it is in it already."""

    times: Integers
    order: Integers | None
    stride: int


def _span_of(texts: list[Any], place: str, latest: int) -> _Span:
    try:
        span = _remembered_span(tuple(texts)) if len(texts) <= FEW_TIMES else _span(texts)
    except (TypeError, ValueError, OverflowError):
        number = next(number for number, text in enumerate(texts) if not _is_time(text))
        raise RequestError(
            f"a time such as 2013-12-16T19:00:00Z, not before 1970, in {place}.timestamps[{number}]",
            _shown(texts[number]),
            _HOW,
        ) from None
    if span.times[-1] > latest:
        number = int(np.argmax([_micros(text) for text in texts]))
        raise RequestError(
            "observations of what has been",
            f"{texts[number]} in {place}.timestamps[{number}]",
            f"Leave out what comes after {iso(moment(latest))} by this service's clock.",
        )
    return span


def _span(texts: Sequence[Any]) -> _Span:
    times, order = np.array(list(map(_micros, texts)), dtype=np.int64), None
    if (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
        times = times[order]
    strides = times[1:] - times[:-1]
    return _Span(times, order, int(strides[0]) if len(strides) and (strides == strides[0]).all() else 0)


_remembered_span = lru_cache(maxsize=MOST_SPANS)(_span)


def _values(values: Any, place: str, task: Task, columns: tuple[str, ...], size: int, plain: bool) -> Floats:
    if not isinstance(values, dict) or task.target not in values:
        raise RequestError(f"{task.target!r} in {place}.values", _names(values, columns), _HOW)
    for name, numbers in values.items():
        if name not in task.columns and name not in columns:
            raise RequestError(
                f"columns of task {task.name!r} in {place}.values",
                f"{name[:MOST_TEXT]!r}{nearest(name, columns)}",
                f"They are {', '.join(columns)}.",
            )
        if not isinstance(numbers, list) or len(numbers) != size:
            told = f"{len(numbers)}" if isinstance(numbers, list) else _shown(numbers)
            raise RequestError(f"{size} numbers in {place}.values.{name}, one for each time", told, _HOW)
    found = _packed(values, columns, size) if plain and len(values) == len(columns) else None
    if found is None:
        found = _looked_at(values, place, columns, size)
    if found is None or (np.abs(found) > LARGEST).any():
        raise RequestError(f"numbers of a size below {LARGEST:g} in {place}.values", "a greater one", _HOW)
    return found


def _packed(values: dict[str, list[Any]], columns: tuple[str, ...], size: int) -> Floats | None:
    """Return the numbers of all columns at once; None where a column is missing or anything is not a number."""
    pack = _doubles(size).pack
    try:
        return np.frombuffer(b"".join([pack(*values[name]) for name in columns])).reshape(len(columns), size)
    except (KeyError, NoNumbers, OverflowError):
        return None


def _looked_at(values: dict[str, list[Any]], place: str, columns: tuple[str, ...], size: int) -> Floats | None:
    """Return the numbers, NaN for null and in columns that are missing; None where one is too large for any number."""
    for name, numbers in values.items():
        if not _NUMBERS.issuperset(map(type, numbers)):
            number = next(number for number, one in enumerate(numbers) if type(one) not in _NUMBERS)
            raise RequestError(f"a number or null in {place}.values.{name}[{number}]", _shown(numbers[number]), _HOW)
    nothing = [None] * size
    try:
        found = np.array([values.get(name, nothing) for name in columns], dtype=np.float64)
    except OverflowError:
        return None
    return found


@lru_cache(maxsize=1024)
def _doubles(size: int) -> Struct:
    return Struct(f"{size}d")


@lru_cache(maxsize=65_536)
def _micros(text: str) -> int:
    if not isinstance(text, str):
        raise TypeError
    at = datetime.fromisoformat(text)
    since_1970 = micros(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    if since_1970 < 0:  # local clocks and holidays of the first years are none that a calendar can tell
        raise ValueError
    return since_1970


def _is_time(text: Any) -> bool:
    try:
        _micros(text)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _shown(value: Any) -> str:
    """Return what a value of a body is, in the words of JSON where it is no text and no number."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else repr(value)[:MOST_TEXT]


def _names(value: Any, wanted: Sequence[str]) -> str:
    """Return the names of an object, each that is not wanted with the nearest that is; what it is, where it is none."""
    if not isinstance(value, dict):
        return _shown(value)
    few = (name[:MOST_TEXT] for name in islice(value, MOST_NAMES))
    told = ", ".join(f"{name!r}{'' if name in wanted else nearest(name, wanted)}" for name in few)
    return f"{told} and more" if len(value) > MOST_NAMES else told or "nothing"
