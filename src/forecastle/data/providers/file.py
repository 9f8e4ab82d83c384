"""A user's own long table, as CSV, Parquet or a JSON list of rows: series_id, timestamp, and the task's value columns.

Times are UTC; those without a zone count as UTC, those with an offset are converted. In a CSV they are ISO 8601, and
an empty field, NA, NaN and null are missing values. Columns the task does not name are ignored. Times off the task's
grid are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import polars as pl

from forecastle.data.ahead import ISSUED_AT
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.frame import CONTROL, SERIES, TIME, TIMESTAMP, iso
from forecastle.http import Answer, Request, excerpt
from forecastle.settings import Settings
from forecastle.task import Task, nearest

SCHEME = "file://"
MOST_VALUES = 5_000_000  # of a table that others send; a file of one's own is as large as it is
MOST_BYTES = 100_000_000  # that its columns take, unpacked

MISSING = ("", "na", "n/a", "nan", "null", "none")
_ROW = "row of the file"
LONGEST_NUMBER = 400  # bytes of text; the shortest form of no float has as many
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return the requests for the task's file, and that of forecasts if it has one, whatever the time."""
    return tuple(Request(_uri(path)) for path in (task.source.path or "", task.source.issued) if path is not None)


def observations(task: Task) -> pl.DataFrame:
    """Return the observations in a task's table, as it is now. Raises as ``read`` and ``parse``."""
    request = Request(_uri(task.source.path or ""))
    return parse(task.measured, request, read(request).body)


