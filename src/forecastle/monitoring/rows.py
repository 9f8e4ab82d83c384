"""Tables as rows of the journal's database and back, and what makes a forecast the one it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import isnan
from typing import Any

import polars as pl
import sqlalchemy as sql

from forecastle.frame import TIME

# Two horizons may share a timestamp where the grid is the observed one, so both are needed.
IDENTITY = ("task", "series_id", "origin", "timestamp", "horizon", "model_version", "data_version")


def identified(forecasts: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts with ``forecast_id``: 32 hex digits of what makes a forecast the one it is (IDENTITY)."""
    parts = [[_identity(value) for value in forecasts[name]] for name in IDENTITY]
    ids = [hashlib.sha256("\x1f".join(row).encode()).hexdigest()[:32] for row in zip(*parts, strict=True)]
    return forecasts.with_columns(pl.Series("forecast_id", ids, pl.String()))


def columns_of(table: sql.Table, schema: Mapping[str, pl.DataType]) -> Iterator[sql.ColumnElement[Any]]:
    """Yield a table's columns with times as the driver gives them, which Polars reads ten times faster."""
    for name, dtype in schema.items():
        yield sql.type_coerce(table.c[name], sql.DateTime(timezone=True)) if dtype == TIME else table.c[name]


def as_series(name: str, dtype: pl.DataType, values: Sequence[Any]) -> pl.Series:
    """Return a column that was read, its times in UTC."""
    if dtype == TIME and values and values[0].tzinfo is None:
        return pl.Series(name, values, pl.Datetime("us")).cast(TIME)
    return pl.Series(name, values, dtype)


def as_rows(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> list[dict[str, Any]]:
    """Return the rows of a table for the database: the schema's columns and types, NaN as missing."""
    table = table.select(list(schema))
    if table.schema != schema:
        table = table.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    rows = table.rows(named=True)
    for name, dtype in schema.items():
        if dtype == pl.Float64 and table[name].is_nan().any():
            for row in rows:
                row[name] = None if row[name] is not None and isnan(row[name]) else row[name]
    return rows


def _identity(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
