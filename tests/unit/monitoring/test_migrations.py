"""The journal's schema goes forward by scripts, and code never touches a journal it does not understand."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from forecastle.errors import FormatError
from forecastle.monitoring import migrations
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tables import TABLES, make_engine

FOURTH = """
import sqlalchemy as sql
from alembic import op

revision = "0004_v0.9.0"
down_revision = "0004_v0.1.0"
branch_labels = depends_on = None


def upgrade():
    with op.batch_alter_table("heartbeats") as table:
        table.add_column(sql.Column("host", sql.String, nullable=False, server_default=""))
    if op.get_bind().execute(sql.text("SELECT count(*) FROM incidents")).scalar():
        raise RuntimeError("stopped in the middle")
"""
LATER = (*migrations.REVISIONS, "0004_v0.9.0")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/journal.db"


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The scripts of a forecastle to come, which has one more."""
    folder = tmp_path / "later"
    (folder / "versions").mkdir(parents=True)
    package = Path(migrations.__file__).parent
    for name in ("env.py", *(f"versions/{one.name}" for one in (package / "versions").glob("r*.py"))):
        (folder / name).write_text((package / name).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "versions" / "r0004.py").write_text(FOURTH, encoding="utf-8")
    return folder


def unversioned(url: str, *tables: str) -> sql.Engine:
    """Make a journal as forecastle did before revisions: the first revision's tables, all or some, and no note."""
    engine = make_engine(url)
    migrations.upgrade(engine, to=migrations.REVISIONS[0])
    with engine.begin() as connection:
        for table in sql.inspect(connection).get_table_names():
            if table == migrations.VERSION_TABLE or (tables and table not in tables):
                connection.execute(sql.text(f"DROP TABLE {table}"))
    return engine


def noted(engine: sql.Engine) -> str | None:
    with engine.connect() as connection:
        return migrations.revision(connection)


def note(engine: sql.Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(sql.text("UPDATE journal_version SET version_num = :now"), {"now": revision})


def test_the_scripts_make_the_tables_that_the_code_uses(url: str) -> None:
    engine = make_engine(url)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrations.VERSION_TABLE})
        assert compare_metadata(context, TABLES) == []
        scripted = {index["name"] for table in TABLES.tables for index in sql.inspect(connection).get_indexes(table)}
    assert scripted == {index.name for table in TABLES.sorted_tables for index in table.indexes}


def test_the_scripts_and_a_new_journal_have_the_same_statements(tmp_path: Path) -> None:
    made = []
    for name, make in (("a", lambda one: migrations.upgrade(one)), ("b", lambda one: migrations.open_schema(one))):
        engine = make_engine(f"sqlite:///{tmp_path}/{name}.db")
        make(engine)
        with engine.connect() as connection:
            query = (
                "SELECT name, lower(replace(replace(sql, '\n', ''), '\t', '')) FROM sqlite_master WHERE sql NOT NULL"
            )
            rows = connection.execute(sql.text(query)).all()
        made.append({name: "".join(text.split()).replace('"', "") for name, text in rows if "version" not in name})
    assert made[0].keys() == made[1].keys()
    indexes = [name for name in made[0] if "_by_" in name or name.endswith(("_open", "_waiting", "_lost"))]
    assert {name: made[0][name] for name in indexes} == {name: made[1][name] for name in indexes}


def test_the_code_knows_every_script_and_which_comes_last() -> None:
    scripts = ScriptDirectory.from_config(migrations.config())
    assert tuple(reversed([one.revision for one in scripts.walk_revisions()])) == migrations.REVISIONS
    assert scripts.get_current_head() == migrations.REVISIONS[-1]


def test_a_new_journal_is_noted_without_alembic_being_imported(url: str) -> None:
    program = f"import sys; from forecastle.monitoring.journal import Journal; Journal({url!r}); Journal({url!r})"
    program += "; assert not [name for name in sys.modules if name.startswith('alembic')]"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert noted(make_engine(url)) == migrations.REVISIONS[-1]


def test_a_journal_from_before_revisions_is_taken_up_with_what_it_holds(url: str) -> None:
    engine = unversioned(url)
    with engine.begin() as connection:
        connection.execute(sql.text("INSERT INTO heartbeats VALUES ('t', 'watch', '2013-12-01 12:00:00', 3, '')"))
    with Journal(url) as journal:
        assert journal.heartbeats("t")["watch"].count == 3
    assert noted(engine) == migrations.REVISIONS[-1]


