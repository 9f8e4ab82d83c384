"""Segments: few files, no row lost, readers and writers beside each other."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest

from forecastle.data import segments
from forecastle.data.segments import Segments
from forecastle.data.store import Folder
from forecastle.errors import FormatError, StorageUnavailable
from forecastle.frame import TIME

SCHEMA = {"at": TIME, "x": pl.Int64()}
T0 = datetime(2013, 1, 31, tzinfo=UTC)


def rows(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"at": [T0 + timedelta(hours=number) for number in numbers], "x": numbers}, schema=SCHEMA)


def kinds(folder: Segments) -> list[str]:
    return [segment.kind for segment in folder.list()]


@pytest.fixture
def folder(tmp_path: Path) -> Segments:
    return Segments(Folder(tmp_path), by="at", most_batches=3)


def add(folder: Segments, *numbers: int) -> None:
    folder.merge_if_many(folder.add(rows(*numbers)))


def test_too_many_batches_are_merged_into_the_months_they_touch(folder):
    for number in (0, 20, 30, 40):
        add(folder, number)
    assert [(one.kind, one.first.month, one.rows) for one in folder.list()] == [("month", 1, 2), ("month", 2, 2)]
    assert sorted(folder.read(SCHEMA)["x"]) == [0, 20, 30, 40]


def test_batches_that_are_small_beside_their_month_are_merged_with_each_other(folder):
    folder.add(rows(*range(30, 200)))
    folder.merge()
    for number in range(4):
        add(folder, 200 + number)
    assert kinds(folder) == ["batch", "month"]
    assert folder.read(SCHEMA).height == 174


def test_a_large_batch_is_merged_at_once(folder, monkeypatch):
    monkeypatch.setattr(segments, "LARGE_BATCH", 10)
    add(folder, *range(10))
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
            add(folder, number)
            written[0] = number
    finally:
        done.set()
        reader.join()
    assert short == []


def test_of_segments_that_hold_the_same_one_stays_and_both_mergers_mean_the_same(folder):
    for name in ("b", "a"):
        folder.store.put(f"month-20130131T000000-20130131T000000-1-{name}.parquet", parquet(rows(0)))
    folder.add(rows(0))
    folder.merge()
    assert [one.name[-9:] for one in folder.list()] == ["a.parquet"]


def test_a_segment_with_a_column_more_is_not_taken_for_one_without(folder):
    folder.add(rows(0))
    folder.add(rows(0).with_columns(y=pl.lit(None, pl.Float64)))
    folder.merge()
    assert folder.read({**SCHEMA, "y": pl.Float64()}).height == 1
    assert [one.rows for one in folder.list()] == [1]


def test_old_months_are_forgotten_and_no_others(folder):
    for number in (0, 20, 30, 40):
        add(folder, number)
    folder.forget(T0 + timedelta(days=1))
    assert [one.first.month for one in folder.list()] == [2]


def test_names_whose_objects_are_gone_are_said_and_not_looked_for_for_ever(folder, tmp_path):
    folder.add(rows(0))
    (segment,) = folder.list()
    (tmp_path / segment.name).rename(tmp_path / "elsewhere")
    (tmp_path / segment.name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageUnavailable, match="that stay while they are read"):
        folder.read(SCHEMA)


def test_what_a_killed_writer_left_is_swept_by_a_later_merge_and_what_another_writes_is_not(folder, tmp_path):
    folder.add(rows(0))
    torn, written = tmp_path / ".batch-1.parquet.x.part", tmp_path / ".batch-2.parquet.y.part"
    for path in (torn, written):
        path.touch()
    os.utime(torn, (0, 0))
    folder.merge()
    assert not torn.exists() and written.exists()


def parquet(table: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def _as_written_by(folder: Segments, **notes: str) -> None:
    """Write every segment anew with these notes of Parquet's and no others."""
    for one in folder.list():
        path = folder.store.path / one.name
        pl.read_parquet(path).write_parquet(path, metadata=notes)


def test_a_segment_of_a_newer_format_is_neither_read_nor_merged_by_older_code(folder):
    add(folder, 1)
    newer = {segments.FORMAT_NOTE: str(segments.FORMAT + 1), segments.WRITER_NOTE: "7.0"}
    _as_written_by(folder, **newer)
    before = folder.list()
    for action in (lambda: folder.read(SCHEMA), folder.merge):
        with pytest.raises(FormatError, match=r"format 1 or older.*format 2.*Use forecastle 7\.0") as caught:
            action()
        assert caught.value.exit_code == 2
    assert folder.list() == before


def test_a_segment_carries_its_format_and_one_without_is_of_the_first_and_merges_into_one_with(folder):
    for number in range(2):
        add(folder, number)
    _as_written_by(folder)
    assert sorted(folder.read(SCHEMA)["x"]) == [0, 1]
    folder.merge()
    (month,) = folder.list()
    assert pl.read_parquet_metadata(folder.store.path / month.name)[segments.FORMAT_NOTE] == "1"
