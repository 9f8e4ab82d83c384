"""The page beside the charts: all tasks at a glance, drift, decisions about models, incidents."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from forecastle.models import audit
from forecastle.models.audit import Event
from forecastle.monitoring import metrics
from forecastle.monitoring.journal import Incident, Journal
from forecastle.serving import page, panels
from forecastle.serving.board import Board

NAME = "nyc-temperature"


@pytest.fixture
def state(filled, task, clock):
    board = Board(filled, [task])
    board.refresh(NAME, clock())
    yield board.snapshot(NAME), board.details(NAME, clock())
    board.close()


def test_several_tasks_are_listed_with_skill_coverage_drift_age_and_open_incidents(state, clock) -> None:
    snapshot, details = state
    still = Incident(9, NAME, "data-stale", "No data came.", clock(), None, "")
    narrow = details.live.model_copy(update={"coverage": 0.69})
    troubled = replace(details, live=narrow, drift_ratio=0.25, incidents=(still, *details.incidents))
    html = page.board([state, (snapshot, troubled)], clock())
    overview = html[html.index('<nav class="tasks"') : html.index("</nav>")]
    figures = re.findall(r'<dt>(.*?)</dt><dd class="(.*?)">(.*?)</dd>', overview)
    assert [label for label, _, _ in figures] == ["Skill", "Coverage", "Drift", "Data age", "Incidents"] * 2
    assert figures[2:5] == [("Drift", "good", "0 %"), ("Data age", "", "10 min"), ("Incidents", "", "0")]
    assert figures[1][1] == "" and figures[6] == ("Coverage", "warn", "69 %")
    assert figures[7] == ("Drift", "poor", "25 %") and figures[9] == ("Incidents", "poor", "1")
    assert 'class="tasks"' not in page.board([state], clock())


def test_the_drift_ratio_is_drawn_against_the_limit_of_the_task(task, state) -> None:
    _, details = state
    shown = panels.drift(task, replace(details, drift_ratio=0.05), "t0", 1)
    assert (shown["ratio"], shown["tone"], shown["share"], shown["limit_at"]) == ("5.0 %", "good", "20.0", "40.0")
    assert panels.drift(task, replace(details, drift_ratio=0.9), "t0", 1)["share"] == "100.0"
    few = panels.drift(task, replace(details, drift_ratio=None), "t0", 1)
    assert few["share"] is None and few["about"].startswith("There are fewer than 50 predictions")


@pytest.mark.parametrize(
    ("said", "shown", "tone"),
    [
        (None, "Not tested yet", ""),
        ("", "As in the back-test.", "good"),
        ("JFK since 2013-12-15T06:00:00Z", "Changed: JFK since Sun 15 Dec, 01:00.", "poor"),
    ],
)
def test_the_errors_are_as_in_the_back_test_or_have_changed(filled, task, clock, said, shown, tone) -> None:
    if said is not None:
        with Journal(filled.journal_url) as journal:
            journal.beat(NAME, metrics.CONCEPT_DRIFT, clock(), said)
    board = Board(filled, [task])
    board.refresh(NAME, clock())
    found = panels.drift(task, board.details(NAME, clock()), "t0", 1)
    board.close()
    assert found["errors"].startswith(shown) and found["errors_tone"] == tone


def test_each_days_error_is_drawn_beside_that_of_the_last_value_repeated(task, state) -> None:
    _, details = state
    chart = panels.drift(task, details, "t0", 1)["chart"]
    assert chart.count('class="line observed"') == chart.count('class="line past"') == 1
    assert "RMSE day by day from 12 Dec 2013 to 16 Dec 2013" in chart and "on 0 of 5 days" in chart
    two_days = details.outcomes.filter(
        details.outcomes["timestamp"] > details.outcomes["timestamp"].max() - timedelta(1)
    )
    assert panels.drift(task, replace(details, outcomes=two_days), "t0", 1)["chart"] is None


def test_decisions_about_models_are_shown_with_who_and_why_the_newest_first(filled, task, clock) -> None:
    hour = timedelta(hours=1)
    first = Event(clock() - 9 * hour, "ann", "promote", "1", "", "It is the first.")
    last = Event(clock() - hour, "bob", "rollback", "1", "2", "Errors since <noon>.")
    for event in (first, *(replace(first, at=first.at + step * hour / 9, action="keep") for step in range(9)), last):
        audit.record(filled, task, event)
    board = Board(filled, [task])
    board.refresh(NAME, clock())
    html = page.board([(board.snapshot(NAME), board.details(NAME, clock()))], clock())
    board.close()
    shown = re.findall(r'<strong>(v1)</strong> <span class="badge (\w*)">(.*?)</span>', html)
    assert len(shown) == 8 and shown[0] == ("v1", "warn", "rolled back to") and shown[1] == ("v1", "", "kept out")
    assert "Errors since &lt;noon&gt;." in html and "by bob" in html


def test_an_incident_leads_to_what_is_to_be_done_where_the_handbook_is_published(state, clock) -> None:
    snapshot, details = state
    assert "What to do" not in page.board([state], clock())
    published = replace(details, handbook="https://example.org/incidents.html")
    html = page.board([(snapshot, published)], clock())
    assert f'<a href="https://example.org/incidents.html#{details.incidents[0].kind}">What to do' in html


def test_of_a_long_reason_the_rest_is_folded(task, clock) -> None:
    one = Incident(3, NAME, "data-drift", "word " * 60, clock(), None, "")
    shown = panels.incident(one, task)
    assert len(shown["reason"]) <= panels.SHORT and f"{shown['reason']} {shown['rest']}" == one.reason.strip()
    assert panels.incident(replace(one, reason="x" * 400), task)["rest"] == "x" * (400 - panels.SHORT)
    assert panels.incident(replace(one, reason="Short."), task)["rest"] == ""
