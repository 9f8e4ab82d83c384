"""What Alembic runs before the scripts: it is given a connection, or writes SQL for a dialect without one."""

from alembic import context

from forecastle.monitoring.migrations import VERSION_TABLE
from forecastle.monitoring.tables import TABLES

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=context.config.attributes["dialect"], target_metadata=TABLES, version_table=VERSION_TABLE
    )
else:
    context.configure(connection=connection, target_metadata=TABLES, version_table=VERSION_TABLE, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
