"""Which series a task has, and which lack their past."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from forecastle.data import roster
from forecastle.data.history import History
from forecastle.errors import FormatError, StorageUnavailable

NOW = datetime(2024, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def history(tmp_path: Path, observations) -> History:
    found = History(tmp_path / "history", ("y", "x"))
    found.append(observations(hours=48, series=("a", "b")))
    return found


def named(small_task, *names: str):
    return small_task(series=[{"id": one} for one in names])


def test_a_task_that_names_no_series_has_all_there_are(small_task, history: History, tmp_path: Path) -> None:
    rows = history.read()
    assert roster.in_service(small_task(), rows).equals(rows)
    assert roster.missing(small_task(), tmp_path, history, NOW) == {}


def test_series_with_rows_are_known_where_nothing_was_noted_yet(small_task, history: History, tmp_path: Path) -> None:
    task = named(small_task, "a", "b", "c")
    assert list(roster.missing(task, tmp_path, history, NOW)) == ["c"]
    roster.enrol(tmp_path, ["c"], NOW)
    assert roster.missing(task, tmp_path, history, NOW) == {}


def test_a_series_taken_out_is_retired_and_one_that_comes_back_lacks_what_passed(
    small_task, history: History, tmp_path: Path
) -> None:
    both, one = named(small_task, "a", "b"), named(small_task, "a")
    roster.missing(both, tmp_path, history, NOW)
    assert roster.missing(one, tmp_path, history, NOW) == {}
    assert roster.retired(one, tmp_path) == {"b": NOW}
    assert roster.missing(one, tmp_path, history, NOW + HOUR) == {}
    assert roster.retired(one, tmp_path) == {"b": NOW}
    last = history.extent().filter(series_id="b")["last"][0]
    assert roster.missing(both, tmp_path, history, NOW + HOUR)["b"].start == last
    roster.enrol(tmp_path, ["b"], NOW + HOUR)
    assert roster.missing(both, tmp_path, history, NOW + HOUR) == {} == roster.retired(both, tmp_path)


def test_a_try_in_vain_is_remembered_until_it_succeeds(small_task, history: History, tmp_path: Path) -> None:
    task = named(small_task, "a", "c")
    roster.missing(task, tmp_path, history, NOW)
    roster.postpone(tmp_path, "c", NOW)
    assert roster.missing(task, tmp_path, history, NOW)["c"].tried_at == NOW
    roster.enrol(tmp_path, ["c"], NOW)
    assert roster.missing(task, tmp_path, history, NOW) == {}


def test_the_release_of_a_series_past_enrols_it_and_that_of_another_batch_does_not(
    small_task, history: History, tmp_path: Path
) -> None:
    task = named(small_task, "a", "c")
    roster.missing(task, tmp_path, history, NOW)
    for day, batch in enumerate(("first", "second")):
        roster.expect(tmp_path, "c", batch)
        roster.postpone(tmp_path, "c", NOW + day * 24 * HOUR)
    roster.enrol_past(tmp_path, "other", NOW)
    assert list(roster.missing(task, tmp_path, history, NOW)) == ["c"]
    roster.enrol_past(tmp_path, "first", NOW)
    assert roster.missing(task, tmp_path, history, NOW) == {}


def test_a_change_waits_for_another_that_has_read_the_list(
    small_task, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = named(small_task, "a", "c")
    roster.missing(task, tmp_path, history, NOW)
    monkeypatch.setattr(roster, "LOCK_SECONDS", 0.05)
    changes = (
        lambda: roster.missing(task, tmp_path, history, NOW),
        lambda: roster.enrol(tmp_path, ["c"], NOW),
        lambda: roster.lapse(tmp_path, ["a"], NOW),
        lambda: roster.expect(tmp_path, "c", "batch"),
        lambda: roster.enrol_past(tmp_path, "batch", NOW),
        lambda: roster.postpone(tmp_path, "c", NOW),
    )
    before = (tmp_path / "series.json").read_bytes()
    with FileLock(tmp_path / ".series.lock"):
        for change in changes:
            with pytest.raises(StorageUnavailable, match="alone"):
                change()
    assert (tmp_path / "series.json").read_bytes() == before


def test_changes_by_many_at_once_all_count(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as many:
        list(many.map(lambda name: roster.enrol(tmp_path, [name], NOW), names))
    assert set(json.loads((tmp_path / "series.json").read_bytes())["series"]) == set(names)


def test_a_list_of_a_newer_forecastle_is_refused_and_a_torn_one_is_no_empty_one(
    small_task, history: History, tmp_path: Path
) -> None:
    note = tmp_path / "series.json"
    note.write_text('{"format": 9, "series": {}}', encoding="utf-8")
    with pytest.raises(FormatError):
        roster.missing(named(small_task, "a"), tmp_path, history, NOW)
    note.write_text("", encoding="utf-8")
    with pytest.raises(StorageUnavailable):
        roster.missing(named(small_task, "a"), tmp_path, history, NOW)
