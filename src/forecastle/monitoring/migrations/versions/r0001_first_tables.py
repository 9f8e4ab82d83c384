"""The journal's first tables: forecasts, outcomes, heads, incidents, heartbeats.

They may be there already, whole or in part: journals were made of them before revisions were noted.
"""

from typing import Any

import sqlalchemy as sql
from alembic import op

revision = "0001_v0.1.0"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, **options: Any) -> sql.Column[str]:
    return sql.Column(name, sql.String, nullable=False, **options)


def _moment(name: str, nullable: bool = False) -> sql.Column[Any]:
    return sql.Column(name, sql.DateTime(timezone=True), nullable=nullable)


def _promise() -> list[sql.Column[Any]]:
    return [
        *(_text("task"), _text("series_id"), _moment("origin"), _moment("timestamp")),
        sql.Column("horizon", sql.Integer, nullable=False),
        *(sql.Column(name, sql.Double) for name in ("value", "lower", "upper", "last")),
        *(_text("model_version"), _text("data_version"), _moment("issued_at")),
    ]


def upgrade() -> None:
    """Make the tables and indexes that are not there."""
    op.create_table(
        "forecasts",
        _text("forecast_id", primary_key=True),
        *_promise(),
        sql.Column("drifted", sql.Boolean, nullable=False),
        _text("estimator"),
        _text("state"),
        if_not_exists=True,
    )
    _index("forecasts_by_time", "forecasts", "task", "timestamp")
    _index("forecasts_by_origin", "forecasts", "task", "series_id", "origin")
    _index("forecasts_by_issue", "forecasts", "task", "horizon", "issued_at")
    _index("forecasts_waiting", "forecasts", "task", "timestamp", where="state = 'waiting'")
    _index("forecasts_lost", "forecasts", "task", "timestamp", where="state = 'never_came'")
    op.create_table(
        "outcomes",
        sql.Column("forecast_id", sql.String, sql.ForeignKey("forecasts.forecast_id"), primary_key=True),
        *_promise(),
        sql.Column("actual", sql.Double, nullable=False),
        _moment("scored_at"),
        if_not_exists=True,
    )
    _index("outcomes_by_time", "outcomes", "task", "timestamp")
    op.create_table(
        "heads",
        *(_text("task", primary_key=True), _text("series_id", primary_key=True), _moment("origin")),
        if_not_exists=True,
    )
    op.create_table(
        "incidents",
        sql.Column("number", sql.Integer, primary_key=True),
        *(_text("task"), _text("kind"), _text("reason"), _moment("opened_at"), _moment("closed_at", nullable=True)),
        _text("note"),
        if_not_exists=True,
    )
    _index("incidents_open", "incidents", "task", "kind", unique=True, where="closed_at IS NULL")
    op.create_table(
        "heartbeats",
        *(_text("task", primary_key=True), _text("work", primary_key=True), _moment("at")),
        sql.Column("count", sql.Integer, nullable=False),
        _text("detail"),
        if_not_exists=True,
    )


def _index(name: str, table: str, *columns: str, where: str = "", unique: bool = False) -> None:
    only: dict[str, Any] = {"sqlite_where": sql.text(where), "postgresql_where": sql.text(where)} if where else {}
    op.create_index(name, table, list(columns), unique=unique, if_not_exists=True, **only)
