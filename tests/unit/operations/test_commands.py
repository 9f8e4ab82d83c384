"""The operator's commands: arguments in, one call, an answer that another program can read."""

from __future__ import annotations

import json
import tarfile
import shutil
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


def test_the_guides_to_upgrade_and_to_restore_lead_back_to_what_was(
    settings: Settings, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "tasks").mkdir()
    shutil.copy(root / "tasks" / "nyc-temperature.toml", tmp_path / "tasks")
    monkeypatch.setenv("FORECASTLE_GIT", "false")

    def follow(guide: str) -> list[str]:
        """Run a guide's commands in order, but for those that need a network or Docker; return what was run."""
        text = (root / "docs" / f"{guide}.md").read_text(encoding="utf-8").replace("/backups/", f"{tmp_path}/")
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith("forecastle ")]
        ran = [line.removeprefix("forecastle ") for line in lines if not line.startswith("forecastle run live")]
        for line in ran:
            assert main(line.split()) == 0, f"{line}\n{capsys.readouterr()}"
        return [line.split()[0] for line in ran]

    assert follow("howto-upgrade") == ["backup", "migrate", "migrate", "doctor"]
    (tmp_path / "before-upgrade.tar.gz").rename(tmp_path / "2026-11-23.tar.gz")
    shutil.rmtree(settings.home)
    assert follow("howto-restore") == ["restore", "migrate", "doctor"]
    archive = Archive(settings.task_folder("nyc-temperature") / "archive")
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


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../outside", tarfile.REGTYPE, ""),
        ("/outside", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc"),
        ("link", tarfile.LNKTYPE, "../outside"),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_archive_that_reaches_outside_is_no_backup_and_leaves_nothing(
    settings: Settings, tmp_path: Path, capsys, name: str, kind: bytes, target: str
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "evil.tar", "w") as archive:
        archive.addfile(entry)
    assert main(["restore", "--from", str(tmp_path / "in" / "evil.tar")]) == 2
    assert "whole backup" in capsys.readouterr().err
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["evil.tar"]
    assert not (tmp_path / "outside").exists()


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("restore --from folder", "no manifest that can be read (backup.json: no such file or directory)"),
        ("restore --from plain", "a folder, or a file of .tar, .tar.gz, .tgz, at plain; found another file"),
        ("restore --from plain.tar.gz", "a whole backup in plain.tar.gz; found no tar file, or a torn one"),
        ("prune --task folder/", "task files in folder; found none"),
        ("run train --task bytes.toml", "bytes.toml; found bytes that are no text in UTF-8, at byte 0"),
        ("run train --task folder.toml", "folder.toml; found is a directory"),
        ("replay --port -3", "--port"),
    ],
)
def test_what_is_not_what_a_command_needs_is_said_in_words(
    settings: Settings, tmp_path: Path, capsys, arguments: str, said: str
) -> None:
    for name in ("folder", "folder.toml"):
        (tmp_path / name).mkdir()
    for name in ("plain", "plain.tar.gz"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    assert main(arguments.split()) == 2
    told = capsys.readouterr().err
    assert said in told and "Errno" not in told and "Traceback" not in told


def test_a_home_below_a_file_and_a_journal_that_cannot_be_are_mistakes_of_the_settings(
    settings: Settings, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("FORECASTLE_JOURNAL", "no address")
    assert main(["backup", "--to", str(tmp_path / "copy")]) == 2
    assert "FORECASTLE_JOURNAL" in capsys.readouterr().err and not (tmp_path / "copy").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path / "file" / "home"))
    for command in ("migrate", "quarantine list"):
        assert main(command.split()) == 2
        assert "Mend FORECASTLE_HOME" in capsys.readouterr().err


def test_a_journal_that_is_no_database_stops_a_migration_in_words(settings: Settings, capsys) -> None:
    write_text(settings.home / "journal.db", "garbage")
    assert main(["migrate"]) == 4
    assert "found file is not a database" in capsys.readouterr().err


def test_a_note_that_was_spoilt_is_named_with_where(settings: Settings, capsys) -> None:
    write_text(settings.home / "store.json", "{\n  garbage")
    assert main(["migrate"]) == 4
    assert "found no JSON from line 2, column 3 on" in capsys.readouterr().err
