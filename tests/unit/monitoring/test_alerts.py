"""A rule fires when its number has been past its threshold for long enough, and the incident ends by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.monitoring import alerts
from forecastle.monitoring.alerts import evaluate
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.metrics import METRICS, Reading
from forecastle.monitoring.rules import Rule, rules_for
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOT = Rule("hot", "temperature", "last", ">", 30.0, "warning", "It is hot.", "Open a window.", hold=2 * HOUR)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path}/journal.db")


def measured(drift: float | None = 0.0, skill: float = 0.3, n: int = 500) -> list[Reading]:
    name = "nyc-temperature"
    found = [
        Reading("forecastle_data_age_seconds", (name,), 0.0),
        Reading("forecastle_live_skill", (name, "all"), skill),
        Reading("forecastle_live_skill", (name, "1"), -5.0),
        Reading("forecastle_live_coverage", (name, "all"), 0.9),
        Reading("forecastle_live_outcomes", (name, "all"), n),
        Reading("forecastle_live_outcomes", (name, "1"), 1e6),
    ]
    return found if drift is None else [*found, Reading("forecastle_drift_ratio", (name,), drift)]


def test_a_rule_fires_only_when_its_condition_has_held_for_its_time() -> None:
    early = evaluate([HOT], {"hot": 31.0}, {}, NOON)
    assert early.firing == () and early.pending == {"hot": NOON}
    late = evaluate([HOT], {"hot": 31.0}, early.pending, NOON + 2 * HOUR)
    assert late.firing == (HOT,) and late.pending == {"hot": NOON}


def test_one_good_value_starts_the_time_anew() -> None:
    good = evaluate([HOT], {"hot": 30.0}, {"hot": NOON}, NOON + HOUR)
    assert good.pending == {} and good.ended == (HOT,)


def test_a_rule_whose_number_is_gone_ends_and_one_that_never_had_a_number_says_nothing() -> None:
    for values in ({}, {"hot": None}):
        gone = evaluate([HOT], values, {"hot": NOON}, NOON + 9 * HOUR)
        assert (gone.firing, gone.ended, gone.pending) == ((), (HOT,), {})
        silent = evaluate([HOT], values, {}, NOON)
        assert (silent.firing, silent.ended, silent.pending) == ((), (), {})


def test_a_rule_may_look_downwards() -> None:
    cold = replace(HOT, comparison="<", threshold=0.0, hold=timedelta(0))
    assert evaluate([cold], {"hot": -1.0}, {}, NOON).firing == (cold,)


def test_an_alarm_opens_one_incident_and_closes_it_when_the_measure_is_back(journal: Journal, task: Task) -> None:
    assert alerts.apply(journal, task, measured(drift=0.25), NOON) == (("data-drift",), ())
    assert alerts.apply(journal, task, measured(drift=0.3), NOON + HOUR) == ((), ())
    assert alerts.apply(journal, task, measured(drift=0.05), NOON + 2 * HOUR) == ((), ("data-drift",))
    (incident,) = journal.incidents(task.name)
    assert incident.reason == (
        "Too many predictions are asked for with feature values that the training data never held."
        " They are 25 % of the newest 500; the limit is 10 %."
    )
    assert (incident.opened_at, incident.closed_at, incident.note) == (NOON, NOON + 2 * HOUR, "The measure is back.")


SAID = {
    "inference-slow": (0.734, "They take up to 0.734 s."),
    "data-drift": (1 / 3, "They are 33.3 % of the newest 500; the limit is 10 %."),
    "concept-drift": (1.0, "what the model learnt holds no longer as it did."),
    "data-stale": (11_100.0, "It is 3 h 5 min old; the limit is 3 h."),
    "no-forecasts": (0.0, "None was in the last 3 h."),
    "gate-failing": (1.0, "It has been so for 3 h."),
    "skill-lost": (-0.12, "Their skill over it is −12 %, in the last two weeks."),
    "coverage-low": (0.756, "In the last two weeks it is 75.6 %; 90 % are promised."),
    "coverage-high": (0.99, "In the last two weeks it is 99 %; 90 % are promised."),
    "budget-nearly-spent": (0.95, "It is 95 %."),
    "service-down": (0.0, "The service does not answer."),
}


def test_a_person_reads_words_and_numbers_with_units_and_no_name_of_a_metric(task: Task) -> None:
    said = {rule.name: rule.told(SAID[rule.name][0]) for rule in rules_for(task)}
    assert said.keys() == SAID.keys()
    for name, text in said.items():
        assert text.endswith(SAID[name][1]) and "forecastle_" not in text, text


def test_what_else_is_known_of_an_alarm_is_said_after_it(journal: Journal, task: Task) -> None:
    drifted = [Reading("forecastle_concept_drift", (task.name,), 1.0)]
    alerts.apply(journal, task, drifted, NOON, {"concept-drift": "Of JFK since yesterday.", "data-stale": "Of none."})
    (incident,) = journal.incidents(task.name)
    assert incident.reason.endswith("holds no longer as it did. Of JFK since yesterday.")


def test_an_alarm_ends_when_there_is_nothing_to_measure_any_more(journal: Journal, task: Task) -> None:
    alerts.apply(journal, task, measured(drift=0.25), NOON)
    assert alerts.apply(journal, task, measured(drift=None), NOON + HOUR) == ((), ("data-drift",))
    assert journal.incidents(task.name)[0].note == "There is nothing to measure any more."


def test_what_another_alarmed_of_stays_open_where_the_evaluator_sees_nothing(journal: Journal, task: Task) -> None:
    journal.open_incident(task.name, "inference-slow", "Prometheus says so.", NOON)
    assert alerts.apply(journal, task, measured(), NOON + HOUR) == ((), ())


def test_a_look_as_of_the_past_neither_opens_nor_closes_anything_of_today(journal: Journal, task: Task) -> None:
    alerts.apply(journal, task, measured(drift=0.25), NOON)
    past = [*measured(drift=0.0), Reading("forecastle_concept_drift", (task.name,), 1.0)]
    assert alerts.apply(journal, task, past, NOON - 72 * HOUR) == ((), ())
    assert [one.kind for one in journal.incidents(task.name, open_only=True)] == ["data-drift"]
    assert alerts.apply(journal, task, measured(drift=0.0), NOON + HOUR) == ((), ("data-drift",))


def test_an_alarm_outlasts_a_pause_in_which_nobody_looked(journal: Journal, task: Task) -> None:
    for hours in range(25):
        alerts.apply(journal, task, measured(skill=-0.1), NOON + hours * HOUR)
    assert alerts.apply(journal, task, measured(skill=-0.1), NOON + 100 * HOUR) == ((), ())
    assert alerts.apply(journal, task, measured(skill=0.1), NOON + 101 * HOUR) == ((), ("skill-lost",))


def test_looks_that_come_more_rarely_than_the_task_allows_its_data_to_age_are_no_pauses(
    journal: Journal, task: Task
) -> None:
    def at(look: int) -> tuple[str, ...]:
        refused = Reading("forecastle_gate_failing", (task.name,), 1.0)
        return alerts.apply(journal, task, [*measured(skill=-0.1), refused], NOON + look * 6 * HOUR)[0]

    opened = {look: at(look) for look in range(9)}
    assert {look: names for look, names in opened.items() if names} == {2: ("gate-failing",), 5: ("skill-lost",)}


def test_a_look_that_is_done_again_does_not_count_as_a_frequent_one(journal: Journal, task: Task) -> None:
    opened = []
    for hours in (0, 6, 6, 12, 18, 24, 30):
        opened += alerts.apply(journal, task, measured(skill=-0.1), NOON + hours * HOUR)[0]
    assert opened == ["skill-lost"]


def test_a_pause_among_rare_looks_is_one(journal: Journal, task: Task) -> None:
    for hours in (0, 6, 12, 18, 24, 48):
        assert alerts.apply(journal, task, measured(skill=-0.1), NOON + hours * HOUR) == ((), ())


def test_looks_that_are_as_frequent_again_make_a_pause_one_again(journal: Journal, task: Task) -> None:
    for hours in (0, 6, 12, 13, 14, 20, 26, 32, 38):
        assert alerts.apply(journal, task, measured(skill=-0.1), NOON + hours * HOUR) == ((), ())


def test_how_long_a_condition_holds_is_remembered_between_looks(journal: Journal, task: Task) -> None:
    for hours in range(24):
        assert alerts.apply(journal, task, measured(skill=-0.1), NOON + hours * HOUR) == ((), ())
    assert alerts.apply(journal, task, measured(skill=-0.1), NOON + 24 * HOUR) == (("skill-lost",), ())


def test_an_interruption_is_remembered_too(journal: Journal, task: Task) -> None:
    for hours in range(40):
        skill = 0.1 if hours == 20 else -0.1
        assert alerts.apply(journal, task, measured(skill=skill), NOON + hours * HOUR) == ((), ())


def test_figures_of_few_outcomes_raise_no_alarm(journal: Journal, task: Task) -> None:
    for hour in range(26):
        assert alerts.apply(journal, task, measured(skill=-1.0, n=99), NOON + hour * HOUR) == ((), ())


def test_that_nothing_is_forecast_any_more_is_seen_by_a_counter_that_stands_still(journal: Journal, task: Task) -> None:
    opened: dict[int, tuple[str, ...]] = {}
    for hour in range(12):
        made = Reading("forecastle_predictions_total", (task.name,), min(hour, 4) * 3)
        opened[hour] = alerts.apply(journal, task, [made], NOON + hour * HOUR)[0]
    assert {hour: names for hour, names in opened.items() if names} == {7: ("no-forecasts",)}
    made = Reading("forecastle_predictions_total", (task.name,), 15)
    assert alerts.apply(journal, task, [made], NOON + 12 * HOUR)[1] == ("no-forecasts",)


def test_a_gate_that_refuses_everything_is_an_alarm_and_one_bad_batch_is_none(journal: Journal, task: Task) -> None:
    failing = [0, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    found = [
        alerts.apply(journal, task, [Reading("forecastle_gate_failing", (task.name,), one)], NOON + hour * HOUR)[0]
        for hour, one in enumerate(failing)
    ]
    assert [hour for hour, opened in enumerate(found) if opened] == [8]


def test_the_evaluator_forgets_samples_that_no_rule_looks_at(journal: Journal, task: Task) -> None:
    from forecastle.monitoring import samples

    for hour in range(30):
        now = NOON + hour * HOUR
        alerts.apply(journal, task, [Reading("forecastle_gate_failing", (task.name,), 0.0)], now)
    kept = samples.recall(journal, task.name, now + HOUR)
    assert {one.at for one in kept} == {now - hour * HOUR for hour in range(7)}, "a window and the longest gap"


def test_every_rule_is_about_a_metric_that_exists_and_says_what_to_do(task: Task, root: Path) -> None:
    rules = rules_for(task)
    assert {rule.metric for rule in rules} <= METRICS.keys()
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.summary.endswith(".") and rule.action.endswith(".") for rule in rules)
    assert all((rule.aggregation == "p95") == (METRICS[rule.metric].kind == "histogram") for rule in rules)
    assert all((rule.aggregation == "increase") <= (METRICS[rule.metric].kind == "counter") for rule in rules)
    assert all(set(rule.labels) <= set(METRICS[rule.metric].labels) for rule in rules)
    assert all((rule.aggregation == "last") == (not rule.window) for rule in rules)


def test_every_rule_leads_to_what_is_to_be_done(task: Task, root: Path) -> None:
    for rule in rules_for(task):
        page, _, anchor = rule.runbook().partition("#")
        assert f"\n### {anchor}\n" in (root / page).read_text(encoding="utf-8"), rule.name


def test_the_rules_hold_the_limits_of_the_task_and_the_promised_ones(task: Task) -> None:
    limits = {rule.name: rule.threshold for rule in rules_for(task)}
    assert limits["inference-slow"] == 0.5
    assert limits["data-drift"] == task.monitoring.drift_ratio == 0.1
    assert limits["data-stale"] == 3 * 3600


@pytest.mark.parametrize(
    ("promised", "low", "high"), [(0.9, 0.8, 0.97), (0.95, 0.9, 0.985), (0.8, 0.6, 0.94), (0.6, 0.3, 0.88)]
)
def test_the_limits_of_coverage_are_relative_to_what_the_task_promises(
    task: Task, promised: float, low: float, high: float
) -> None:
    other = task.model_copy(update={"training": task.training.model_copy(update={"coverage": promised})})
    limits = {rule.name: rule for rule in rules_for(other)}
    assert (limits["coverage-low"].threshold, limits["coverage-high"].threshold) == (low, high)
    assert low < promised < high
    assert f"{100 * low:.4g} %" in limits["coverage-low"].summary


def test_data_that_comes_once_a_day_is_not_stale_all_day(task: Task) -> None:
    daily = task.model_copy(update={"frequency": timedelta(days=1)})
    limits = {rule.name: rule for rule in rules_for(daily)}
    assert limits["data-stale"].threshold == 2 * 86400 and limits["no-forecasts"].window == timedelta(days=2)
