"""Tables as rows of the journal's database and back, and what makes a forecast the one it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import polars as pl
import sqlalchemy as sql

from forecastle.frame import TIME

FORECAST: dict[str, pl.DataType] = {
    "forecast_id": pl.String(),
    "task": pl.String(),
    "series_id": pl.String(),
    "origin": TIME,
    "timestamp": TIME,
    "horizon": pl.Int64(),
    "value": pl.Float64(),
    "lower": pl.Float64(),
    "upper": pl.Float64(),
    "last": pl.Float64(),
    "model_version": pl.String(),
    "data_version": pl.String(),
    "issued_at": TIME,
    "drifted": pl.Boolean(),
    "estimator": pl.String(),
}
PROVENANCE: dict[str, pl.DataType] = {"feature_digest": pl.String(), "data_age": pl.Float64()}
"""What a forecast was made of, where its maker says it: a digest of its features, the age of its data in seconds."""

OUTCOME: dict[str, pl.DataType] = {
    **{name: dtype for name, dtype in FORECAST.items() if name not in ("drifted", "estimator")},
    "actual": pl.Float64(),
    "scored_at": TIME,
}

AT_ONCE = 500  # rows of one statement

# Two horizons may share a timestamp where the grid is the observed one, so both are needed.
IDENTITY = ("task", "series_id", "origin", "timestamp", "horizon", "model_version", "data_version")


def identified(forecasts: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts with ``forecast_id``: 32 hex digits of what makes a forecast the one it is (IDENTITY)."""
    parts = pl.concat_str([_identity(forecasts, name) for name in IDENTITY], separator="\x1f")
    ids = [hashlib.sha256(one.encode()).hexdigest()[:32] for one in forecasts.select(parts).to_series()]
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


def statement(insert: sql.Insert, dialect: sql.Dialect, table: pl.DataFrame) -> tuple[str, Any]:
    """Return a statement as a database's driver takes it, and the rows of a table that it inserts: NaN as missing,
    times for SQLite as its text that sorts."""
    compiled = insert.compile(dialect=dialect, column_keys=table.columns)
    names = compiled.positiontup
    floats = [name for name, dtype in table.schema.items() if dtype == pl.Float64]
    times = [name for name, dtype in table.schema.items() if dtype == TIME] if names else []
    told = table.with_columns(
        *(pl.col(name).fill_nan(None) for name in floats),
        *(pl.col(name).dt.strftime("%Y-%m-%d %H:%M:%S%.6f") for name in times),
    )
    return str(compiled), told.select(names).rows() if names else told.rows(named=True)


def statements(
    insert: sql.Insert, dialect: sql.Dialect, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield statements as a database's driver takes them, and their values, that insert rows of the same columns.

    SQLite's takes many rows in one, their times as its text that sorts: given row by row, it would stop every thread
    for each.
    """
    compiled = insert.compile(dialect=dialect, column_keys=list(rows[0]))
    names = compiled.positiontup
    if not names:
        yield str(compiled), list(rows)
        return
    pick, one = itemgetter(*names), f"({', '.join('?' * len(names))})"
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        values = tuple(_text(each) if isinstance(each, datetime) else each for row in some for each in pick(row))
        yield str(compiled).replace(one, ", ".join([one] * len(some))), values


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


def _identity(forecasts: pl.DataFrame, name: str) -> pl.Expr:
    """Return a column as text: times in ISO 8601, with microseconds where there are any."""
    if not isinstance(forecasts.schema[name], pl.Datetime):
        return pl.col(name).cast(pl.String).fill_null("None")
    moment = pl.col(name).cast(TIME)
    exact = moment.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
    whole = moment.dt.microsecond() == 0
    return pl.when(whole).then(moment.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")).otherwise(exact)
