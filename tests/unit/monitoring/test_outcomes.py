"""An outcome is a forecast joined with the observation that came true, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from forecastle.frame import conform
from forecastle.monitoring.journal import FORECAST, OUTCOME
from forecastle.monitoring.outcomes import GIVE_UP_AFTER, give_up_before, live_scores, score
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def due(horizons: tuple[int, ...] = (1, 2, 3), series: str = "EWR", last: float | None = 3.0) -> pl.DataFrame:
    rows = [
        (
            f"{series}{step}",
            "t",
            series,
            NOON,
            NOON + step * HOUR,
            step,
            4.0,
            2.0,
            6.0,
            last,
            "1",
            "d",
            NOON,
            False,
            "x",
        )
        for step in horizons
    ]
    return pl.DataFrame(rows, schema=FORECAST, orient="row")


def observed(task: Task, values: dict[datetime, float | None], series: str = "EWR") -> pl.DataFrame:
    rows = [
        {"series_id": series, "timestamp": at, "available_at": at, "collected_at": at, task.target: value}
        for at, value in values.items()
    ]
    return conform(pl.DataFrame(rows, schema_overrides={task.target: pl.Float64}), list(task.columns))


def test_a_forecast_meets_the_observation_of_its_own_hour_and_series(task: Task) -> None:
    observations = observed(task, {NOON + HOUR: 5.0, NOON + 2 * HOUR: 6.0})
    outcomes = score(task, pl.concat([due(), due(series="JFK")]), observations, NOON + 2 * HOUR)
    assert outcomes.schema == OUTCOME
    assert outcomes.select("series_id", "horizon", "actual").rows() == [("EWR", 1, 5.0), ("EWR", 2, 6.0)]
    assert outcomes["scored_at"].to_list() == [NOON + 2 * HOUR] * 2


def test_a_truth_that_is_null_has_not_come_yet(task: Task) -> None:
    observations = observed(task, {NOON + HOUR: None, NOON + 2 * HOUR: 6.0})
    assert score(task, due(), observations, NOON + 9 * HOUR)["horizon"].to_list() == [2]


def test_nothing_after_now_counts_as_truth(task: Task) -> None:
    observations = observed(task, {NOON + HOUR: 5.0, NOON + 2 * HOUR: 6.0})
    assert score(task, due(), observations, NOON + HOUR)["horizon"].to_list() == [1]


def test_an_observation_inside_a_step_counts_for_that_step_and_the_newest_of_several_wins(task: Task) -> None:
    observations = observed(task, {NOON + HOUR: 5.0, NOON + HOUR + timedelta(minutes=40): 7.0})
    assert score(task, due((1,)), observations, NOON + 9 * HOUR)["actual"].to_list() == [7.0]


def test_where_markets_close_the_truth_is_the_next_observed_bar(task: Task) -> None:
    market = task.model_copy(update={"grid": "observed"})
    night = 15 * HOUR
    observations = observed(market, {NOON - HOUR: 2.0, NOON: 3.0, NOON + night: 8.0, NOON + night + HOUR: 9.0})
    outcomes = score(market, due(), observations, NOON + night + HOUR)
    assert outcomes.select("horizon", "actual").rows() == [(1, 8.0), (2, 9.0)]


def test_without_observations_there_are_no_outcomes(task: Task) -> None:
    for grid in ("regular", "observed"):
        closed = task.model_copy(update={"grid": grid})
        assert score(closed, due(), observed(task, {NOON: 1.0}).clear(), NOON + 9 * HOUR).schema == OUTCOME


def test_a_truth_is_given_up_a_week_after_it_could_be_known(task: Task) -> None:
    assert give_up_before(task, NOON) == NOON - GIVE_UP_AFTER
    slow = task.source.model_copy(update={"publication_delay": 48 * HOUR, "instantaneous": False})
    assert give_up_before(task.model_copy(update={"source": slow}), NOON) == NOON - GIVE_UP_AFTER - 49 * HOUR


def came(values: list[tuple[int, float, float, float | None]]) -> pl.DataFrame:
    """Return outcomes of (horizon, value, actual, last) with an interval of one either side."""
    rows = [
        (str(n), "t", "EWR", NOON, NOON, step, value, value - 1, value + 1, last, "1", "d", NOON, actual, NOON)
        for n, (step, value, actual, last) in enumerate(values)
    ]
    return pl.DataFrame(rows, schema=OUTCOME, orient="row")


def test_live_scores_are_the_textbook_figures_pooled_and_per_horizon() -> None:
    scores = live_scores(came([(1, 1.0, 2.0, 0.0), (1, 5.0, 4.0, 2.0), (2, 3.0, 6.0, 2.0)]))
    assert scores["n"] == 3
    assert scores["rmse"] == pytest.approx((11 / 3) ** 0.5)
    assert scores["mae"] == pytest.approx(5 / 3)
    assert scores["r2"] == pytest.approx(1 - 11 / 8)
    assert scores["skill"] == pytest.approx(1 - (11 / 24) ** 0.5)
    assert scores["coverage"] == pytest.approx(2 / 3)
    first, second = scores["horizons"]
    assert (first["horizon"], first["n"], first["rmse"], first["skill"]) == (1, 2, 1.0, pytest.approx(0.5))
    assert (second["horizon"], second["coverage"], second["r2"]) == (2, 0.0, None)


def test_figures_are_taken_on_the_rows_where_persistence_had_a_value() -> None:
    scores = live_scores(came([(1, 1.0, 2.0, 0.0), (1, 50.0, 4.0, None)]))
    assert scores["skill"] == pytest.approx(0.5)
    assert scores["n"] == 1


def test_scores_of_no_outcomes_are_absent_not_zero() -> None:
    empty = live_scores(came([]))
    assert empty == {"rmse": None, "mae": None, "r2": None, "skill": None, "coverage": None, "n": 0, "horizons": []}


def test_a_truth_that_is_still_revised_scores_nothing_before_it_has_settled(task: Task) -> None:
    source = task.source.model_copy(update={"settles_after": 3 * HOUR})
    settling = task.model_copy(update={"source": source})
    observations = observed(task, {NOON + HOUR: 5.0, NOON + 2 * HOUR: 6.0})
    assert score(settling, due(), observations, NOON + 4 * HOUR)["horizon"].to_list() == [1]
    assert score(settling, due(), observations, NOON + 4 * HOUR - HOUR / 60).is_empty()
    assert give_up_before(settling, NOON) == give_up_before(task, NOON) - 3 * HOUR