def read(request: Request) -> Answer:
    """Return a file's bytes as an answer. Raises SourceUnavailable where there is no file, or none that can be read."""
    path = Path(unquote(urlsplit(request.url).path))
    try:
        return Answer(request.url, 200, {}, path.read_bytes())
    except FileNotFoundError:
        beside = (str(other) for other in path.parent.glob("*")) if path.parent.is_dir() else ()
        found = f"no such file{nearest(str(path), beside)}"
    except OSError as error:
        found = str(error.strerror or error)
    raise SourceUnavailable(f"a table at {path}", found, "Put it there, or mend path in [source] of the task file.")


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Return the observations of a Parquet, CSV or JSON table; of the table of forecasts these, with issued_at.

    Raises AnswerChanged for a body that is neither, for a column that is missing, a time or a value that is none, or
    a series the task does not have; each with its place; and for one that others send and that would take much more
    room than its bytes. Raises SourceUnavailable for a table without rows.
    """
    table, forecasts = _table(request, body), task.source.issued is not None and request.url == _uri(task.source.issued)
    moments, columns = ((TIMESTAMP, ISSUED_AT), task.ahead) if forecasts else ((TIMESTAMP,), tuple(task.columns))
    for name in (SERIES, *moments, *columns):
        if name not in table.columns:
            raise AnswerChanged(
                f"a column {name!r} in {request.source}",
                f"the columns {', '.join(table.columns)}{nearest(name, table.columns)}",
                "Rename the column in the file or in the task.",
            )
    if table.is_empty():
        raise SourceUnavailable(f"rows in {request.source}", "none", "Put the observations into the file.")
    table = table.select(
        pl.Series(_ROW, range(1, table.height + 1), dtype=pl.Int64),
        _series_ids(request, table[SERIES]),
        *(pl.col(name) for name in (*moments, *columns)),
    )
    times = [_times(request, table, name) for name in moments]
    _check_series(task, request, table)
    values = [_numbers(request, table, times[0], name) for name in columns]
    return pl.DataFrame([table[SERIES], *times, *values])


def _uri(path: str) -> str:
    return Path(path).absolute().as_uri()


def _table(request: Request, body: bytes) -> pl.DataFrame:
    if not body.strip():
        raise SourceUnavailable(f"a table in {request.source}", "an empty file", "Put the observations into the file.")
    try:
        if not request.url.startswith(SCHEME):
            _check_size(request, body)
        if body.startswith(b"PAR1"):
            return pl.read_parquet(BytesIO(body))
        if body.lstrip().startswith(b"["):
            return pl.read_json(BytesIO(body), infer_schema_length=None)
        return pl.read_csv(BytesIO(body), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        found = f"{str(error).splitlines()[0].removeprefix('found ')} (it begins with: {excerpt(body, 60)})"
    raise AnswerChanged(f"a CSV, Parquet or JSON table in {request.source}", found, "Mend the file or name another.")


def _check_size(request: Request, body: bytes) -> None:
    """Raise AnswerChanged where a table would hold more than is read of others: told before it is unpacked."""
    room = 0
    if body.startswith(b"PAR1"):
        values, room = _size_of_parquet(body)
    elif body.lstrip().startswith(b"["):
        rows, keys = body.count(b"{"), set[bytes]()
        for key in _KEY.finditer(body):
            keys.add(key[1])
            if len(keys) * rows > MOST_VALUES:
                break
        values = rows * max(len(keys), 1)
    else:
        values = (body.count(b"\n") + 1) * (body.partition(b"\n")[0].count(b",") + 1)
    if values > MOST_VALUES or room > MOST_BYTES:
        raise AnswerChanged(
            f"at most {MOST_VALUES} values (rows times columns) of {MOST_BYTES} bytes in {request.source}",
            f"{values} of {room} bytes" if room else f"up to {values}",
            "Send it in parts, and only the columns of the task.",
        )


def _size_of_parquet(body: bytes) -> tuple[int, int]:
    """Return how many values a Parquet table says it has, and of how many bytes; none where it cannot be read."""
    import pyarrow.parquet as parquet

    try:
        found = parquet.read_metadata(BytesIO(body))
    except (ValueError, OSError):
        return 0, 0  # who reads it will say what is wrong
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    rows = max(found.num_rows, sum(group.num_rows for group in groups))
    values = max(rows * found.num_columns, sum(one.num_values for one in columns))
    return values, sum(one.total_uncompressed_size for one in columns)


def _series_ids(request: Request, series: pl.Series) -> pl.Series:
    if series.dtype.is_nested() or series.dtype.is_float() or series.dtype.is_temporal():
        raise AnswerChanged(
            f"text in series_id of {request.source}", f"{series.dtype}", "Write the ids as text or whole numbers."
        )
    ids = series.cast(pl.String)
    empty = (ids.is_null() | (ids == "")).arg_true()
    if len(empty):
        raise AnswerChanged(
            f"a series_id in every row of {request.source}", f"none in row {empty[0] + 1}", "Fill or drop that row."
        )
    strange = ids.str.contains(CONTROL).arg_true()
    if len(strange):
        raise AnswerChanged(
            f"a series_id without control characters in every row of {request.source}",
            f"{ids[strange[0]]!r} in row {strange[0] + 1}",
            "Mend or drop that row.",
        )
    return ids


def _check_series(task: Task, request: Request, table: pl.DataFrame) -> None:
    strange = table.filter(~pl.col(SERIES).is_in(task.series_ids)) if task.series else table.clear()
    if strange.height:
        name, row = strange.item(0, SERIES), strange.item(0, _ROW)
        raise AnswerChanged(
            f"only series of task {task.name!r} ({', '.join(task.series_ids)}) in {request.source}",
            f"{name!r} in row {row}{nearest(name, task.series_ids)}",
            "Name it under [[series]] in the task, drop every [[series]] to take all, or mend the file.",
        )


def _times(request: Request, table: pl.DataFrame, name: str) -> pl.Series:
    """Return a column of times in UTC; whatever type they have in the file."""
    times = table[name]
    if isinstance(times.dtype, pl.Datetime):
        moments = (
            times.dt.replace_time_zone("UTC") if times.dtype.time_zone is None else times.dt.convert_time_zone("UTC")
        )
    elif times.dtype == pl.Date:
        moments = times.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif times.dtype == pl.String:
        moments = times.replace_strict(_moments(times.unique()), default=None, return_dtype=TIME)
    else:
        raise AnswerChanged(
            f"times (UTC) or ISO 8601 text in {name} of {request.source}", f"{times.dtype}", "Convert the column."
        )
    wrong = table.filter(moments.is_null())
    if wrong.height:
        raise AnswerChanged(
            f"an ISO 8601 time such as 2013-01-31T06:00:00Z in every row of {request.source}",
            f"{wrong.item(0, name)!r} in row {wrong.item(0, _ROW)}, series {wrong.item(0, SERIES)}",
            "Mend or drop that row.",
        )
    return moments.cast(TIME)


def _moments(texts: Iterable[str | None]) -> dict[str, datetime]:
    moments = {}
    for text in texts:
        try:
            moment = datetime.fromisoformat((text or "").strip())
            moments[text or ""] = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
    return moments


def _numbers(request: Request, table: pl.DataFrame, times: pl.Series, name: str) -> pl.Series:
    """Return a value column as numbers, NaN as null."""
    given = table[name]
    if given.dtype == pl.String:
        long = (given.str.len_bytes() > LONGEST_NUMBER).arg_true()  # a text that many rows share is held once till here
        if len(long):
            raise AnswerChanged(
                f"numbers in {name} of {request.source}",
                f"text of {len(given[long[0]])} characters in row {table.item(long[0], _ROW)}",
                "Mend or empty that field.",
            )
        given = given.str.strip_chars()
        given = given.set(given.str.to_lowercase().is_in(MISSING), None)
    elif not (given.dtype.is_numeric() or given.dtype in (pl.Boolean, pl.Null)):
        raise AnswerChanged(f"numbers in {name} of {request.source}", f"{given.dtype}", "Convert the column.")
    numbers = given.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & given.is_not_null()).arg_true()
    if len(wrong):
        at = wrong[0]
        raise AnswerChanged(
            f"numbers in {name} of {request.source}",
            f"{given[at]!r} in row {table.item(at, _ROW)}, series {table.item(at, SERIES)} at {iso(times[at])}",
            "Mend or empty that field.",
        )
    return numbers.fill_nan(None)
