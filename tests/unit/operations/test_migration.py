"""``forecastle migrate``: every store forward, or nothing where nothing is to be done."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from forecastle.cli import main
from forecastle.data.archive import Archive
from forecastle.data.ingestion import load_batch
from forecastle.errors import FormatError
from forecastle.models import bundle
from forecastle.monitoring.migrations import REVISIONS
from forecastle.operations.migration import Step, migrate
from forecastle.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


def before_formats(home: Path) -> None:
    """Make a home as the first forecastle left it: a task's folder, and a journal without a revision."""
    (home / "weather" / "archive").mkdir(parents=True)
    with sqlite3.connect(home / "journal.db") as connection:
        connection.execute(
            "CREATE TABLE heartbeats (task VARCHAR NOT NULL, work VARCHAR NOT NULL, at DATETIME NOT NULL, "
            "count INTEGER NOT NULL, detail VARCHAR NOT NULL, PRIMARY KEY (task, work))"
        )
        connection.execute("INSERT INTO heartbeats VALUES ('weather', 'watch', '2013-12-01 12:00:00', 3, '')")


def test_where_there_is_no_store_nothing_is_made(settings: Settings) -> None:
    assert migrate(settings) == ()
    assert not settings.home.exists()


def test_a_home_from_before_formats_goes_forward_once(settings: Settings) -> None:
    before_formats(settings.home)
    steps = migrate(settings, dry_run=True)
    assert [(one.store, one.to) for one in steps] == [("home", "1"), *(("journal", one) for one in REVISIONS)]
    assert not (settings.home / "store.json").exists()
    assert migrate(settings) == steps
    assert migrate(settings) == ()
    with sqlite3.connect(settings.home / "journal.db") as connection:
        assert connection.execute("SELECT count FROM heartbeats").fetchall() == [(3,)]


def test_the_command_says_what_it_did(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    before_formats(settings.home)
    assert main(["migrate", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dry_run"] is True and [Step(**one).store for one in said["steps"]] == ["home"] + ["journal"] * len(
        REVISIONS
    )
    assert main(["migrate"]) == 0 and "gone to 1" in capsys.readouterr().out
    assert main(["migrate"]) == 0 and "up to date" in capsys.readouterr().out


def test_every_door_refuses_stores_of_a_newer_forecastle(
    settings: Settings, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.home.mkdir()
    (settings.home / "store.json").write_text('{"format": 9, "forecastle": "4.0"}', encoding="utf-8")
    task = str(root / "tasks" / "nyc-temperature.toml")
    for call in (
        ["run", "live", "--task", task],
        ["live", "--task", task, "--passes", "1"],
        ["ingest", "--task", task],
        ["backtest", "--task", task],
        ["serve", "--tasks", task, "--port", "0"],
        ["prune", "--task", task],
        ["backup", "--to", str(tmp_path / "copy")],
        ["migrate"],
    ):
        assert main(call) == 2, call
        assert "Use forecastle 4.0 or newer" in capsys.readouterr().err
    assert [path.name for path in settings.home.iterdir()] == ["store.json"]


def test_a_file_of_a_newer_format_is_refused_by_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "2013").mkdir()
    (tmp_path / "2013" / "note.json").write_text('{"format": 2, "sha256": "a"}', encoding="utf-8")
    (tmp_path / "batch.json").write_text('{"format": 2, "sha256": "a"}', encoding="utf-8")
    (tmp_path / "batch.parquet").write_bytes(b"")
    text = json.dumps({"format": 2}) + "\n"
    (tmp_path / "model.json").write_text(text, encoding="utf-8")
    (tmp_path / "digest").write_text(bundle.digest({"model.json": text.encode()}) + "\n", encoding="utf-8")
    readers = (
        lambda: Archive(tmp_path).read("2013/note.json"),
        lambda: load_batch(tmp_path),
        lambda: bundle.load(tmp_path),
    )
    for read in readers:
        with pytest.raises(FormatError) as caught:
            read()
        assert caught.value.exit_code == 2
