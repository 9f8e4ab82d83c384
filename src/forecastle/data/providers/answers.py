"""What every parser of a JSON answer needs: the JSON itself, its times, its numbers and its units, each checked."""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import polars as pl

from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.frame import EPOCH, SERIES, TIME, TIMESTAMP, iso
from forecastle.http import Request, excerpt
from forecastle.task import Task, nearest

COMPARE = "The answer is archived; compare it with the source's documentation."

Row = tuple[str, datetime, dict[str, Any]]


def read_json(request: Request, body: bytes) -> Any:
    """Return what a body says. Raises SourceUnavailable for an empty one, AnswerChanged for one that is not JSON."""
    if not body.strip():
        raise SourceUnavailable(f"an answer from {request.source}", "an empty body", "Ask again later.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        kind = "HTML" if body.lstrip().startswith(b"<") else "something else"
    raise AnswerChanged(f"JSON from {request.source}", f"{kind}: {excerpt(body)}", COMPARE)


def read_time(request: Request, given: object, form: str, zone: tzinfo = UTC) -> datetime:
    """Return a time in UTC: seconds (``s``) or milliseconds (``ms``) since 1970, or ISO 8601 text (``iso``).

    Text without an offset is read in ``zone``; a local time that exists twice there, or never, is refused.
    """
    try:
        if form == "iso":
            return _local(datetime.fromisoformat(given.strip()), zone) if isinstance(given, str) else _no_time()
        since = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else math.nan
        return EPOCH + timedelta(seconds=since) if form == "s" else EPOCH + timedelta(milliseconds=since)
    except (ValueError, OverflowError) as error:
        reason = f" ({error})" if isinstance(error, _TwiceOrNever) else ""
    kinds = {"s": "seconds since 1970", "ms": "milliseconds since 1970", "iso": "a time such as 2013-01-31 06:00:00"}
    raise AnswerChanged(f"{kinds[form]} from {request.source}", f"{given!r}{reason}", COMPARE)


def to_table(task: Task, request: Request, rows: list[Row]) -> pl.DataFrame:
    """Return rows (series id, time, value of each column) as the table a provider answers with.

    Values are numbers or text of numbers; None is missing. Anything else is AnswerChanged, with its place.
    """
    values = {
        name: [_number(request, name, series, at, found[name]) for series, at, found in rows] for name in task.columns
    }
    return pl.DataFrame(
        {SERIES: [series for series, _, _ in rows], TIMESTAMP: [at for _, at, _ in rows], **values},
        schema={SERIES: pl.String(), TIMESTAMP: TIME, **{name: pl.Float64() for name in task.columns}},
    ).with_columns(pl.col(name).fill_nan(None) for name in task.columns)


def check_unit(task: Task, request: Request, name: str, unit: object) -> None:
    """Raise AnswerChanged unless the source's unit of a column is the task's."""
    if spelling(unit) != spelling(task.columns[name].unit):
        raise AnswerChanged(
            f"{name} from {request.source} in {task.columns[name].unit!r}, as the task says",
            f"{unit!r}",
            f"If the source's unit is right, write it as unit in [columns.{name}] of the task file.",
        )


def spelling(unit: object) -> str | None:
    """Return a unit in one spelling, None for what is no text: the micro sign and the Greek mu look the same and are
    not."""
    return unicodedata.normalize("NFKC", unit) if isinstance(unit, str) else None


def check_member(found: Any, name: str, what: str, request: Request) -> Any:
    """Return a member of a JSON object; AnswerChanged names what is there instead."""
    if isinstance(found, dict) and name in found:
        return found[name]
    there = ", ".join(map(str, list(found)[:10])) + nearest(name, map(str, found)) if isinstance(found, dict) else ""
    raise AnswerChanged(f"{name!r} in {what} of {request.source}", there or type(found).__name__, COMPARE)


class _TwiceOrNever(ValueError):
    """A local time that a change of the clocks makes twice, or leaves out."""


def _no_time() -> datetime:
    raise ValueError("no text")


def _local(moment: datetime, zone: tzinfo) -> datetime:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
        if moment.utcoffset() != moment.replace(fold=1).utcoffset():
            raise _TwiceOrNever(f"the clocks change in {zone}; ask for UTC")
    return moment.astimezone(UTC)


def _number(request: Request, name: str, series: str, at: datetime, given: object) -> float | None:
    if given is None:
        return None
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        try:
            return float(given)
        except (ValueError, OverflowError):
            pass
    raise AnswerChanged(f"numbers in {name} from {request.source}", f"{given!r}, series {series} at {iso(at)}", COMPARE)
