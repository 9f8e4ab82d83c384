"""No code reads stores it does not understand: what is newer is refused, what is older is brought forward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forecastle import __version__
from forecastle.data import formats
from forecastle.data.formats import MIGRATIONS, Migration
from forecastle.errors import FormatError, StorageUnavailable


def old_home(home: Path) -> Path:
    """Make a home as it was before formats were noted."""
    (home / "weather" / "archive").mkdir(parents=True)
    (home / "journal.db").touch()
    return home


def noted(home: Path) -> dict[str, object]:
    return dict(json.loads((home / "store.json").read_text(encoding="utf-8")))


def rename(home: Path) -> None:
    """A step of a forecastle to come, which may be done again."""
    if (home / "weather" / "archive").exists():
        (home / "weather" / "archive").rename(home / "weather" / "answers")


LATER = (*MIGRATIONS, Migration(2, "call the archive answers", rename))


def test_a_new_home_is_noted_in_todays_format(tmp_path: Path) -> None:
    formats.open_home(tmp_path / "home")
    assert noted(tmp_path / "home") == {"format": formats.FORMAT, "forecastle": __version__}


def test_a_home_from_before_formats_is_noted_by_whoever_opens_it_first(tmp_path: Path) -> None:
    home = old_home(tmp_path)
    assert [one.to for one in formats.pending(home)] == [1]
    formats.open_home(home)
    assert noted(home)["format"] == 1 and formats.pending(home) == ()


def test_a_home_of_a_newer_forecastle_is_refused_and_says_which_one_it_needs(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"format": 7, "forecastle": "3.2.0", "more": 1}', encoding="utf-8")
    for door in (formats.open_home, formats.check_home):
        with pytest.raises(FormatError, match=r"format 7, written by forecastle 3\.2\.0.*3\.2\.0 or newer") as caught:
            door(tmp_path)
        assert caught.value.exit_code == 2
    assert noted(tmp_path)["format"] == 7


def test_an_older_home_whose_files_would_be_rewritten_waits_to_be_migrated(tmp_path: Path) -> None:
    home = old_home(tmp_path)
    formats.open_home(home)
    with pytest.raises(FormatError, match="make a backup, then run: forecastle migrate"):
        formats.open_home(home, LATER)
    formats.refuse_newer(home, LATER)  # a backup of it can be made
    assert [one.to for one in formats.migrate_home(home, LATER)] == [2]
    assert (home / "weather" / "answers").is_dir() and noted(home)["format"] == 2
    formats.open_home(home, LATER)
    with pytest.raises(FormatError):
        formats.open_home(home)  # and the code of before refuses it from now on


def test_a_migration_that_was_killed_is_taken_up_where_it_stopped(tmp_path: Path) -> None:
    home = old_home(tmp_path)
    formats.open_home(home)
    rename(home)  # done, and killed before it was noted
    assert [one.to for one in formats.migrate_home(home, LATER)] == [2]
    assert noted(home)["format"] == 2


def test_a_note_that_cannot_be_read_is_no_new_home(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text("{", encoding="utf-8")
    with pytest.raises(StorageUnavailable, match=r"store\.json"):
        formats.open_home(tmp_path)


def test_reading_writes_nothing(tmp_path: Path) -> None:
    formats.check_home(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [one.to for one in MIGRATIONS] == list(range(1, formats.FORMAT + 1))
