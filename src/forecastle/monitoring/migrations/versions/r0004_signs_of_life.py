"""The service's heartbeats, one a slot of fifteen seconds in which it was there.

It only adds, so that an older forecastle that is still at work goes on undisturbed.
"""

import sqlalchemy as sql
from alembic import op

revision = "0004_v0.1.0"
down_revision = "0003_v0.1.0"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table("signs_of_life", sql.Column("at", sql.DateTime(timezone=True), primary_key=True))
