"""A task's data is as old as that of the series furthest behind: a dead one among living ones is seen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data.history import History
from forecastle.data.quality_check import QualityReport
from forecastle.frame import conform
from forecastle.monitoring import freshness, verdicts
from forecastle.monitoring.journal import Journal
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Asked(History):
    """A history that counts how often all of it was asked."""

    times = 0

    def extent(self) -> pl.DataFrame:
        type(self).times += 1
        return super().extent()


class House:
    """A journal and a history whose newest row is of NOON, and one look at them."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.journal = Journal(f"sqlite:///{folder}/journal.db")
        self.history = History(folder / "history", tuple(task.columns))

    def fill(self, **last: timedelta) -> None:
        """Give each series a row of every hour of a day, the newest so long before NOON."""
        rows = [
            {"series_id": name, "timestamp": at, self.task.target: 1.0, "available_at": at, "collected_at": at}
            for name, behind in last.items()
            for at in (NOON - behind - hour * HOUR for hour in range(24))
        ]
        self.history.append(conform(pl.DataFrame(rows), tuple(self.task.columns)))

    def look(self, now: datetime = NOON, remembers: bool = True) -> tuple[str, timedelta] | None:
        """Return which series is furthest behind, and how far."""
        rows = self.history.read(as_of=now, start=NOON - freshness.reach(self.task))
        newest = freshness.newest_of_each(self.task, rows)
        if remembers:
            freshness.remember(self.journal, self.task, self.history, newest, now)
        found = freshness.oldest(self.journal, self.task, newest, now)
        return None if found is None else (found.series_id, found.age)


@pytest.fixture
def house(task: Task, tmp_path: Path) -> House:
    return House(task, tmp_path)


def test_one_series_that_is_silent_among_others_is_how_old_the_data_is(house: House) -> None:
    house.fill(EWR=0 * HOUR, JFK=5 * HOUR, LGA=1 * HOUR)
    assert house.look() == ("JFK", 5 * HOUR)


def test_a_value_that_is_missing_is_none(house: House) -> None:
    house.fill(EWR=0 * HOUR, JFK=5 * HOUR)
    empty = {"series_id": "JFK", "timestamp": NOON, house.task.target: None, "available_at": NOON, "collected_at": NOON}
    house.history.append(conform(pl.DataFrame([empty]), tuple(house.task.columns)))
    assert house.look() == ("JFK", 5 * HOUR)


def test_one_that_died_long_ago_is_found_in_the_whole_history_and_remembered(house: House) -> None:
    house.fill(EWR=0 * HOUR, JFK=100 * DAY)
    assert house.look() == ("JFK", 100 * DAY)
    assert house.look(NOON + HOUR, remembers=False) == ("JFK", 100 * DAY + HOUR)


def test_one_that_dies_is_remembered_beyond_what_is_read_and_forgotten_when_it_is_back(house: House) -> None:
    house.fill(EWR=0 * HOUR, JFK=30 * HOUR)
    assert house.look() == ("JFK", 30 * HOUR)
    later = {"EWR": NOON + 9 * DAY}
    found = freshness.oldest(house.journal, house.task, later, NOON + 9 * DAY)
    assert found == freshness.Oldest("JFK", 9 * DAY + 30 * HOUR)
    back = {"EWR": NOON, "JFK": NOON}
    freshness.remember(house.journal, house.task, house.history, back, NOON + HOUR)
    assert house.journal.heartbeats(house.task.name)[freshness.BEHIND].detail == ""
    assert freshness.oldest(house.journal, house.task, {"EWR": NOON}, NOON) == freshness.Oldest("EWR", timedelta(0))


def test_a_series_that_has_not_begun_is_not_waited_for_and_asked_of_once_a_day(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(EWR=0 * HOUR, JFK=1 * HOUR)
    house.history = Asked(house.history.root, house.history.columns)
    monkeypatch.setattr(Asked, "times", 0)
    for hour in range(30):
        assert house.look(NOON + hour * HOUR) == ("JFK", (1 + hour) * HOUR)
    assert Asked.times == 2


def test_one_the_task_names_no_more_does_not_count(house: House) -> None:
    house.fill(EWR=0 * HOUR, JFK=30 * HOUR)
    house.look()
    house.task = house.task.model_copy(update={"series": tuple(s for s in house.task.series if s.id != "JFK")})
    found = freshness.oldest(house.journal, house.task, {"EWR": NOON, "JFK": NOON - 30 * HOUR}, NOON)
    assert found == freshness.Oldest("EWR", timedelta(0))


def test_one_that_the_gate_withholds_has_an_incident_of_its_own_and_does_not_count(
    house: House, judged: Callable[..., QualityReport]
) -> None:
    house.fill(EWR=0 * HOUR, JFK=5 * HOUR, LGA=1 * HOUR)
    verdicts.polled(house.journal, house.task.name, judged("JFK"), NOON)
    assert verdicts.withheld(house.journal, house.task.name) == ("JFK",)
    assert house.look() == ("LGA", HOUR)
    house.journal.close_incident(house.task.name, verdicts.WITHHELD, NOON)
    assert house.look() == ("JFK", 5 * HOUR)


def test_where_all_are_withheld_the_oldest_of_them_counts(house: House, judged: Callable[..., QualityReport]) -> None:
    house.fill(EWR=4 * HOUR, JFK=5 * HOUR)
    verdicts.polled(house.journal, house.task.name, judged("EWR", "JFK"), NOON)
    assert house.look() == ("JFK", 5 * HOUR)


def test_where_the_source_decides_which_series_there_are_one_silent_for_long_is_gone(house: House) -> None:
    house.task = house.task.model_copy(update={"series": ()})
    house.fill(EWR=0 * HOUR, JFK=30 * HOUR, LGA=100 * DAY)
    assert house.look() == ("JFK", 30 * HOUR)


def test_without_any_value_there_is_no_age(house: House) -> None:
    assert freshness.oldest(house.journal, house.task, {}, NOON) is None
