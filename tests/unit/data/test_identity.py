"""What a task's name stands for is noted once, and every other meaning of it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecastle.data import identity
from forecastle.errors import FormatError, StorageUnavailable, TaskError


def test_nothing_noted_refuses_nothing_and_writes_nothing(small_task, tmp_path: Path) -> None:
    identity.require(small_task(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_difference_is_named_at_once_with_the_way_out(small_task, tmp_path: Path) -> None:
    identity.hold(small_task(columns={"y": {"unit": "m"}, "x": {}}), tmp_path)
    other = small_task(frequency="30m", columns={"y": {"unit": "km"}, "x": {}})
    with pytest.raises(TaskError, match="unit m, now km; frequency 1h, now 30m.*a name of its own") as caught:
        identity.require(other, tmp_path)
    assert caught.value.exit_code == 2


def test_a_unit_that_was_never_said_may_not_be_said_later_without_a_word(small_task, tmp_path: Path) -> None:
    identity.hold(small_task(), tmp_path)
    with pytest.raises(TaskError, match="unit none, now m"):
        identity.hold(small_task(columns={"y": {"unit": "m"}, "x": {}}), tmp_path)


def test_all_else_may_change(small_task, tmp_path: Path) -> None:
    identity.hold(small_task(), tmp_path)
    identity.hold(small_task(horizon="6h", columns={"y": {"maximum": 9}}, features={"windows": [4]}), tmp_path)


def test_a_note_that_is_torn_or_newer_is_no_new_task(small_task, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{"format": 5}', encoding="utf-8")
    with pytest.raises(FormatError):
        identity.hold(small_task(), tmp_path)
    (tmp_path / "task.json").write_text('{"for', encoding="utf-8")
    with pytest.raises(StorageUnavailable, match=r"task\.json"):
        identity.hold(small_task(), tmp_path)
