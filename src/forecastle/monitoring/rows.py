"""Tables as rows of the journal's database and back, and what makes a forecast the one it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
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


def as_table(schema: Mapping[str, pl.DataType], rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return rows that were read as a table of the schema's columns, its times in UTC."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    own, naive = [], []
    for (name, dtype), values in zip(schema.items(), columns, strict=True):
        if dtype == TIME and values and values[0].tzinfo is None:
            dtype = pl.Datetime("us")
            naive.append(name)
        own.append(pl.Series(name, values, dtype))
    table = pl.DataFrame(own)
    return table.with_columns(pl.col(naive).cast(TIME)) if naive else table


def as_rows(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> list[dict[str, Any]]:
    """Return the rows of a table for the database: the schema's columns and types, NaN as missing."""
    told = (pl.col(name).cast(dtype) for name, dtype in schema.items())
    whole = [
        one.fill_nan(None) if dtype == pl.Float64 else one for one, dtype in zip(told, schema.values(), strict=True)
    ]
    return table.select(whole).rows(named=True)


def _identity(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
