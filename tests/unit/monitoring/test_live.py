"""The live figures that the database sums up are those that the back-test's own definition gives for the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.models.untrained import UNTRAINED, of_models
from forecastle.monitoring.journal import FIGURES, FORECAST, OUTCOME, Journal
from forecastle.monitoring.live import live_figures
from forecastle.monitoring.outcomes import live_scores

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(f"sqlite:///{tmp_path / 'journal.db'}") as opened:
        yield opened


def scored(journal: Journal) -> None:
    """Score forecasts of two horizons and two models; some lack an interval, or a value of persistence."""
    rows = []
    for number in range(48):
        horizon, value = 1 + number % 2, 3.0 + number % 7
        last = None if number % 11 == 3 else 2.0 + number % 5
        lower, upper = (None, None) if number % 13 == 5 else (value - 1.5, value + 1.5)
        at, model = NOON + number * timedelta(hours=1), UNTRAINED if number % 17 == 8 else "1"
        rows.append((f"{number}", "t", "EWR", at, at, horizon, value, lower, upper, last, model, "d", at, False, "x"))
    made = pl.DataFrame(rows, schema=FORECAST, orient="row")
    journal.record(made)
    waiting = journal.due("t", NOON + 9 * DAY).sort("timestamp")
    truths = pl.Series("actual", [2.5 + number % 9 for number in range(48)])
    journal.score(waiting.with_columns(truths, pl.lit(NOON).alias("scored_at").cast(OUTCOME["scored_at"])))


@pytest.mark.parametrize("since", [NOON, NOON + DAY, NOON + 5 * DAY])
def test_they_are_those_of_the_back_test_without_r2(journal, since) -> None:
    scored(journal)
    expected = live_scores(of_models(journal.outcomes("t", since, FIGURES)))
    found = live_figures(journal, "t", since)
    for one, other in [(found, expected), *zip(found["horizons"], expected["horizons"], strict=True)]:
        assert {*other} - {*one} == {"r2"}
        for name in set(one) - {"horizons"}:
            assert one[name] == (None if other[name] is None else pytest.approx(other[name], rel=1e-12)), name
    assert found["n"] == {NOON: 41, NOON + DAY: 20}.get(since, 0)


def test_a_number_whose_square_no_database_holds_leaves_its_row_out(journal) -> None:
    scored(journal)
    before = live_figures(journal, "t", NOON)
    row = ("wild", "t", "JFK", NOON, NOON, 1, 1e200, 0.0, 2.0, 3.0, "1", "d", NOON, False, "x")
    journal.record(pl.DataFrame([row], schema=FORECAST, orient="row"))
    truth = {"actual": pl.lit(2.0), "scored_at": pl.lit(NOON).cast(OUTCOME["scored_at"])}
    journal.score(journal.due("t", NOON + 9 * DAY).with_columns(**truth))
    assert journal.counts("t")["scored"] == 49 and live_figures(journal, "t", NOON) == before


def test_of_a_task_that_was_never_scored_they_are_absent_not_zero(journal) -> None:
    absent = {"rmse": None, "mae": None, "skill": None, "coverage": None, "n": 0, "horizons": []}
    assert live_figures(journal, "t", NOON) == absent
