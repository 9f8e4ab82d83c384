"""A snapshot: the answers of a task, and how far they can be relied on at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from forecastle.monitoring.freshness import bearable
from forecastle.monitoring.journal import FORECAST, identified
from forecastle.serving.schemas import Model, SeriesForecasts
from forecastle.serving.snapshot import build

HOUR = timedelta(hours=1)
NOW = datetime(2013, 12, 16, 19, 10, tzinfo=UTC)
MODEL = Model(version="3", data_version="d", estimator="blend", created_at=NOW)


@pytest.fixture
def snapshot(task, made_up):
    """Build a snapshot; keyword arguments replace what it is built from."""

    def make(task=task, **parts):
        at = NOW.replace(minute=0)
        known = {
            "model": MODEL,
            "promise": None,
            "model_fault": None,
            "observed": made_up.observations(task, at - timedelta(hours=3), at),
            "forecasts": identified(made_up.forecasts(task, at, at)),
        }
        return build(task, **{**known, **parts})

    return make


def test_a_snapshot_that_holds_all_it_should_is_not_degraded(snapshot) -> None:
    condition = snapshot().condition(NOW)
    assert condition.fields == {"data_age": 600, "degraded": False, "degraded_reason": None}


def test_the_age_of_data_counts_from_when_the_value_could_be_known(snapshot, task) -> None:
    means = task.model_copy(update={"source": task.source.model_copy(update={"instantaneous": False})})
    assert snapshot(means).condition(NOW + timedelta(hours=1)).data_age == 600
    assert snapshot(means).condition(NOW).data_age == 0


def test_a_null_is_no_value_so_the_one_before_gives_the_age(snapshot, made_up, task) -> None:
    at = NOW.replace(minute=0)
    rows = made_up.observations(task, at - timedelta(hours=3), at)
    holed = rows.with_columns(pl.when(pl.col("timestamp") < at).then(pl.col(task.target)).alias(task.target))
    assert snapshot(observed=holed).condition(NOW, "EWR").data_age == 4200


def test_one_series_that_fell_silent_is_degraded_alone(snapshot, made_up, task) -> None:
    at = NOW.replace(minute=0)
    rows = made_up.observations(task, at - timedelta(hours=8), at)
    silent = rows.filter((pl.col("series_id") != "LGA") | (pl.col("timestamp") < at - timedelta(hours=6)))
    state = snapshot(observed=silent)
    assert state.condition(NOW).reason is None
    assert state.condition(NOW, "EWR").reason is None
    assert "7 h 10 min old" in str(state.condition(NOW, "LGA").reason)


def test_a_series_that_is_silent_for_ever_among_living_ones_never_gets_the_models_forecasts_again(
    snapshot, made_up, task
) -> None:
    at = NOW.replace(minute=0)
    dead = made_up.observations(task, at - 3 * HOUR, at).filter(pl.col("series_id") != "LGA")
    state = snapshot(observed=dead)  # forecasts of it are journalled all the same
    assert (state.staleness("LGA", NOW), state.staleness("EWR", NOW)) == ("lost", "fine")
    new = identified(made_up.forecasts(task, at, at)).filter(pl.col("series_id") != "LGA")
    assert snapshot(observed=dead, forecasts=new).staleness("LGA", NOW) == "fine", "one that is only awaited"


def test_a_series_silent_for_longer_ages_into_the_season_and_then_into_nothing(snapshot, made_up, task) -> None:
    at = NOW.replace(minute=0)
    limit = task.patience(task.monitoring.stale_after)
    found = []
    for hours in (1, limit // HOUR + 1, bearable(task) // HOUR + 1):
        rows = made_up.observations(task, at - timedelta(days=3), at)
        silent = rows.filter((pl.col("series_id") != "LGA") | (pl.col("timestamp") <= at - hours * HOUR))
        found.append(snapshot(observed=silent).staleness("LGA", NOW))
    assert found == ["fine", "stale", "lost"]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"model": None}, "no model has been promoted yet"),
        ({"model": None, "model_fault": "it broke"}, "it broke"),
        ({"forecasts": pl.DataFrame(schema=FORECAST)}, "no forecast has been made yet"),
    ],
)
def test_what_is_missing_is_the_reason(snapshot, parts, reason) -> None:
    assert snapshot(**parts).condition(NOW).reason == reason


def test_without_any_data_the_age_is_unknown_and_every_named_series_still_answers(snapshot, made_up, task) -> None:
    empty = made_up.observations(task, NOW, NOW).clear()
    state = snapshot(observed=empty, forecasts=pl.DataFrame(schema=FORECAST))
    assert state.series_ids == task.series_ids
    assert state.condition(NOW).data_age is None
    answer = SeriesForecasts.model_validate_json(state.body("EWR", NOW))
    assert (answer.forecasts, answer.origin, answer.degraded) == ((), None, True)


def test_a_task_that_names_no_series_answers_for_those_that_were_seen(snapshot, task) -> None:
    state = snapshot(task)
    open_task = task.model_copy(update={"series": ()})
    seen = build(open_task, MODEL, None, None, state.observed, state.forecasts)
    assert seen.series_ids == ("EWR", "JFK", "LGA")


def test_a_body_carries_the_age_of_the_moment_it_is_asked(snapshot) -> None:
    state = snapshot()
    ages = [
        SeriesForecasts.model_validate_json(state.body("EWR", NOW + timedelta(seconds=seconds))).data_age
        for seconds in (0, 1, 60)
    ]
    assert ages == [600, 601, 660]


def test_a_series_name_of_any_characters_survives_the_splicing(snapshot, task, made_up) -> None:
    odd = 'a"data_age":null,"degraded":false,"degraded_reason":null/ü'
    at = NOW.replace(minute=0)
    named = task.model_copy(update={"series": (task.series[0].model_copy(update={"id": odd}),)})
    rows = made_up.observations(named, at, at)
    state = build(named, MODEL, None, None, rows, identified(made_up.forecasts(named, at, at)))
    answer = SeriesForecasts.model_validate_json(state.body(odd, NOW))
    assert (answer.series_id, answer.data_age, len(answer.forecasts)) == (odd, 600, 6)
