"""The journal on a real PostgreSQL server: its scripts, as the SQL that Alembic writes for it, and its whole work."""

from __future__ import annotations

import io
import os
import pwd
import runpy
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from alembic import command
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from forecastle.errors import StorageUnavailable
from forecastle.monitoring import incidents, migrations, samples
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import FOLDER, REFUSED, PredictionLog, asked
from forecastle.monitoring.rules import rules_for
from forecastle.task import Task
from forecastle.monitoring.tables import BUSY_SECONDS, TABLES

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MACHINE = runpy.run_path(str(Path(__file__).parent.parent / "laws" / "live_scoring.py"))["machine"]


def lack(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the server's user may enter; the server's socket lies in it."""
    made = Path(tempfile.mkdtemp(prefix="pg-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Path]:
    """A PostgreSQL server on a socket in the folder, without the network."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or not shutil.which("psql"):
        lack("PostgreSQL is not installed; apt-get install postgresql")
    own: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            lack("the user postgres, whom Debian's package makes, is missing")
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


def url(server: Path, database: str) -> str:
    ask(server, f"CREATE DATABASE {database}")
    return f"postgresql+psycopg://postgres@/{database}?host={server}"


def test_the_law_of_live_scoring_holds_on_postgresql(server: Path) -> None:
    told = MACHINE(url(server, "scoring"))
    run_state_machine_as_test(
        told, settings=settings(max_examples=10, stateful_step_count=20, deadline=None, phases=[Phase.generate])
    )


def test_incidents_heartbeats_and_samples_are_kept_on_postgresql(server: Path, task: Task) -> None:
    with Journal(url(server, "monitored")) as journal:
        assert journal.open_incident("weather", "data-drift", "said: \0", NOON)
        assert not journal.open_incident("weather", "data-drift", "r", NOON)
        for _ in range(3):
            journal.beat("weather", "watch", NOON)
        assert journal.heartbeats("weather")["watch"].count == 3
        one = samples.Sample("forecastle_gate_failing", (("task", "weather"),), NOON, 1.0)
        for _ in range(2):
            samples.keep(journal, "weather", [one], rules_for(task), NOON - HOUR, NOON)
        assert one in samples.recall(journal, "weather", NOON + HOUR)
        assert samples.last_look(journal, "weather") == NOON
        assert journal.close_incident("weather", "data-drift", NOON + HOUR, "back")
        (told,) = incidents.listing(journal)
        assert told["reason"] == r"said: \x00"  # PostgreSQL takes no NUL
        assert [step["what"] for step in told["steps"]] == ["opened", "closed"]
        assert journal.forget("weather", NOON + 2 * HOUR, [])["incidents"] == 1 and incidents.listing(journal) == []


def prediction(name: str) -> dict[str, Any]:
    return {
        **{"prediction_id": name, "task": "weather", "series_id": "JFK", "origin": NOON, "issued_at": NOON + HOUR},
        **{"model_version": "1", "data_version": "abc", "estimator": "blend", "drifted": True, "degraded": False},
        **{"data_age": 600.0, "feature_digest": "d", "forecasts": "[]"},
    }


def test_what_requests_were_answered_is_kept_once_on_postgresql(server: Path) -> None:
    row = prediction("1")
    with Journal(url(server, "asked")) as journal:
        journal.record_predictions([row, row | {"prediction_id": "2", "drifted": False}])
        journal.record_predictions([row | {"data_age": 0.0}])
        kept = sorted(asked(journal, "weather"), key=lambda one: str(one["prediction_id"]))
        assert kept == [row, row | {"prediction_id": "2", "drifted": False}]
        assert journal.drift_flags("weather", 10, NOON + HOUR) == (True, False)


def test_one_row_that_postgresql_cannot_hold_keeps_no_other_out_of_it(server: Path, tmp_path: Path) -> None:
    with Journal(url(server, "poisoned")) as journal:
        log = PredictionLog(lambda: journal, tmp_path, every=3600)
        log.add([prediction("a"), prediction("b"), prediction("ill") | {"series_id": "J\0K"}, prediction("c")])
        log.flush()
        log.add([prediction("d")])
        log.close()
        assert {one["prediction_id"] for one in asked(journal, "weather")} == {"a", "b", "c", "d"}
    assert [one.suffix for one in (tmp_path / FOLDER).iterdir()] == [REFUSED]


def test_while_postgresql_hangs_what_is_answered_is_on_the_disk_and_comes_in_when_it_goes_on(
    server: Path, tmp_path: Path
) -> None:
    with Journal(url(server, "hanging")) as journal:
        log = PredictionLog(lambda: journal, tmp_path, every=0.05)
        log.add([prediction("a")])
        assert until(lambda: len(asked(journal, "weather")) == 1)
        processes = [int((server / "data" / "postmaster.pid").read_text().split()[0])]
        processes += map(int, ask(server, "SELECT pid FROM pg_stat_activity WHERE datname = 'hanging'"))
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            log.add([prediction("b")])
            assert until(lambda: len(list((tmp_path / FOLDER).glob("*.jsonl"))) == 1)
            log.add([prediction("c")])
            assert until(lambda: len(list((tmp_path / FOLDER).glob("*.jsonl"))) == 2)
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)
        assert until(lambda: len(asked(journal, "weather")) == 3 and not list((tmp_path / FOLDER).iterdir()))
        log.close()


def until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_it_waits_for_other_writers_on_postgresql_only_so_long(server: Path) -> None:
    with Journal(url(server, "bounded")) as journal, journal.engine.connect() as connection:
        connection.rollback()
        assert connection.execute(sql.text("SHOW lock_timeout")).scalar_one() == f"{BUSY_SECONDS}s"


def test_many_that_open_one_journal_of_postgresql_at_once_make_it_once(server: Path) -> None:
    address, faults = url(server, "together"), []

    def open_one() -> None:
        try:
            Journal(address).close()
        except BaseException as fault:  # the thread's own, told to the test
            faults.append(fault)

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert faults == []
    assert ask(server, "SELECT count(*) FROM journal_version", "together") == ["1"]


def test_an_older_journal_on_postgresql_is_brought_forward(server: Path) -> None:
    address = url(server, "older")
    migrations.upgrade(sql.create_engine(address), to=migrations.REVISIONS[0])
    with Journal(address) as journal:
        assert journal.revised("weather") == 0
    assert ask(server, "SELECT version_num FROM journal_version", "older") == [migrations.REVISIONS[-1]]


def test_a_server_that_is_not_there_is_told_without_its_password(server: Path) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        Journal(f"postgresql+psycopg://somebody:hunter2@/nowhere?host={server}")
    assert "hunter2" not in str(caught.value)
