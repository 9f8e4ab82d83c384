"""The board: what is kept in memory, when the stores are asked again, and what happens when they do not answer."""

from __future__ import annotations

import threading
from datetime import timedelta

import polars as pl
import pytest

from forecastle.errors import StorageUnavailable, TaskError
from forecastle.monitoring.freshness import window
from forecastle.monitoring.journal import FIGURES, OUTCOME, Journal
from forecastle.serving.board import Board

NAME = "nyc-temperature"


@pytest.fixture
def board(filled, task):
    board = Board(filled, [task], poll_every=0)
    yield board
    board.close()


def test_nothing_is_read_again_while_the_stores_say_the_same(board, clock) -> None:
    board.refresh(NAME, clock())
    before = board.snapshot(NAME)
    details = board.details(NAME, clock())
    board.refresh(NAME, clock())
    assert board.snapshot(NAME) is before
    assert board.details(NAME, clock()) is details


@pytest.mark.parametrize("change", ["forecast", "score", "incident", "closed incident", "observation", "champion"])
def test_every_kind_of_change_in_the_stores_is_seen(change, board, filled, task, clock, made_up) -> None:
    board.refresh(NAME, clock())
    before, details = board.snapshot(NAME), board.details(NAME, clock())
    later = made_up.NOW.replace(minute=0) + timedelta(hours=1)
    with Journal(filled.journal_url) as journal:
        if change == "forecast":
            journal.record(made_up.forecasts(task, later, later))
        elif change == "score":
            due = journal.due(NAME, later)
            journal.score(due.with_columns(actual=due["value"], scored_at=due["timestamp"]).select(list(OUTCOME)))
        elif change == "incident":
            journal.open_incident(NAME, "data-stale", "No data.", later)
        elif change == "closed incident":
            journal.open_incident(NAME, "data-stale", "No data.", later)
            board.refresh(NAME, clock())
            before, details = board.snapshot(NAME), board.details(NAME, clock())
            journal.close_incident(NAME, "data-stale", later)
    if change == "observation":
        made_up.append(filled, task, made_up.observations(task, later, later))
    if change == "champion":
        made_up.publish_champion(filled, task, version="4")
    board.refresh(NAME, clock())
    assert board.snapshot(NAME) is not before
    assert board.details(NAME, clock()) is not details


def test_the_stores_are_asked_when_time_has_passed_by_either_clock(filled, task, clock) -> None:
    board = Board(filled, [task], poll_every=3600)
    assert board.is_due(NAME, clock())
    board.refresh(NAME, clock())
    assert not board.is_due(NAME, clock())
    assert board.is_due(NAME, clock() + timedelta(hours=1))
    assert Board(filled, [task], poll_every=0).is_due(NAME, clock())
    board.close()


def test_while_one_request_reads_others_go_on_with_the_state_before(board, clock) -> None:
    board.refresh(NAME, clock())
    before = board.snapshot(NAME)
    with board._entries[NAME].lock:
        other = threading.Thread(target=board.refresh, args=(NAME, clock()))
        other.start()
        other.join(5)
        assert not other.is_alive()
        assert board.snapshot(NAME) is before


def test_an_unknown_task_is_named_with_the_nearest(board, clock) -> None:
    with pytest.raises(TaskError, match="did you mean 'nyc-temperature'"):
        board.refresh("nyc-temprature", clock())


def test_stores_that_never_answered_raise_and_are_asked_again_next_time(tmp_path, settings, task, clock) -> None:
    (tmp_path / "file").write_text("not a folder")
    broken = settings.model_copy(update={"journal": f"sqlite:///{tmp_path / 'file' / 'journal.db'}"})
    board = Board(broken, [task], poll_every=3600)
    with pytest.raises(StorageUnavailable):
        board.refresh(NAME, clock())
    assert board.is_due(NAME, clock())


def test_a_store_that_comes_back_takes_its_mark_off(board, filled, clock) -> None:
    board.refresh(NAME, clock())
    pointer = filled.task_folder(NAME) / "models" / "champion.json"
    content = pointer.read_text()
    pointer.write_text("{")
    board.refresh(NAME, clock())
    assert "a store does not answer" in str(board.snapshot(NAME).condition(clock()).reason)
    pointer.write_text(content)
    board.refresh(NAME, clock())
    assert board.snapshot(NAME).condition(clock()).reason is None


def test_the_newest_two_days_are_kept_in_memory(board, task, clock, made_up) -> None:
    board.refresh(NAME, clock())
    observed = board.snapshot(NAME).observed
    newest = made_up.NOW.replace(minute=0)
    assert window(task) == timedelta(days=2)
    assert (observed["timestamp"].min(), observed["timestamp"].max()) == (newest - timedelta(days=2), newest)
    assert observed.columns == ["series_id", "timestamp", "temperature_2m"]


def test_prometheus_scrapes_the_age_of_the_series_furthest_behind_and_answers_keep_their_own(
    filled, task, clock, made_up
) -> None:
    def age(name: str) -> float:
        (found,) = [one.value for one in board.readings(NAME, clock()) if one.metric == "forecastle_data_age_seconds"]
        return found

    board = Board(filled, [task], poll_every=0)
    board.refresh(NAME, clock())
    assert age(NAME) == 600
    later = made_up.NOW.replace(minute=0) + timedelta(hours=5)
    living = made_up.observations(task, later - timedelta(hours=4), later).filter(pl.col("series_id") != "JFK")
    made_up.append(filled, task, living)
    clock.advance(hours=5)
    board.refresh(NAME, clock())
    assert age(NAME) == 5 * 3600 + 600
    assert board.snapshot(NAME).condition(clock()).data_age == 600
    board.close()


def test_where_two_days_are_few_steps_24_of_them_are_kept(task) -> None:
    assert window(task.model_copy(update={"frequency": timedelta(days=1)})) == timedelta(days=24)


def test_live_scores_are_those_of_the_outcomes_and_incidents_come_newest_first(board, filled, clock) -> None:
    with Journal(filled.journal_url) as journal:
        journal.open_incident(NAME, "data-stale", "No data.", clock())
    board.refresh(NAME, clock())
    details = board.details(NAME, clock())
    assert details.live is not None and details.live.n == details.outcomes.height
    assert [one.kind for one in details.incidents] == ["data-stale", "quality-gate"]


def test_of_an_outcome_only_what_is_scored_and_drawn_is_kept(board, clock) -> None:
    board.refresh(NAME, clock())
    outcomes = board.details(NAME, clock()).outcomes
    assert outcomes.height > 0 and set(outcomes.columns) == {*FIGURES, "timestamp", "issued_at", "forecast_id"}


def test_after_closing_the_journal_it_is_opened_again_when_needed(board, clock) -> None:
    board.refresh(NAME, clock())
    board.close()
    board.refresh(NAME, clock())
    assert board.snapshot(NAME).fault is None
