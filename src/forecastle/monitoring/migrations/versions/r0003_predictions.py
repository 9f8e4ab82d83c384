"""Forecasts made on request, apart from the live ones: a row for each series that was asked about.

It only adds, so that an older forecastle that is still at work goes on undisturbed.
"""

from typing import Any

import sqlalchemy as sql
from alembic import op

revision = "0003_v0.1.0"
down_revision = "0002_v0.1.0"
branch_labels = None
depends_on = None


def _text(name: str) -> sql.Column[str]:
    return sql.Column(name, sql.String, nullable=False)


def _moment(name: str) -> sql.Column[Any]:
    return sql.Column(name, sql.DateTime(timezone=True), nullable=False)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "predictions",
        sql.Column("prediction_id", sql.String, primary_key=True),
        *(_text("task"), _text("series_id"), _moment("origin"), _moment("issued_at")),
        *(_text("model_version"), _text("data_version"), _text("estimator")),
        sql.Column("drifted", sql.Boolean, nullable=False),
        sql.Column("degraded", sql.Boolean, nullable=False),
        sql.Column("data_age", sql.Double),
        *(_text("feature_digest"), _text("forecasts")),
    )
    op.create_index("predictions_by_issue", "predictions", ["task", "issued_at"])
