"""Segments: few files, no row lost, readers and writers beside each other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from forecastle.data import segments
from forecastle.data.segments import Segments
from forecastle.errors import StorageUnavailable
from forecastle.frame import TIME

SCHEMA = {"at": TIME, "x": pl.Int64()}
T0 = datetime(2013, 1, 31, tzinfo=UTC)


def rows(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"at": [T0 + timedelta(hours=number) for number in numbers], "x": numbers}, schema=SCHEMA)


def kinds(folder: Segments) -> list[str]:
    return [segment.kind for segment in folder.list()]


@pytest.fixture
def folder(tmp_path: Path) -> Segments:
    return Segments(tmp_path, by="at", most_batches=3)


def test_too_many_batches_are_merged_into_the_months_they_touch(folder):
    for number in (0, 20, 30, 40):
        folder.add(rows(number))
    assert [(one.kind, one.first.month, one.rows) for one in folder.list()] == [("month", 1, 2), ("month", 2, 2)]
    assert sorted(folder.read(SCHEMA)["x"]) == [0, 20, 30, 40]


def test_batches_that_are_small_beside_their_month_are_merged_with_each_other(folder):
    folder.add(rows(*range(30, 200)))
    folder.merge()
    for number in range(4):
        folder.add(rows(200 + number))
    assert kinds(folder) == ["batch", "month"]
    assert folder.read(SCHEMA).height == 174


def test_a_large_batch_is_merged_at_once(folder, monkeypatch):
    monkeypatch.setattr(segments, "LARGE_BATCH", 10)
    folder.add(rows(*range(10)))
    assert kinds(folder) == ["month"]


def test_only_the_segments_that_can_hold_the_asked_time_are_opened(folder):
    folder.add(rows(0))
    folder.add(rows(5, 6))
    assert [one.rows for one in folder.list(T0 + timedelta(hours=1))] == [2]
    assert [one.rows for one in folder.list(None, T0 + timedelta(hours=5))] == [1]
    assert folder.read(SCHEMA, T0 + timedelta(hours=6), T0 + timedelta(hours=7))["x"].to_list() == [6]


def test_a_reader_beside_a_writer_that_merges_sees_every_row_that_was_there(folder):
    folder.add(rows(0))
    done, short = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            least = written[0]
            found = set(folder.read(SCHEMA)["x"])
            short.extend(set(range(least + 1)) - found)

    written = [0]
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 60):
            folder.add(rows(number))
            written[0] = number
    finally:
        done.set()
        reader.join()
    assert short == []


def test_a_folder_locked_by_another_is_said(folder, monkeypatch):
    monkeypatch.setattr(segments, "LOCK_SECONDS", 0.05)
    with FileLock(folder.root / ".lock"), pytest.raises(StorageUnavailable, match="another process"):
        with folder.locked():
            pass


def test_what_a_killed_writer_left_is_swept_by_the_next_merge(folder):
    folder.add(rows(0))
    torn = folder.root / ".batch-1.parquet.x.part"
    torn.touch()
    folder.merge()
    assert not torn.exists()
