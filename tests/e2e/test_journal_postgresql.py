"""The journal's scripts on a real PostgreSQL server, as the SQL that Alembic writes for it.

No driver of PostgreSQL is among the locked packages, so the server is reached by its own program.
"""

from __future__ import annotations

import io
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from forecastle.monitoring import migrations
from forecastle.monitoring.tables import TABLES


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the server's user may enter; the server's socket lies in it."""
    made = Path(tempfile.mkdtemp(prefix="pg-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def server(folder: Path, missing_component) -> Iterator[Path]:
    """A PostgreSQL server on a socket in the folder, without the network."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or not shutil.which("psql"):
        missing_component("PostgreSQL is not installed; apt-get install postgresql")
    own: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            missing_component("the user postgres, whom Debian's package makes, is missing")
        own = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs[-1] / program, *arguments], check=True, capture_output=True, cwd=folder, **own)

    data = str(folder / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield folder
    finally:
        run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")


def ask(server: Path, text: str, database: str = "postgres") -> list[str]:
    call = ["psql", "-h", str(server), "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qAt"]
    answer = subprocess.run(call, input=text, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def script() -> str:
    written = io.StringIO()
    made = migrations.config()
    made.output_buffer = written
    made.attributes["dialect"] = "postgresql"
    command.upgrade(made, "head", sql=True)
    return written.getvalue()


COLUMNS = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"


def test_the_scripts_make_on_postgresql_what_the_code_uses(server: Path) -> None:
    ask(server, "CREATE DATABASE scripted; CREATE DATABASE today;")
    ask(server, script(), "scripted")
    today = [str(CreateTable(table).compile(dialect=postgresql.dialect())) + ";" for table in TABLES.sorted_tables]
    ask(server, "\n".join(today), "today")
    query = f"{COLUMNS} WHERE table_schema = 'public' AND table_name <> 'journal_version' ORDER BY 1, 2"
    assert ask(server, query, "scripted") == ask(server, query, "today") != []
    indexes = {line.partition("|")[0] for line in ask(server, INDEXES, "scripted")}
    assert {index.name for table in TABLES.sorted_tables for index in table.indexes} <= indexes
    (waiting,) = [line for line in ask(server, INDEXES, "scripted") if line.startswith("forecasts_waiting")]
    assert "WHERE" in waiting and "waiting" in waiting
    assert ask(server, "SELECT version_num FROM journal_version", "scripted") == [migrations.REVISIONS[-1]]
