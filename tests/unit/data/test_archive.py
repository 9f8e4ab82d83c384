"""The archive keeps every answer as it was received."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.data.archive import Archive
from forecastle.errors import StorageUnavailable
from forecastle.http import Answer

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
ANSWER = Answer("https://source.example/?key=***", 200, {"content-type": "application/json"}, b'{"a": 1}\r\n\xff\x00')


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def files(archive: Archive) -> dict[str, bytes]:
    return {
        str(path.relative_to(archive.root)): path.read_bytes() for path in archive.root.rglob("*") if path.is_file()
    }


def test_what_was_saved_is_read_back_byte_for_byte(archive):
    assert archive.read(archive.save(ANSWER, NOON)) == ANSWER.body


def test_a_note_tells_where_and_when_an_answer_came_from(archive):
    name = archive.save(ANSWER, NOON)
    note = json.loads((archive.root / name).read_bytes())
    assert name.startswith("2013/12/01/120000-")
    assert note["url"] == "https://source.example/?key=***"
    assert note["status"] == 200
    assert note["headers"] == {"content-type": "application/json"}
    assert note["collected_at"] == "2013-12-01T12:00:00Z"
    assert note["bytes"] == len(ANSWER.body)


def test_saving_the_same_collection_again_changes_nothing(archive):
    name = archive.save(ANSWER, NOON)
    before = files(archive)
    assert archive.save(ANSWER, NOON) == name
    assert files(archive) == before


def test_equal_bodies_of_two_collections_are_stored_once_and_noted_twice(archive):
    first, second = archive.save(ANSWER, NOON), archive.save(ANSWER, NOON + timedelta(hours=1))
    assert first != second
    assert archive.read(first) == archive.read(second)
    assert len([name for name in files(archive) if name.startswith("bodies/")]) == 1


def test_two_answers_of_one_moment_have_two_names(archive):
    other = Answer("https://source.example/?page=2", 200, {}, ANSWER.body)
    assert archive.save(ANSWER, NOON) != archive.save(other, NOON)


def test_a_collection_is_named_in_utc_whatever_zone_its_time_has(archive):
    from zoneinfo import ZoneInfo

    assert archive.save(ANSWER, NOON.astimezone(ZoneInfo("Asia/Tokyo"))) == archive.save(ANSWER, NOON)


def test_an_answer_that_is_no_longer_what_was_stored_is_refused(archive):
    name = archive.save(ANSWER, NOON)
    body = next(path for path in (archive.root / "bodies").rglob("*") if path.is_file())
    body.write_bytes(b"tampered")
    with pytest.raises(StorageUnavailable, match="other bytes"):
        archive.read(name)


def test_an_answer_that_is_not_there_is_named(archive):
    with pytest.raises(StorageUnavailable, match="2013/12/01/nothing.json"):
        archive.read("2013/12/01/nothing.json")


def test_the_collections_of_a_stretch_of_time_are_named_in_order_both_ends_included(archive):
    moments = [NOON - timedelta(days=1), NOON, NOON + timedelta(seconds=1), NOON + timedelta(days=40)]
    names = [archive.save(ANSWER, moment) for moment in reversed(moments)][::-1]
    assert archive.names(NOON - timedelta(days=9), NOON + timedelta(days=90)) == names
    assert archive.names(NOON, NOON + timedelta(seconds=1)) == names[1:3]
    assert archive.names(NOON + timedelta(seconds=2), NOON + timedelta(seconds=9)) == []
    assert archive.note(names[1])["collected_at"] == "2013-12-01T12:00:00Z"


def test_a_note_that_is_not_there_or_damaged_is_unavailable(archive):
    name = archive.save(ANSWER, NOON)
    for damaged in (b"{", b"[]", b"{}", None):
        (archive.root / name).unlink() if damaged is None else (archive.root / name).write_bytes(damaged)
        with pytest.raises(StorageUnavailable, match="Restore the archive"):
            archive.note(name)
