"""An incident asks for a retrain once, with a cooldown, only with enough new data; what came of it stands in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.monitoring import retraining
from forecastle.monitoring.journal import Journal
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path}/journal.db")


def done(journal: Journal, task: Task) -> list[str]:
    numbers = [one.number for one in journal.incidents(task.name)]
    return [step.what for steps in journal.incident_steps(numbers).values() for step in steps]


def test_a_drift_alarm_asks_once_until_it_is_answered(journal: Journal, task: Task) -> None:
    journal.open_incident(task.name, "data-drift", "r", NOON)
    assert retraining.consider(journal, task, NOON, NOON)
    assert not retraining.consider(journal, task, NOON, NOON + 9 * DAY)
    (number,) = retraining.wanted(journal, task, NOON)
    retraining.note(journal, [number], retraining.STARTED, "train-1", NOON)
    assert retraining.wanted(journal, task, NOON) == (number,), "one that was cut off is begun again"
    retraining.note(journal, [number], retraining.KEPT_OUT, "It does not win.", NOON)
    assert retraining.wanted(journal, task, NOON) == ()
    assert done(journal, task) == ["opened", "retrain asked", "training started", "challenger kept out"]


def test_a_training_that_keeps_being_cut_off_waits_for_the_cooldown_after_its_second_time(journal, task) -> None:
    journal.open_incident(task.name, "data-drift", "r", NOON)
    retraining.consider(journal, task, NOON, NOON)
    for minute in range(4):
        now = NOON + minute * HOUR / 60
        retraining.begin(journal, retraining.wanted(journal, task, now), f"train-{minute}", now)
    assert done(journal, task).count("training started") == 2
    assert retraining.wanted(journal, task, NOON + HOUR) == ()
    later = NOON + task.monitoring.retrain_cooldown + HOUR
    assert retraining.wanted(journal, task, later) == (1,)


def test_a_training_that_still_runs_is_noted_once(journal, task) -> None:
    journal.open_incident(task.name, "data-drift", "r", NOON)
    retraining.consider(journal, task, NOON, NOON)
    for hour in range(3):
        numbers = retraining.wanted(journal, task, NOON + hour * HOUR)
        assert numbers == (1,)
        retraining.begin(journal, numbers, "retrain-1 of Airflow", NOON + hour * HOUR)
        journal.note_step(1, "told", "slack", NOON + hour * HOUR)
    assert done(journal, task).count("training started") == 1
    assert retraining.last_begun(journal, (1,)) == "retrain-1 of Airflow"


def test_any_training_says_what_came_of_it_and_says_it_once(journal, task) -> None:
    journal.open_incident(task.name, "data-drift", "r", NOON)
    journal.open_incident(task.name, "data-stale", "r", NOON)
    for _ in range(2):
        retraining.settle(journal, task, "4", False, "It does not win.", NOON)
    retraining.settle(journal, task, "5", True, "It beats the champion.", NOON + DAY)
    retraining.settle(journal, task, "5", True, "It is the champion already.", NOON + DAY)
    steps = journal.incident_steps([1, 2])
    assert [(step.what, step.detail) for step in steps[1][1:]] == [
        ("challenger kept out", "Version 4. It does not win."),
        ("challenger promoted", "Version 5. It beats the champion."),
    ]
    assert len(steps[2]) == 1, "what no training mends"


@pytest.mark.parametrize("kind", ["data-stale", "gate-failing", "ingest-failed"])
def test_what_no_training_mends_asks_for_none(journal: Journal, task: Task, kind: str) -> None:
    journal.open_incident(task.name, kind, "r", NOON)
    assert not retraining.consider(journal, task, NOON, NOON) and retraining.wanted(journal, task, NOON) == ()


def test_several_alarms_ask_for_one_training(journal: Journal, task: Task) -> None:
    for kind in ("data-drift", "skill-lost", "concept-drift"):
        journal.open_incident(task.name, kind, "r", NOON)
    retraining.consider(journal, task, NOON, NOON)
    assert len(retraining.wanted(journal, task, NOON)) == 3 and done(journal, task).count("retrain asked") == 3


def test_it_waits_for_the_cooldown_and_says_so_once(journal: Journal, task: Task) -> None:
    journal.beat(task.name, "trained:kept", NOON - 10 * HOUR)
    journal.open_incident(task.name, "data-drift", "r", NOON)
    for hour in range(5):
        assert not retraining.consider(journal, task, NOON + 30 * DAY, NOON + hour * HOUR)
    assert done(journal, task) == ["opened", "retrain waits"]
    assert retraining.consider(journal, task, NOON + 30 * DAY, NOON + 14 * HOUR)


def test_it_waits_for_enough_new_data(journal: Journal, task: Task) -> None:
    journal.beat(task.name, "trained:promoted", NOON)
    journal.open_incident(task.name, "data-drift", "r", NOON + DAY)
    late = NOON + 9 * DAY
    assert not retraining.consider(journal, task, NOON + 2 * DAY - HOUR, late)
    assert not retraining.consider(journal, task, None, late)
    assert retraining.consider(journal, task, NOON + 2 * DAY, late)


def test_a_loser_stays_open_and_asks_again_when_there_is_more_to_learn_from(journal: Journal, task: Task) -> None:
    journal.open_incident(task.name, "skill-lost", "r", NOON)
    retraining.consider(journal, task, NOON, NOON)
    retraining.note(journal, retraining.wanted(journal, task, NOON), retraining.KEPT_OUT, "It does not win.", NOON)
    journal.beat(task.name, "trained:kept", NOON)
    assert not retraining.consider(journal, task, NOON + DAY, NOON + DAY)
    assert retraining.consider(journal, task, NOON + 2 * DAY, NOON + 2 * DAY)


def test_a_closed_incident_wants_nothing_any_more(journal: Journal, task: Task) -> None:
    journal.open_incident(task.name, "data-drift", "r", NOON)
    retraining.consider(journal, task, NOON, NOON)
    journal.close_incident(task.name, "data-drift", NOON + HOUR, "back")
    assert retraining.wanted(journal, task, NOON) == ()
