"""A challenger becomes champion only where it is better on the same rows, and the decision says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.models.promotion import Decision, decide
from forecastle.task import Task

START = datetime(2013, 1, 1, tzinfo=UTC)
ORIGINS = 200


def forecasts(spread: float, seed: int = 0, origins: int = ORIGINS) -> pl.DataFrame:
    """Return forecasts of two series, six steps, whose errors have the given standard deviation."""
    random = np.random.default_rng(seed)
    keys = [(s, START + timedelta(hours=o), h) for s in ("EWR", "JFK") for o in range(origins) for h in range(1, 7)]
    table = pl.DataFrame(
        keys, schema={"series_id": pl.String, "origin": pl.Datetime("us", "UTC"), "horizon": pl.Int64}, orient="row"
    )
    actual = np.sin(np.arange(len(keys)))
    noise = np.random.default_rng(9).normal(0, 1, (2, len(keys)))
    return table.with_columns(
        actual=actual,
        value=actual + random.normal(0, spread, len(keys)),
        last=actual + 2.0 * noise[0],
        naive=actual + 2.5 * noise[1],
    )


def persistence() -> pl.DataFrame:
    return forecasts(1.0).with_columns(value="last")


def test_the_first_model_becomes_champion_because_it_beats_both_naive_methods(task: Task) -> None:
    decision = decide(task, forecasts(1.0))
    assert decision.promote
    beats_persistence, beats_seasonal, none_yet = decision.reasons
    assert beats_persistence.startswith("The challenger beats persistence: RMSE 1.0") and "°C" in beats_persistence
    assert beats_seasonal.startswith("The challenger beats seasonal naive")
    assert none_yet == "There is no champion yet."


def test_a_first_model_that_loses_to_a_naive_method_is_not_promoted(task: Task) -> None:
    decision = decide(task, forecasts(2.2))
    assert not decision.promote
    assert decision.reasons[0].startswith("The challenger does not beat persistence")
    assert decision.reasons[1].startswith("The challenger beats seasonal naive")


def test_where_nothing_trained_beats_persistence_persistence_itself_may_be_the_first_champion(task: Task) -> None:
    decision = decide(task, persistence())
    assert decision.promote
    assert "persistence itself" in decision.reasons[0]


def test_but_persistence_never_replaces_a_champion(task: Task) -> None:
    assert not decide(task, persistence(), forecasts(3.0)).promote


def test_a_better_challenger_replaces_the_champion(task: Task) -> None:
    decision = decide(task, forecasts(1.0), forecasts(1.2, seed=1))
    assert decision.promote
    assert decision.p_value is not None and decision.p_value < 0.05
    assert not decision.worse
    assert decision.reasons[2].startswith("The challenger is better than the champion on the same rows")


def test_a_worse_challenger_does_not(task: Task) -> None:
    decision = decide(task, forecasts(1.2), forecasts(1.0, seed=1))
    assert not decision.promote and decision.worse
    assert decision.reasons[2].startswith("The challenger is worse than the champion")
    assert decision.p_value is not None and decision.p_value > 0.05


def test_an_equal_challenger_does_not(task: Task) -> None:
    for champion in (forecasts(1.0, seed=1), forecasts(1.0)):
        decision = decide(task, forecasts(1.0), champion)
        assert not decision.promote and not decision.worse
        assert "the champion stays" in decision.reasons[2]


def test_only_rows_that_every_method_has_are_judged(task: Task) -> None:
    easy_rows = forecasts(1.0).with_columns(
        value=pl.when(pl.col("horizon") == 6)
        .then(None)
        .when(pl.col("horizon") == 5)
        .then(float("nan"))
        .otherwise("value")
    )
    champion = forecasts(1.2, seed=1).filter(pl.col("series_id") == "EWR")
    decision = decide(task, easy_rows, champion)
    assert decision.rows == ORIGINS * 4
    on_those = forecasts(1.0).filter((pl.col("series_id") == "EWR") & (pl.col("horizon") <= 4))
    expected = ((on_those["value"] - on_those["actual"]) ** 2).mean() ** 0.5
    assert decision.rmse["challenger"] == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing(task: Task) -> None:
    shuffled = forecasts(1.0).sample(fraction=1, shuffle=True, seed=5)
    champion = forecasts(1.1, seed=1)
    assert decide(task, shuffled, champion) == decide(task, forecasts(1.0), champion)


def test_too_few_origins_cannot_be_judged(task: Task) -> None:
    decision = decide(task, forecasts(1.0, origins=29))
    assert decision == Decision(
        False, ("Only 29 origins have forecasts of every method; 30 are needed to judge.",), 29 * 12, {}
    )


def test_a_decision_is_plain_data(task: Task) -> None:
    plain = decide(task, forecasts(1.0)).as_dict()
    assert plain["promote"] is True and plain["rows"] == ORIGINS * 12


def test_a_series_that_gets_worse_keeps_a_better_challenger_out(task: Task) -> None:
    champion = forecasts(1.5, seed=1)
    torn = forecasts(1.0).with_columns(
        value=pl.when(pl.col("series_id") == "JFK")
        .then(pl.col("actual") + 1.2 * (champion["value"] - champion["actual"]))
        .otherwise("value")
    )
    decision = decide(task, torn, champion)
    assert decision.p_value is not None and decision.p_value < 0.05
    assert not decision.promote and decision.worse
    assert "JFK from 1.5" in decision.reasons[-1] and "EWR" not in decision.reasons[-1]
    tolerant = task.model_copy(update={"training": task.training.model_copy(update={"series_tolerance": 0.5})})
    assert decide(tolerant, torn, champion).promote


@pytest.mark.parametrize(("width", "promoted"), [(1.645, True), (1.0, False), (3.0, False)])
def test_to_replace_a_champion_intervals_have_to_cover_what_they_promise(
    task: Task, width: float, promoted: bool
) -> None:
    made = forecasts(1.0).with_columns(lower=pl.col("value") - width, upper=pl.col("value") + width)
    decision = decide(task, made, forecasts(1.5, seed=1))
    assert decision.promote is promoted and decision.worse is not promoted
    said = [reason for reason in decision.reasons if "lie inside the challenger's intervals, 90% promised" in reason]
    assert len(said) == 1 and ("points beside" in said[0]) is not promoted
    assert decide(task, made).promote, "where nothing serves yet, a wrong width is said and keeps nobody out"


def test_of_many_series_none_is_called_worse_by_chance(task: Task) -> None:
    moments = [START + timedelta(hours=number) for number in range(40)]
    keys = pl.DataFrame({"series_id": [f"s{number:02}" for number in range(80)]}).join(
        pl.DataFrame({"origin": moments, "horizon": 1}), how="cross"
    )
    harmed = 0
    for seed in range(6):
        weather, own, other = np.random.default_rng(seed).standard_t(5, (3, keys.height))
        rows = keys.with_columns(actual=0.0, value=3 * weather + own, last=9 * weather, naive=9 * weather)
        harmed += decide(task, rows, keys.with_columns(value=3 * weather + other)).worse
    assert harmed <= 1