def test_one_whose_making_was_cut_short_is_completed(url: str) -> None:
    engine = unversioned(url, "forecasts", "heads")
    with Journal(url) as journal:
        assert journal.incidents() == () and journal.counts("t")["waiting"] == 0
    assert noted(engine) == migrations.REVISIONS[-1]


def test_somebody_elses_tables_of_the_same_name_are_refused_and_left_alone(url: str) -> None:
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(sql.text("CREATE TABLE incidents (id INTEGER PRIMARY KEY, closed_at TEXT, task, kind)"))
    with pytest.raises(FormatError, match="incidents") as caught:
        Journal(url)
    assert caught.value.exit_code == 2 and "FORECASTLE_JOURNAL" in str(caught.value)
    assert noted(engine) is None and sql.inspect(engine).get_table_names() == ["incidents"]


def test_a_journal_of_a_newer_forecastle_is_refused_and_says_which_one_it_needs(url: str, later: Path) -> None:
    Journal(url).close()
    engine = make_engine(url)
    migrations.upgrade(engine, folder=later)
    with pytest.raises(FormatError, match=r"Use forecastle 0\.9\.0 or newer") as caught:
        Journal(url)
    assert caught.value.exit_code == 2
    with pytest.raises(FormatError):
        migrations.pending(engine)


def test_an_older_journal_is_not_touched_until_it_is_migrated(url: str, later: Path) -> None:
    Journal(url).close()
    engine = make_engine(url)
    with pytest.raises(FormatError, match="forecastle migrate"):
        migrations.open_schema(engine, LATER)
    assert migrations.pending(engine, LATER) == ("0004_v0.9.0",)
    migrations.upgrade(engine, folder=later)
    migrations.open_schema(engine, LATER)
    assert migrations.pending(engine, LATER) == ()
    assert "host" in {one["name"] for one in sql.inspect(engine).get_columns("heartbeats")}


def test_a_revision_that_only_adds_is_made_at_once_and_keeps_what_was_there(url: str) -> None:
    engine = make_engine(url)
    migrations.upgrade(engine, to=migrations.REVISIONS[0])
    with engine.begin() as connection:
        connection.execute(sql.text("INSERT INTO incidents VALUES (1, 't', 'k', 'r', '2013-12-01 12:00:00', NULL, '')"))
    assert migrations.pending(engine) == migrations.REVISIONS[1:] == tuple(sorted(migrations.HARMLESS))
    with Journal(url) as journal:
        assert [one.kind for one in journal.incidents("t")] == ["k"]
    assert noted(engine) == migrations.REVISIONS[-1]


def test_a_migration_that_stops_in_the_middle_leaves_the_journal_as_it_was(url: str, later: Path) -> None:
    engine = make_engine(url)
    migrations.open_schema(engine)
    with engine.begin() as connection:
        connection.execute(sql.text("INSERT INTO incidents VALUES (1, 't', 'k', 'r', '2013-12-01', NULL, '')"))
    with pytest.raises(RuntimeError, match="middle"):
        migrations.upgrade(engine, folder=later)
    assert noted(engine) == migrations.REVISIONS[-1]
    assert "host" not in {one["name"] for one in sql.inspect(engine).get_columns("heartbeats")}


@pytest.mark.parametrize("before", [lambda url: None, unversioned], ids=["new", "unversioned"])
def test_many_that_open_one_journal_at_once_make_it_once(url: str, before: Callable[[str], object]) -> None:
    before(url)
    faults: list[BaseException] = []

    def open_one() -> None:
        try:
            Journal(url).close()
        except BaseException as fault:  # the thread's own, told to the test
            faults.append(fault)

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert faults == []
    with make_engine(url).connect() as connection:
        assert connection.execute(sql.text("SELECT count(*) FROM journal_version")).scalar() == 1


def test_the_scripts_can_be_written_as_sql_for_postgresql() -> None:
    written = io.StringIO()
    made = migrations.config()
    made.output_buffer = written
    made.attributes["dialect"] = "postgresql"
    command.upgrade(made, "head", sql=True)
    text = written.getvalue()
    assert "CREATE TABLE IF NOT EXISTS forecasts" in text and "TIMESTAMP WITH TIME ZONE" in text
    assert "WHERE state = 'waiting'" in text and "INSERT INTO journal_version" in text
