"""The bitemporal history by example; its laws are in tests/laws/test_history_laws.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data.history import _REMEMBERED, Appended, History
from forecastle.data.store import Folder
from forecastle.errors import StorageUnavailable

NOON = datetime(2013, 2, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history", ("t", "p"))


def row(timestamp=NOON, collected=NOON, available=None, series="EWR", **values) -> pl.DataFrame:
    times = {"timestamp": timestamp, "available_at": available or collected, "collected_at": collected}
    return pl.DataFrame({"series_id": series, **times, **values})


def values(table: pl.DataFrame) -> list[float | None]:
    return table["t"].to_list()


def test_nothing_stored_is_an_empty_table_of_the_contract(history):
    assert history.read().is_empty() and history.versions(as_of=NOON).is_empty()
    assert history.read().columns == ["series_id", "timestamp", "available_at", "collected_at", "t", "p"]
    assert history.newest() is None
    assert history.extent().is_empty()
    assert history.append(history.read()) == Appended(0, 0, 0)


def test_an_append_tells_new_rows_revisions_and_what_was_known(history):
    first = pl.concat([row(t=1.0, p=None), row(NOON + HOUR, t=2.0, p=None)])
    assert history.append(first) == Appended(new=2, revised=0, known=0)
    later = NOON + 2 * HOUR
    again = pl.concat([row(NOON, later, t=1.5), row(NOON + HOUR, later, t=2.0), row(later, later, t=3.0)])
    assert history.append(again) == Appended(new=1, revised=1, known=1)


def test_what_was_backfilled_was_known_when_it_could_be_and_a_revision_when_it_was_collected(history):
    history.append(row(NOON, collected=NOON + 100 * HOUR, available=NOON + HOUR, t=1.0))
    history.append(row(NOON, collected=NOON + 200 * HOUR, available=NOON + HOUR, t=2.0))
    assert history.read(as_of=NOON).is_empty()
    assert values(history.read(as_of=NOON + HOUR)) == [1.0]
    assert values(history.read(as_of=NOON + 199 * HOUR)) == [1.0]
    assert values(history.read(as_of=NOON + 200 * HOUR)) == [2.0]
    assert values(history.versions()) == [1.0, 2.0]


def test_a_value_that_a_source_takes_back_is_null_from_then_on(history):
    history.append(row(t=1.0))
    history.append(row(collected=NOON + HOUR, t=None))
    assert values(history.read(as_of=NOON)) == [1.0]
    assert values(history.read()) == [None]


def test_a_version_that_arrives_late_is_put_in_its_place_and_what_was_confirmed_after_it_returns(history):
    history.append(row(t=3.0))
    history.append(row(collected=NOON + 2 * HOUR, t=3.0))
    assert history.append(row(collected=NOON + HOUR, t=5.0)) == Appended(new=0, revised=1, known=0)
    assert values(history.versions()) == [3.0, 5.0, 3.0]
    assert values(history.read(as_of=NOON + HOUR)) == [5.0]
    assert values(history.read()) == [3.0]


def test_rows_are_read_by_series_and_time_however_they_came(history):
    history.append(pl.concat([row(NOON + HOUR, series="LGA", t=4.0), row(series="LGA", t=3.0)]))
    history.append(pl.concat([row(NOON + HOUR, t=2.0), row(t=1.0)]))
    assert values(history.read()) == [1.0, 2.0, 3.0, 4.0]
    assert values(history.read(start=NOON + HOUR)) == [2.0, 4.0]
    assert values(history.read(end=NOON + HOUR)) == [1.0, 3.0]


def test_extent_and_newest_tell_what_is_there(history):
    history.append(pl.concat([row(t=1.0), row(NOON + HOUR, t=1.0), row(NOON + HOUR / 7, series="LGA", t=1.0)]))
    history.append(row(collected=NOON + HOUR, t=9.0))
    assert history.extent().rows() == [("EWR", NOON, NOON + HOUR, 2), ("LGA", NOON + HOUR / 7, NOON + HOUR / 7, 1)]
    assert history.newest() == NOON + HOUR


def test_a_column_added_later_is_null_before_and_one_dropped_stays_stored(history):
    history.append(row(t=1.0, p=990.0))
    wider = History(history.root, ("t", "w"))
    wider.append(row(NOON + HOUR, t=2.0, w=5.0))
    for number in range(20):
        wider.append(row(NOON + (2 + number) * HOUR, t=2.0, w=5.0))
    assert wider.read(end=NOON + 2 * HOUR)["w"].to_list() == [None, 5.0]
    assert history.read(end=NOON + 2 * HOUR)["p"].to_list() == [990.0, None]


def test_many_rows_are_read_month_by_month_with_the_same_answer(history, monkeypatch):
    rows = pl.concat([row(NOON + 100 * number * HOUR, series=name, t=1.0) for number in range(30) for name in "ba"])
    history.append(rows)
    before, late = history.read(), NOON + 1500 * HOUR
    monkeypatch.setattr("forecastle.data.history.MOST_ROWS", 10)
    assert history.read().equals(before)
    assert history.read(start=NOON + HOUR, end=late).equals(
        before.filter(pl.col("timestamp").is_between(NOON + HOUR, late, closed="left"))
    )


def test_what_a_process_remembers_is_what_it_would_read_and_no_more_than_it_may_hold(history, monkeypatch):
    monkeypatch.setattr("forecastle.data.history.MOST_REMEMBERED", 30)
    for hour in range(80):
        history.append(row(NOON + hour * HOUR, NOON + (hour + 1) * HOUR, t=float(hour)))
        start, now = NOON + (hour - 10) * HOUR, NOON + (hour + 1) * HOUR
        found = history.read(as_of=now, start=start)
        assert values(found) == [float(one) for one in range(max(0, hour - 10), hour + 1)]
        if hour < 20:
            with monkeypatch.context() as patched:
                patched.setattr(Folder, "get", lambda *_: pytest.fail("it was read already"))
                assert history.read(as_of=now, start=start).equals(found)
        assert all(one.versions.height <= 30 for key, one in _REMEMBERED.items() if key[0] == str(history.root))


def test_a_torn_file_and_a_stranger_s_file_are_told_apart_from_data(history):
    history.append(row(t=1.0))
    (history.root / ".batch-x.parquet.abc.part").write_bytes(b"torn")
    assert values(history.read()) == [1.0]
    (history.root / "mine.parquet").write_bytes(b"")
    with pytest.raises(StorageUnavailable, match="mine.parquet"):
        history.read()


def test_a_damaged_segment_is_said_and_never_read_around(history):
    history.append(row(t=1.0))
    next(history.root.glob("batch-*.parquet")).write_bytes(b"PAR1 damaged")
    with pytest.raises(StorageUnavailable, match="readable segments"):
        history.read()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable):
        History(tmp_path / "file" / "history", ("t",)).append(row(t=1.0))


def test_receipts_of_more_than_a_quarter_ago_are_forgotten_and_nothing_that_is_read_changes(history, monkeypatch):
    monkeypatch.setattr("forecastle.data.history.MOST_RECEIPTS", 1)
    history.append(row(t=1.0))
    for days in range(0, 200, 10):
        history.append(row(collected=NOON + timedelta(days=days, hours=1), t=1.0))
    kept = history._receipts.list()
    assert kept and min(one.first for one in kept) > NOON + timedelta(days=60)
    assert values(history.versions()) == [1.0]
