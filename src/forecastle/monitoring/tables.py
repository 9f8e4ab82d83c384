"""The journal's tables, and the engine that reaches them, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from forecastle.errors import SettingsError, StorageUnavailable, printable

BUSY_SECONDS = 30  # for which another writer is waited for
CONNECT_SECONDS = 5  # for a connection: one to the server, or one that others use
_LINE = {  # after which a connection counts as cut, where the other end is silent: libpq's words
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class _Moment(sql.TypeDecorator[datetime]):
    """A time in UTC, to the microsecond; SQLite, which knows no zones, keeps it as text that sorts."""

    impl = sql.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Said(sql.TypeDecorator[str]):
    """Text in the words of others, sources and alerts among them."""

    impl = sql.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else printable(value)


TABLES = sql.MetaData()


def _text(name: str, **options: Any) -> sql.Column[str]:
    return sql.Column(name, sql.String, nullable=False, **options)


def _said(name: str) -> sql.Column[str]:
    return sql.Column(name, _Said, nullable=False)


def _moment(name: str, nullable: bool = False) -> sql.Column[datetime]:
    return sql.Column(name, _Moment, nullable=nullable)


def _promise() -> list[sql.Column[Any]]:
    """Return the columns that a forecast and its outcome share."""
    return [
        *(_text("task"), _text("series_id"), _moment("origin"), _moment("timestamp")),
        sql.Column("horizon", sql.Integer, nullable=False),
        *(sql.Column(name, sql.Double) for name in ("value", "lower", "upper", "last")),
        *(_text("model_version"), _text("data_version"), _moment("issued_at")),
    ]


FORECASTS = sql.Table(
    "forecasts",
    TABLES,
    _text("forecast_id", primary_key=True),
    *_promise(),
    sql.Column("drifted", sql.Boolean, nullable=False),
    _text("estimator"),
    _text("state"),
    _text("feature_digest", server_default=""),
    sql.Column("data_age", sql.Double),
    sql.Index("forecasts_by_time", "task", "timestamp"),
    sql.Index("forecasts_by_origin", "task", "series_id", "origin"),
    sql.Index("forecasts_by_issue", "task", "horizon", "issued_at"),
)
sql.Index(
    "forecasts_waiting",
    FORECASTS.c.task,
    FORECASTS.c.timestamp,
    sqlite_where=FORECASTS.c.state == "waiting",
    postgresql_where=FORECASTS.c.state == "waiting",
)
sql.Index(
    "forecasts_lost",
    FORECASTS.c.task,
    FORECASTS.c.timestamp,
    sqlite_where=FORECASTS.c.state == "never_came",
    postgresql_where=FORECASTS.c.state == "never_came",
)
OUTCOMES = sql.Table(
    "outcomes",
    TABLES,
    sql.Column("forecast_id", sql.String, sql.ForeignKey("forecasts.forecast_id"), primary_key=True),
    *_promise(),
    sql.Column("actual", sql.Double, nullable=False),
    _moment("scored_at"),
    sql.Column("revisions", sql.Integer, nullable=False, server_default="0"),
    sql.Column("first_actual", sql.Double),
    sql.Index("outcomes_by_time", "task", "timestamp"),
)
sql.Index(
    "outcomes_revised",
    OUTCOMES.c.task,
    sqlite_where=OUTCOMES.c.revisions > 0,
    postgresql_where=OUTCOMES.c.revisions > 0,
)
HEADS = sql.Table(
    "heads", TABLES, _text("task", primary_key=True), _text("series_id", primary_key=True), _moment("origin")
)
INCIDENTS = sql.Table(
    "incidents",
    TABLES,
    sql.Column("number", sql.Integer, primary_key=True),
    *(_text("task"), _text("kind"), _said("reason"), _moment("opened_at"), _moment("closed_at", nullable=True)),
    _said("note"),
)
sql.Index(
    "incidents_open",
    INCIDENTS.c.task,
    INCIDENTS.c.kind,
    unique=True,
    sqlite_where=INCIDENTS.c.closed_at.is_(None),
    postgresql_where=INCIDENTS.c.closed_at.is_(None),
)
PREDICTIONS = sql.Table(
    "predictions",
    TABLES,
    _text("prediction_id", primary_key=True),
    *(_text("task"), _text("series_id"), _moment("origin"), _moment("issued_at")),
    *(_text("model_version"), _text("data_version"), _text("estimator")),
    sql.Column("drifted", sql.Boolean, nullable=False),
    sql.Column("degraded", sql.Boolean, nullable=False),
    sql.Column("data_age", sql.Double),
    *(_text("feature_digest"), _text("forecasts")),
    sql.Index("predictions_by_issue", "task", "issued_at"),
)
INCIDENT_STEPS = sql.Table(
    "incident_steps",
    TABLES,
    sql.Column("step", sql.Integer, primary_key=True),
    sql.Column("number", sql.Integer, sql.ForeignKey("incidents.number", ondelete="CASCADE"), nullable=False),
    *(_moment("at"), _text("what"), _said("detail")),
    sql.Index("incident_steps_by_number", "number"),
)
SAMPLES = sql.Table(
    "samples",
    TABLES,
    *(_text(name, primary_key=True) for name in ("task", "metric", "labels")),
    sql.Column("at", _Moment, primary_key=True),
    sql.Column("value", sql.Double, nullable=False),
)
HEARTBEATS = sql.Table(
    "heartbeats",
    TABLES,
    *(_text("task", primary_key=True), _text("work", primary_key=True), _moment("at")),
    sql.Column("count", sql.Integer, nullable=False),
    _said("detail"),
)
SIGNS_OF_LIFE = sql.Table("signs_of_life", TABLES, sql.Column("at", _Moment, primary_key=True))


def make_engine(url: str) -> sql.Engine:
    """Make an engine; a SQLite file gets its folder and a write-ahead log, both patience with others and an end to it.

    What a URL says itself of how long to wait holds.
    """
    try:
        address = sql.make_url(url)
        if address.get_backend_name() not in ("sqlite", "postgresql"):
            raise NoSuchModuleError(f"the database {address.get_backend_name()!r}")
        engine = sql.create_engine(address, **_options(address))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        # The URL may hold a password, and one that cannot be parsed cannot be redacted: it is not shown.
        raise SettingsError(
            "FORECASTLE_JOURNAL to be a SQLAlchemy URL of SQLite or PostgreSQL whose driver is installed",
            "an address that cannot be parsed" if type(error) is ArgumentError else str(error),
            "Write it like sqlite:////var/lib/forecastle/journal.db or postgresql+psycopg://user@host/name.",
        ) from None
    if address.get_backend_name() == "sqlite":
        if address.database:
            _make_folder(Path(address.database).parent)
        sql.event.listen(engine, "connect", _prepare_sqlite)
    else:
        sql.event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _options(address: sql.URL) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {}
    by_libpq = address.get_driver_name() in ("psycopg", "psycopg2")
    line = {name: value for name, value in _LINE.items() if by_libpq and name not in address.query}
    return {"pool_pre_ping": True, "pool_timeout": CONNECT_SECONDS, "connect_args": line}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"to make the journal's folder {folder}", str(error.strerror or error), "Mend the folder's permissions."
        ) from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_postgresql(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
    cursor.close()
    connection.commit()  # or the end of the first transaction takes it back
