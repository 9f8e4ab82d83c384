"""Incidents as people and other systems meet them: what a webhook opens and closes, and what is told of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle.errors import UserError
from forecastle.monitoring import alert_log, incidents
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def journal(settings: Settings) -> Journal:
    return Journal(settings.journal_url)


def webhook(status: str = "firing", task: str | None = "weather", rule: str = "data-drift") -> dict[str, Any]:
    """The body Alertmanager sends for one alert (Grafana sends the same fields and more)."""
    labels = {"alertname": "ForecastleDataDrift", "rule": rule, "severity": "warning"}
    labels |= {} if task is None else {"task": task}
    alert = {
        "status": status,
        "labels": labels,
        "annotations": {"summary": "Too many predictions have drifted."},
        "startsAt": "2013-12-01T12:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "0a1b",
    }
    return {"version": "4", "receiver": "forecastle", "status": status, "groupLabels": {}, "alerts": [alert]}


def logged(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in alert_log.place(settings).read_text(encoding="utf-8").splitlines()]


def test_a_firing_alert_opens_the_incident_of_its_task_and_rule_once(journal: Journal, settings: Settings) -> None:
    first = incidents.receive(journal, settings, ["weather"], webhook(), NOON)
    again = incidents.receive(journal, settings, ["weather"], webhook(), NOON + HOUR)
    assert (first.opened, again.opened) == (("weather: data-drift",), ())
    (known,) = incidents.listing(journal)
    assert (known["kind"], known["reason"]) == ("data-drift", "Too many predictions have drifted.")
    assert [step["what"] for step in known["steps"]] == ["opened", "alert fires", "told"]


def test_a_resolved_alert_closes_it_and_both_stand_in_the_alert_log(journal: Journal, settings: Settings) -> None:
    incidents.receive(journal, settings, ["weather"], webhook(), NOON)
    ended = incidents.receive(journal, settings, ["weather"], webhook("resolved"), NOON + HOUR)
    assert ended.closed == ("weather: data-drift",)
    (known,) = incidents.listing(journal)
    assert known["closed_at"] == "2013-12-01T13:00:00Z"
    assert [(one["event"], one["by"], one["number"]) for one in logged(settings)] == [
        ("opened", "webhook", known["number"]),
        ("closed", "webhook", known["number"]),
    ]


def several(*alerts: tuple[str, str]) -> dict[str, Any]:
    """The body that tells of alerts of one rule which differ in a label: how each stands, and its label."""
    told = [webhook(status, rule="budget-nearly-spent")["alerts"][0] for status, _ in alerts]
    return {"alerts": [one | {"labels": one["labels"] | {"span": alerts[n][1]}} for n, one in enumerate(told)]}


@pytest.mark.parametrize(
    "messages",
    [
        [[("firing", "hour"), ("firing", "day")], [("firing", "day"), ("resolved", "hour")]],
        [[("firing", "hour"), ("firing", "day")], [("resolved", "hour"), ("firing", "day")]],
        [[("firing", "hour")], [("resolved", "hour"), ("firing", "day")]],
        [[("firing", "hour")], [("firing", "day")], [("resolved", "hour")], [("resolved", "hour")]],
    ],
)
def test_an_incident_stays_open_while_one_of_its_alerts_fires(
    journal: Journal, settings: Settings, messages: list[list[tuple[str, str]]]
) -> None:
    for message in messages:
        assert incidents.receive(journal, settings, ["weather"], several(*message), NOON).closed == ()
    assert len(journal.incidents(open_only=True)) == len(journal.incidents()) == 1
    ended = incidents.receive(journal, settings, ["weather"], several(("resolved", "day")), NOON + HOUR)
    assert ended.closed == ("weather: budget-nearly-spent",)


def test_an_alert_whose_end_was_never_heard_does_not_keep_the_incident_open(
    journal: Journal, settings: Settings
) -> None:
    def hear(after: timedelta, *alerts: tuple[str, str]) -> tuple[str, ...]:
        return incidents.receive(journal, settings, ["weather"], several(*alerts), NOON + after).closed

    hear(0 * HOUR, ("firing", "hour"), ("firing", "day"))
    hear(20 * HOUR, ("firing", "day"))
    assert hear(incidents.LAPSES_AFTER - HOUR, ("resolved", "day")) == (), "hour may still fire"
    assert hear(incidents.LAPSES_AFTER, ("resolved", "day")) == ("weather: budget-nearly-spent",)


def test_an_incident_none_of_whose_alerts_is_repeated_ends_by_itself(journal: Journal, settings: Settings) -> None:
    for hours in range(0, 49, 12):
        incidents.receive(journal, settings, ["weather"], webhook(), NOON + hours * HOUR)
    journal.open_incident("weather", "data-stale", "No webhook told of this one.", NOON)
    last = NOON + 48 * HOUR
    assert incidents.lapse(journal, "weather", last + incidents.LAPSES_AFTER - HOUR) == ()
    assert (
        incidents.lapse(journal, "weather", last + incidents.LAPSES_AFTER, {"data-drift"}) == ()
    ), "it is seen to fire"
    assert incidents.lapse(journal, "weather", last + incidents.LAPSES_AFTER) == ("data-drift",)
    known = {one["kind"]: one for one in incidents.listing(journal)}
    assert "not been repeated for 36h" in known["data-drift"]["note"]
    assert [step["what"] for step in known["data-drift"]["steps"]] == (
        ["opened", "alert fires", "told", *["alert still fires"] * 4, "alert lapsed", "closed"]
    )
    assert known["data-stale"]["closed_at"] is None


def test_one_that_was_repeated_just_now_is_not_noted_again(journal: Journal, settings: Settings) -> None:
    for minutes in range(0, 300, 60):
        incidents.receive(journal, settings, ["weather"], webhook(), NOON + timedelta(minutes=minutes))
    (known,) = incidents.listing(journal)
    assert [step["what"] for step in known["steps"]] == ["opened", "alert fires", "told"]


def test_a_lapse_that_was_cut_off_is_finished_by_the_next_look(journal: Journal, settings: Settings) -> None:
    incidents.receive(journal, settings, ["weather"], webhook(), NOON)
    (one,) = journal.incidents()
    (labels,) = [step.detail for step in journal.incident_steps([one.number])[one.number] if step.what == "alert fires"]
    journal.note_step(one.number, incidents.LAPSED, labels, NOON + incidents.LAPSES_AFTER)
    assert incidents.lapse(journal, "weather", NOON + incidents.LAPSES_AFTER) == ("data-drift",)


def test_an_alert_that_fires_again_after_it_lapsed_counts_again(journal: Journal, settings: Settings) -> None:
    incidents.receive(journal, settings, ["weather"], several(("firing", "hour"), ("firing", "day")), NOON)
    later = NOON + incidents.LAPSES_AFTER
    incidents.receive(journal, settings, ["weather"], several(("firing", "day")), later - HOUR)
    assert incidents.lapse(journal, "weather", later) == ()
    incidents.receive(journal, settings, ["weather"], several(("firing", "hour")), later + HOUR)
    ended = incidents.receive(journal, settings, ["weather"], several(("resolved", "day")), later + 2 * HOUR)
    assert ended.closed == ()


def test_an_alert_about_no_task_is_kept_as_one_of_the_installation(journal: Journal, settings: Settings) -> None:
    incidents.receive(journal, settings, ["weather"], webhook(task=None, rule="service-down"), NOON)
    assert [(one["task"], one["kind"]) for one in incidents.listing(journal)] == [("", "service-down")]


def test_alerts_of_tasks_that_are_not_here_are_left_out_and_named(journal: Journal, settings: Settings) -> None:
    received = incidents.receive(journal, settings, ["weather"], webhook(task="wether"), NOON)
    assert received.opened == () and "weather" in received.ignored[0]
    assert incidents.listing(journal) == []


def test_an_alert_whose_rule_no_database_holds_is_left_out_and_the_others_are_taken(
    journal: Journal, settings: Settings
) -> None:
    ill, well = webhook(rule="data\0drift"), webhook()
    well["alerts"][0]["annotations"] = {"summary": "Much\0is new."}
    received = incidents.receive(journal, settings, ["weather"], {"alerts": ill["alerts"] + well["alerts"]}, NOON)
    assert received.opened == ("weather: data-drift",)
    assert received.ignored == ("alert 0: its task or its rule holds a control character",)
    assert [one["reason"] for one in incidents.listing(journal)] == ["Much\ufffdis new."]


@pytest.mark.parametrize(
    "body", [None, [], "alerts", {"alerts": None}, {"alerts": ["x"]}, {"alerts": webhook()["alerts"] * 201}]
)
def test_a_body_that_is_no_such_webhook_is_refused_and_changes_nothing(
    journal: Journal, settings: Settings, body: Any
) -> None:
    with pytest.raises(UserError):
        incidents.receive(journal, settings, ["weather"], body, NOON)
    assert incidents.listing(journal) == [] and not alert_log.place(settings).exists()


@pytest.mark.parametrize("alert", [{}, {"status": "firing"}, {"status": "odd", "labels": {"rule": "r"}}, {"labels": 1}])
def test_an_alert_that_says_too_little_is_left_out(journal: Journal, settings: Settings, alert: Any) -> None:
    assert len(incidents.receive(journal, settings, ["weather"], {"alerts": [alert]}, NOON).ignored) == 1


def test_the_newest_incidents_come_first_and_are_bounded(journal: Journal) -> None:
    for number in range(5):
        journal.open_incident("weather", f"kind-{number}", "r", NOON + number * HOUR)
    assert [one["kind"] for one in incidents.listing(journal, limit=2)] == ["kind-4", "kind-3"]


def test_an_incident_is_closed_by_hand_once(journal: Journal, settings: Settings) -> None:
    journal.open_incident("weather", "data-drift", "r", NOON)
    (one,) = journal.incidents()
    assert incidents.close(journal, settings, one.number, "A false alarm.", NOON + HOUR)
    assert not incidents.close(journal, settings, one.number, "Again.", NOON + 2 * HOUR)
    incident, steps = incidents.find(journal, one.number)
    assert (incident.note, [step.what for step in steps]) == ("A false alarm.", ["opened", "closed", "told"])
    with pytest.raises(UserError, match="forecastle incidents list"):
        incidents.close(journal, settings, 99, "", NOON)


def test_closed_incidents_that_are_pruned_take_their_steps_with_them(journal: Journal) -> None:
    journal.open_incident("weather", "data-drift", "r", NOON)
    number = journal.incidents()[0].number
    journal.close_incident("weather", "data-drift", NOON + HOUR)
    journal.forget("weather", NOON + 2 * HOUR, [])
    assert journal.incidents() == () and journal.incident_steps([number]) == {number: ()}
