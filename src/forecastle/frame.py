"""The long table every room shares: its columns, its order, and how it is read and written.

An observation table has one row a series and timestamp (or, where versions are kept, a row a version):

    series_id     String                which place, asset or stop
    timestamp     Datetime[us, UTC]     start of the step the values belong to
    available_at  Datetime[us, UTC]     when the values could be known
    collected_at  Datetime[us, UTC]     when they were collected
    <columns>     Float64               the measured values; null is missing (never NaN)
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.errors import StorageUnavailable

SERIES = "series_id"
TIMESTAMP = "timestamp"
AVAILABLE_AT = "available_at"
COLLECTED_AT = "collected_at"
TIME = pl.Datetime("us", "UTC")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = (SERIES, TIMESTAMP)
CONTROL = r"[\x00-\x1f\x7f]"
"""What no name may hold: a character that cannot be shown, or kept by every database."""
BITEMPORAL = (SERIES, TIMESTAMP, AVAILABLE_AT, COLLECTED_AT)


def instant(moment: datetime) -> pl.Expr:
    """Return a time as a literal of TIME; Polars makes one of a datetime with a zone by a query of its own."""
    return pl.lit((moment - EPOCH) // timedelta(microseconds=1)).cast(TIME)


def observation_schema(columns: Iterable[str]) -> dict[str, pl.DataType]:
    """Return the schema of an observation table that holds these value columns."""
    times = {name: TIME for name in BITEMPORAL[1:]}
    return {SERIES: pl.String(), **times, **{name: pl.Float64() for name in columns}}


def empty_observations(columns: Iterable[str]) -> pl.DataFrame:
    """Return an observation table without rows."""
    return pl.DataFrame(schema=observation_schema(columns))


def conform(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the table with exactly the contract's columns and types, NaN as null, in canonical order.

    Value columns the table lacks become null. The order is series, timestamp, available_at, collected_at, so the
    order in which rows arrived changes nothing after this.
    """
    return as_arrived(table, columns).sort(BITEMPORAL)


def as_arrived(table: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the table as ``conform`` does, with its rows in the order they have."""
    schema = observation_schema(columns)
    return (
        table.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in columns if name not in table.columns)
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .with_columns(pl.col(name).fill_nan(None) for name in columns)
    )


def write_bytes(path: Path, content: bytes, flushed: bool = True) -> Path:
    """Write a file whole or not at all: to a neighbour first, flushed to the disk, then renamed into place.

    What is not ``flushed`` is so for every process that ends; a cut of the power may leave it empty. That is for what
    is made again then, and found out by whoever reads it. Raises StorageUnavailable where the disk refuses.
    """
    try:
        temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
        try:
            handle = os.open(temporary, _NEW, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(temporary, _NEW, 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageUnavailable(
            f"to write {path}", str(error.strerror or error), "Free some space or mend the folder's permissions."
        ) from error
    return path


def write_text(path: Path, text: str, flushed: bool = True) -> Path:
    """Write a UTF-8 file as ``write_bytes`` does."""
    return write_bytes(path, text.encode(), flushed)


def write_json(path: Path, value: Any, flushed: bool = True) -> Path:
    """Write a value as readable, strict JSON (a NaN becomes null), as ``write_bytes`` does."""
    return write_text(path, to_json(value, indent=2) + "\n", flushed)


def write_table(path: Path, table: pl.DataFrame, flushed: bool = True) -> Path:
    """Write a table as Parquet, as ``write_bytes`` does; equal tables give equal bytes."""
    buffer = BytesIO()
    table.write_parquet(buffer, compression="zstd", statistics=True)
    return write_bytes(path, buffer.getvalue(), flushed)


def read_note(path: Path) -> dict[str, Any] | None:
    """Return what ``write_json`` wrote that was not flushed; None where there is none, or only part of one."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: times as ISO 8601 in UTC, numbers that are not finite as null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def iso(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the second where that is exact."""
    moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Path):
        return str(value)
    return value
