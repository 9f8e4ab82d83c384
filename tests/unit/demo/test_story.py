"""The demo's story: its chapters, the room it makes for itself, and whose folder it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from forecastle.demo.story import CHAPTERS, LOCK, MARK, START, _room, tell
from forecastle.errors import UserError


def test_the_chapters_are_the_ones_of_the_story_and_each_says_what_it_does() -> None:
    assert len(CHAPTERS) == 8
    assert all(work.__doc__ and work.__doc__.splitlines()[0].endswith(".") for _, work in CHAPTERS)


def test_the_story_begins_when_the_history_of_eleven_months_is_there() -> None:
    assert (START.year, START.month, START.day) == (2013, 12, 1)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(UserError, match="an empty folder, or a former demo"):
        tell(tmp_path, keep=False, plain=True, days=14)
    assert mine.read_text() == "mine" and not (tmp_path / MARK).exists()


def test_a_folder_in_which_another_demo_runs_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "data").mkdir(parents=True)
    (folder / MARK).write_text("a demo's")
    with FileLock(folder / LOCK), pytest.raises(UserError, match="no other demo is using"):
        tell(folder, keep=False, plain=True, days=14)
    assert (folder / "data").exists()


def test_a_demo_that_was_killed_before_it_made_anything_may_be_told_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt), _room(folder):
        raise KeyboardInterrupt
    (folder / "data").mkdir()
    with _room(folder):
        assert {one.name for one in folder.iterdir()} <= {MARK, LOCK}
