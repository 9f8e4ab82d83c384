"""What the gate said is noted by the way a batch came: what passes one way says nothing of the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.data.quality_check import QualityReport
from forecastle.monitoring import metrics, verdicts
from forecastle.monitoring.journal import Journal

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Judged = Callable[..., QualityReport]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path}/journal.db")


def failing(journal: Journal, now: datetime) -> list[float]:
    return [one.value for one in metrics.readings(journal, "t", now) if one.metric == "forecastle_gate_failing"]


def test_a_push_that_passes_hides_no_poll_that_fails(journal: Journal, judged: Judged) -> None:
    verdicts.stopped(journal, "t", NOON)
    verdicts.pushed(journal, "t", judged(), NOON + MINUTE)
    assert failing(journal, NOON + MINUTE) == [1.0]
    verdicts.polled(journal, "t", judged(), NOON + 2 * MINUTE)
    assert failing(journal, NOON + 2 * MINUTE) == [0.0]


def test_a_poll_that_passes_hides_no_push_that_was_refused(journal: Journal, judged: Judged) -> None:
    verdicts.refused(journal, "t", "no", NOON)
    verdicts.polled(journal, "t", judged(), NOON + MINUTE)
    assert failing(journal, NOON + MINUTE) == [1.0]
    verdicts.pushed(journal, "t", judged(), NOON + 2 * MINUTE)
    assert failing(journal, NOON + 2 * MINUTE) == [0.0]


def test_a_push_that_nobody_will_repeat_is_settled_by_closing_its_incident(journal: Journal, judged: Judged) -> None:
    verdicts.polled(journal, "t", judged(), NOON)
    verdicts.refused(journal, "t", "no", NOON)
    journal.close_incident("t", verdicts.REFUSED, NOON, "A mistake of ours.")
    assert failing(journal, NOON) == [0.0]


def test_of_what_was_judged_before_the_ways_were_told_apart_the_newest_counts(journal: Journal) -> None:
    journal.beat("t", f"{metrics.GATE}pass", NOON)
    journal.beat("t", f"{metrics.GATE}fail", NOON + MINUTE)
    assert (failing(journal, NOON), failing(journal, NOON + MINUTE)) == ([0.0], [1.0])


def test_before_anything_was_judged_nothing_is_said(journal: Journal) -> None:
    assert failing(journal, NOON) == []


def test_every_batch_counts_by_its_verdict_whichever_way_it_came(journal: Journal, judged: Judged) -> None:
    verdicts.stopped(journal, "t", NOON)
    verdicts.refused(journal, "t", "no", NOON)
    verdicts.pushed(journal, "t", judged(), NOON)
    found = {
        one.labels[1]: one.value
        for one in metrics.readings(journal, "t", NOON)
        if one.metric == "forecastle_gate_verdicts_total"
    }
    assert found == {"fail": 2, "pass": 1}


def test_series_withheld_one_after_the_other_are_all_known_until_the_incident_ends(
    journal: Journal, judged: Judged
) -> None:
    verdicts.polled(journal, "t", judged("b"), NOON)
    verdicts.pushed(journal, "t", judged("a"), NOON + MINUTE)
    assert verdicts.withheld(journal, "t") == ("a", "b")
    journal.close_incident("t", verdicts.WITHHELD, NOON + MINUTE)
    verdicts.polled(journal, "t", judged("c"), NOON + 2 * MINUTE)
    assert verdicts.withheld(journal, "t") == ("c",)
