"""The journal's schema, revision by revision: Alembic scripts that ship with the package.

The revision in force stands in the table ``journal_version`` (a name of its own, since MLflow may share the database).
A new journal is made as today's tables say and stamped; one from before revisions is brought to the first of them,
which only adds what is missing; further steps that only add are taken at once too, any other one by ``forecastle
migrate`` alone, since other processes may be at work. Alembic is imported only where a script has to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sql
from sqlalchemy.schema import CreateIndex, CreateTable

from forecastle import __version__
from forecastle.errors import FormatError
from forecastle.monitoring.tables import TABLES

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "journal_version"
REVISIONS = ("0001_v0.1.0", "0002_v0.1.0", "0003_v0.1.0", "0004_v0.1.0")
"""Every revision, oldest first: its number, and the forecastle that brought it."""

HARMLESS = frozenset({"0002_v0.1.0", "0003_v0.1.0", "0004_v0.1.0"})
"""Those that only add what older code does not miss: they are made by whoever opens the journal first."""

_LOCK = 7_330_001  # PostgreSQL's advisory lock of this schema, any number that nobody else takes
_VERSION = sql.Table(VERSION_TABLE, sql.MetaData(), sql.Column("version_num", sql.String(32), primary_key=True))


def open_schema(engine: sql.Engine, revisions: tuple[str, ...] = REVISIONS, forward: bool = False) -> None:
    """Make sure that the journal has today's schema: make it where there is none, note it where it is not noted; bring
    an older one ``forward`` if told to, or where that is harmless.

    Raises FormatError where it is newer than this code, older and not to be changed, or somebody else's.
    """
    with engine.connect() as connection:
        found = revision(connection)
    if found is None:
        with _alone(engine) as connection:
            found = revision(connection)
            if found is None and not _tables(connection):
                _make(connection, revisions[-1])
                found = revisions[-1]
            elif found is None:
                found = _take_up(connection, revisions[0])
    _require_known(engine, found, revisions)
    missing = revisions[revisions.index(found) + 1 :]
    if missing and (forward or HARMLESS.issuperset(missing)):
        upgrade(engine)
    elif found != revisions[-1]:
        raise FormatError(
            f"the journal at {_shown(engine)} in revision {revisions[-1]}",
            f"revision {found}",
            "Stop what runs on it, make a backup, then run: forecastle migrate",
        )


def pending(engine: sql.Engine, revisions: tuple[str, ...] = REVISIONS) -> tuple[str, ...]:
    """Return the revisions the journal still needs, oldest first; FormatError where it is newer than this code."""
    with engine.connect() as connection:
        found = revision(connection)
        if found is None:
            return revisions if _tables(connection) else ()
    _require_known(engine, found, revisions)
    return revisions[revisions.index(found) + 1 :]


def upgrade(engine: sql.Engine, to: str = "head", folder: Path | None = None) -> None:
    """Run the scripts (of ``folder``; default: the package's) up to a revision, all or none of them."""
    from alembic import command

    with _alone(engine) as connection:
        made = config(folder)
        made.attributes["connection"] = connection
        command.upgrade(made, to)


def revision(connection: sql.Connection) -> str | None:
    """Return the revision that is noted in the database, or None where none is."""
    if not sql.inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(sql.select(_VERSION.c.version_num)).scalar()
    return found


def config(folder: Path | None = None) -> Config:
    """Return Alembic's configuration for a folder of scripts; default: the package's."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(folder or Path(__file__).parent).replace("%", "%%"))
    return made


def _require_known(engine: sql.Engine, found: str, revisions: tuple[str, ...]) -> None:
    if found not in revisions:
        needed = found.partition("_v")[2]
        raise FormatError(
            f"the journal at {_shown(engine)} in revision {revisions[-1]} or older",
            f"revision {found}",
            f"Use forecastle {needed} or newer; this is {__version__}." if needed else "Use a newer forecastle.",
        )


def _make(connection: sql.Connection, newest: str) -> None:
    for table in TABLES.sorted_tables:
        connection.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index))
    connection.execute(CreateTable(_VERSION))
    connection.execute(sql.insert(_VERSION).values(version_num=newest))


def _take_up(connection: sql.Connection, first: str) -> str:
    """Bring a journal from before revisions to the first one, which adds what is missing and changes nothing."""
    from alembic import command

    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, first)
    inspector = sql.inspect(connection)
    blank = sql.create_engine("sqlite://")
    with blank.begin() as model:
        made.attributes["connection"] = model
        command.upgrade(made, first)
        wanted = {name: _columns(sql.inspect(model), name) for name in _tables(model)}
    strange = [name for name, columns in wanted.items() if _columns(inspector, name) != columns]
    if strange:
        raise FormatError(
            f"a journal of forecastle at {_shown(connection.engine)}",
            f"tables of these names with other columns: {', '.join(strange)}",
            "Give the journal a database of its own (FORECASTLE_JOURNAL).",
        )
    return first


def _tables(connection: sql.Connection) -> list[str]:
    """Return which of the journal's tables are there."""
    return sorted({*sql.inspect(connection).get_table_names()} & {*TABLES.tables})


def _columns(inspector: sql.Inspector, table: str) -> set[tuple[str, bool]]:
    return {(str(one["name"]), bool(one["nullable"])) for one in inspector.get_columns(table)}


@contextmanager
def _alone(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Give a transaction in which nobody else changes the schema, all of whose changes are kept or none."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's driver begins none before CREATE and ALTER
        else:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
        yield connection


def _shown(engine: sql.Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
