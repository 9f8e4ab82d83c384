"""The ledger of what was let into the history: complete, readable after a crash, and true as of any time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data import admissions, intake
from forecastle.data.ingestion import make_batch
from forecastle.data.admissions import Admission, admitted, answers, note
from forecastle.errors import QualityGateFailed, StorageUnavailable

NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def batch(number: int, admitted_after: timedelta = timedelta(0), hours: int = 0) -> Admission:
    at = NOON + (hours or number) * HOUR
    return Admission(f"b{number}", at, at + admitted_after, (f"a{number}.json", f"c{number}.json"))


def test_what_was_noted_is_read_back_in_the_order_of_collection_over_months(tmp_path):
    for number in (30, 2, 1):
        note(tmp_path, batch(number))
    assert admitted(tmp_path) == (batch(1), batch(2), batch(30))
    assert answers(admitted(tmp_path)) == ("a1.json", "c1.json", "a2.json", "c2.json", "a30.json", "c30.json")
    assert sorted(path.name for path in (tmp_path / "admitted").glob("*.jsonl")) == ["2024-01.jsonl", "2024-02.jsonl"]


def test_as_of_a_time_there_is_what_was_collected_and_let_in_by_then(tmp_path):
    for one in (batch(1), batch(2, admitted_after=5 * HOUR), batch(3)):
        note(tmp_path, one)
    assert [one.batch for one in admitted(tmp_path, NOON + 2 * HOUR)] == ["b1"]
    assert [one.batch for one in admitted(tmp_path, NOON + 3 * HOUR)] == ["b1", "b3"]
    assert [one.batch for one in admitted(tmp_path, NOON + 7 * HOUR)] == ["b1", "b2", "b3"]


def test_a_batch_let_in_twice_counts_once_from_the_first_time(tmp_path):
    for one in (batch(1), batch(1, admitted_after=HOUR), batch(1)):
        note(tmp_path, one)
    assert admitted(tmp_path) == (batch(1),)


def test_answers_read_back_from_earlier_collections_are_named_once_from_when_they_first_were(tmp_path):
    polls = [f"2024/01/31/1{number}0000-a.json" for number in range(4)]
    first = replace(batch(2), archived=(polls[1],), recalled=(polls[0],))
    second = replace(batch(4), archived=(polls[3],), recalled=(polls[0], polls[1], polls[2]))
    for one in (first, second, second):
        note(tmp_path, one)
    assert admitted(tmp_path) == (first, replace(second, recalled=(polls[2],)))
    assert answers(admitted(tmp_path, NOON + 2 * HOUR)) == (polls[0], polls[1])
    assert answers(admitted(tmp_path)) == tuple(polls)


def test_what_a_batch_let_in_later_names_is_named_again_by_one_known_earlier(tmp_path):
    released = replace(batch(1, admitted_after=9 * HOUR), recalled=("2024/01/31/100000-a.json",))
    note(tmp_path, released)
    note(tmp_path, replace(batch(3), recalled=released.recalled))
    assert released.recalled[0] in answers(admitted(tmp_path, NOON + 3 * HOUR))


@pytest.mark.parametrize("left", [1, 10, 40])
def test_a_line_torn_by_a_crash_spoils_no_other(tmp_path, left):
    note(tmp_path, batch(1))
    path = tmp_path / "admitted" / "2024-01.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:left])
    assert admitted(tmp_path) == (batch(1),)
    note(tmp_path, batch(2))
    assert admitted(tmp_path) == (batch(1), batch(2))


def test_writers_at_once_lose_no_line(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: note(tmp_path, batch(number, hours=1)), range(60)))
    assert {one.batch for one in admitted(tmp_path)} == {f"b{number}" for number in range(60)}


def test_a_folder_that_refuses_is_said(tmp_path):
    (tmp_path / "admitted").write_text("a file")
    with pytest.raises(StorageUnavailable, match="admissions"):
        note(tmp_path, batch(1))


def test_nothing_let_in_is_an_empty_ledger(tmp_path):
    assert admitted(tmp_path) == ()


def rows(task, now: datetime, value: float | None) -> pl.DataFrame:
    hours = [now - ago * HOUR for ago in range(49)]
    usual = {"pressure_msl": 1000.0}
    values = {name: [usual.get(name, 5.0) + at.hour / 10 + at.day for at in hours] for name in task.columns}
    table = pl.concat([pl.DataFrame({"series_id": one, "timestamp": hours, **values}) for one in task.series_ids])
    return table if value is not None else table.with_columns(pl.lit(None, dtype=pl.Float64).alias(task.target))


def test_the_gate_s_yes_is_noted_and_its_no_is_not(task, tmp_path):
    for name, value, now in (("good.json", 1.0, NOON), ("bad.json", None, NOON + HOUR)):
        made = make_batch(task, [rows(task, now, value)], now - 48 * HOUR, now, now, True, [name])
        if value is None:
            with pytest.raises(QualityGateFailed):
                intake.admit(task, tmp_path, made, now)
        else:
            intake.admit(task, tmp_path, made, now)
    assert answers(admitted(tmp_path)) == ("good.json",)


def test_a_row_is_in_the_history_only_after_its_line_is_in_the_ledger(task, tmp_path: Path, monkeypatch):
    made = make_batch(task, [rows(task, NOON, 1.0)], NOON - 48 * HOUR, NOON, NOON, True, ["good.json"])

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(admissions, "note", crash)
    with pytest.raises(KeyboardInterrupt):
        intake.admit(task, tmp_path, made, NOON)
    assert not list((tmp_path / "history").glob("*.parquet"))
