"""What monitoring remembers: the steps of an incident, samples of metrics, what a forecast was made of, revised truths.

It only adds, with defaults, so that an older forecastle that is still at work goes on undisturbed.
"""

import sqlalchemy as sql
from alembic import op

revision = "0002_v0.1.0"
down_revision = "0001_v0.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("forecasts", sql.Column("feature_digest", sql.String, nullable=False, server_default=""))
    op.add_column("forecasts", sql.Column("data_age", sql.Double))
    op.add_column("outcomes", sql.Column("revisions", sql.Integer, nullable=False, server_default="0"))
    op.add_column("outcomes", sql.Column("first_actual", sql.Double))
    few = sql.text("revisions > 0")
    op.create_index("outcomes_revised", "outcomes", ["task"], sqlite_where=few, postgresql_where=few)
    op.create_table(
        "incident_steps",
        sql.Column("step", sql.Integer, primary_key=True),
        sql.Column("number", sql.Integer, sql.ForeignKey("incidents.number", ondelete="CASCADE"), nullable=False),
        sql.Column("at", sql.DateTime(timezone=True), nullable=False),
        sql.Column("what", sql.String, nullable=False),
        sql.Column("detail", sql.String, nullable=False),
    )
    op.create_index("incident_steps_by_number", "incident_steps", ["number"])
    op.create_table(
        "samples",
        *(sql.Column(name, sql.String, primary_key=True) for name in ("task", "metric", "labels")),
        sql.Column("at", sql.DateTime(timezone=True), primary_key=True),
        sql.Column("value", sql.Double, nullable=False),
    )
