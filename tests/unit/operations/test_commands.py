"""The operator's commands: arguments in, one call, an answer that another program can read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecastle.cli import main
from forecastle.data.archive import Archive
from forecastle.frame import write_text
from forecastle.http import Answer
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home that holds one archived answer and a journal."""
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    made = Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]
    archive = Archive(made.task_folder("nyc-temperature") / "archive")
    archive.save(Answer("https://x/", 200, {}, b"body"), datetime(2013, 12, 1, tzinfo=UTC))
    Journal(made.journal_url).close()
    return made


def test_a_backup_and_its_restore_say_what_they_did(settings: Settings, tmp_path: Path, capsys, monkeypatch) -> None:
    assert main(["backup", "--to", str(tmp_path / "copy.tar"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] >= 3 and said["path"] == str(tmp_path / "copy.tar")
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path / "other"))
    assert main(["restore", "--from", str(tmp_path / "copy.tar")]) == 0
    assert f"Restored {said['files']} files" in capsys.readouterr().out
    archive = Archive(tmp_path / "other" / "nyc-temperature" / "archive")
    assert [archive.read(one.name) for one in archive.notes()] == [b"body"]


def test_a_backup_leaves_out_locks_and_what_unfinished_writes_left(settings: Settings, tmp_path: Path) -> None:
    folder = settings.task_folder("nyc-temperature")
    for name in ("history/.lock", "history/.batch.parquet.x.part", "archive/.note.json.y.part", ".prune.lock"):
        write_text(folder / name, "")
    assert main(["backup", "--to", str(tmp_path / "copy")]) == 0
    left = [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert [name for name in left if name.endswith((".lock", ".part"))] == []


def test_restoring_from_nothing_is_the_users_mistake(settings: Settings, tmp_path: Path, capsys) -> None:
    assert main(["restore", "--from", str(tmp_path / "none")]) == 2
    assert "forecastle backup" in capsys.readouterr().err
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(b"\x1f\x8b no")
    assert main(["restore", "--from", str(torn)]) == 2
    assert "whole backup" in capsys.readouterr().err


def test_prune_speaks_to_people_and_to_programs(settings: Settings, root: Path, capsys, monkeypatch) -> None:
    task = str(root / "tasks" / "nyc-temperature.toml")
    monkeypatch.setenv("FORECASTLE_KEEP_ARCHIVE", "5")
    assert main(["prune", "--task", task, "--dry-run", "--now", "2014-01-01", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["store"], one["items"], one["dry_run"]) for one in said] == [
        ("runs", 0, True),
        ("reports", 0, True),
        ("archive", 1, True),
    ]
    assert main(["prune", "--task", task, "--now", "2014-01-01"]) == 0
    assert "nyc-temperature archive: 1 gone" in capsys.readouterr().out
    assert list(Archive(settings.task_folder("nyc-temperature") / "archive").notes()) == []
