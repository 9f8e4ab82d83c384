"""A task is trained from its examples, judged on a past it has not seen, and honest about both."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from forecastle.data.panel import micros
from forecastle.errors import NotEnoughHistory
from forecastle.models import training
from forecastle.models.estimators import candidates
from forecastle.models.evaluation import FORECAST_COLUMNS, scores
from forecastle.models.training import chosen_origins, default_origins, judge, rescore, score_candidate, train

NOW = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = 3_600_000_000


@pytest.fixture
def task(small_task):
    return small_task(training={"min_history": "5d", "backtest_share": 0.2})


@pytest.fixture
def examples(task, observations, examples_of):
    return examples_of(task, observations(hours=400))


@pytest.fixture
def judged(task, examples, quick):
    cut = int(np.quantile(examples.origins, 0.7))
    return judge(task, examples.take(examples.origins <= cut), default_origins(examples, cut), cut, quick)


def test_a_trained_bundle_says_what_it_is_and_how_good_it_was(task, examples):
    trained = train(task, examples, "d41d8", {"a": 1}, NOW)
    bundle = trained.bundle
    assert (bundle.task, bundle.task_digest, bundle.data_version) == ("small", task.digest, "d41d8")
    assert bundle.created_at == NOW and bundle.reference == {"a": 1} and bundle.version == ""
    assert micros(bundle.trained_until) == examples.origins.max()
    assert bundle.features == examples.names
    assert bundle.backtest["skill"] > 0.1
    assert bundle.backtest["rmse"] == scores(trained.backtest)["rmse"]
    assert set(bundle.backtest["candidates"]) == set(candidates(examples.recipe))
    assert set(bundle.backtest["series"]) == {"a", "b"}
    assert sum(bundle.backtest["selection"]["weights"].values()) == pytest.approx(1)


def test_less_history_than_the_task_asks_for_is_refused_with_the_day_it_will_be_enough(task, observations, examples_of):
    with pytest.raises(NotEnoughHistory, match=r"5d of history.*4 days.*2024-03-01 04:00 UTC"):
        train(task, examples_of(task, observations(hours=117)), "", {}, NOW)


def test_a_target_never_observed_is_refused(task, observations, examples_of):
    table = observations(hours=400).with_columns(pl.lit(None, dtype=pl.Float64).alias("y"))
    with pytest.raises(NotEnoughHistory, match="observed values of 'y' before 2024"):
        train(task, examples_of(task, table), "", {}, NOW)


def test_every_candidate_and_both_naive_methods_are_scored_on_the_same_rows(judged, examples):
    assert set(judged.candidates) == set(candidates(examples.recipe))
    figures = scores(judged.rows)
    assert {candidate["n"] for candidate in judged.candidates.values()} == {figures["n"]}
    assert judged.candidates["persistence"]["skill"] == 0.0
    rmse = (judged.rows["last"] - judged.rows["actual"]).pow(2).mean() ** 0.5
    assert judged.candidates["persistence"]["rmse"] == pytest.approx(rmse)
    rmse = (judged.rows["naive"] - judged.rows["actual"]).pow(2).mean() ** 0.5
    assert judged.candidates["seasonal_naive"]["rmse"] == pytest.approx(rmse)


def test_a_candidate_is_scored_only_where_the_model_was(task, examples, judged):
    test = default_origins(examples, int(np.quantile(examples.origins, 0.7)))
    some = judged.rows.filter(pl.col("horizon") == 2)
    assert score_candidate(some, test, test.truth)["n"] == scores(some)["n"]
    assert score_candidate(some, test, test.truth)["rmse"] == 0.0


def test_forecast_rows_are_one_for_each_series_origin_and_step(judged, examples):
    rows = judged.rows
    assert set(FORECAST_COLUMNS) <= set(rows.columns)
    assert rows.equals(rows.sort("series_id", "origin", "horizon"))
    assert (rows.group_by("series_id", "origin").len()["len"] == 3).all()
    ahead = rows.select((pl.col("timestamp") - pl.col("origin")).dt.total_hours() - pl.col("horizon")).to_series()
    assert (ahead == 0).all()
    assert rows.select(pl.col("value").is_between("lower", "upper").all()).item()
    assert rows.filter(pl.col("timestamp") > examples_end(examples))["actual"].is_null().all()


def examples_end(examples) -> datetime:
    return datetime.fromtimestamp(int(examples.origins.max()) / 1e6, UTC)


def test_a_back_test_has_no_origin_up_to_its_cut_and_meets_every_hour_where_it_is_thinned(examples, monkeypatch):
    cut = int(np.median(examples.origins))
    assert (default_origins(examples, cut).origins > cut).all()
    assert len(default_origins(examples, cut)) == (examples.origins > cut).sum()
    monkeypatch.setattr(training, "BACKTEST_PAIRS", 300)
    origins = np.tile(np.arange(2000) * HOUR, 2)
    thinned = origins[chosen_origins(origins, 1000 * HOUR, 3)]
    assert 50 <= len(thinned) <= 100 and thinned.min() > 1000 * HOUR
    assert len(np.unique(thinned // HOUR % 24)) == 24


def test_what_was_revised_after_the_back_tests_first_origin_trains_nothing(task, observations, examples_of):
    table = observations(hours=400)
    start = table["timestamp"].min()
    revised = table.filter(pl.col("timestamp") < start + timedelta(hours=300)).with_columns(
        pl.col("y") * 50, pl.col("available_at") + timedelta(hours=390)
    )
    rows = [
        train(task, examples_of(task, versions), "", {}, NOW).backtest.filter(
            pl.col("origin") <= start + timedelta(hours=325)
        )
        for versions in (table, pl.concat([table, revised]))
    ]
    assert rows[0].height > 30
    assert rows[0].select("value", "lower", "upper").equals(rows[1].select("value", "lower", "upper"))


def test_a_champion_is_scored_again_only_on_origins_after_everything_it_learnt_from(task, examples, judged):
    bundle = train(task, examples, "", {}, NOW).bundle
    assert rescore(bundle, examples, judged.rows).is_empty()
    early = replace(bundle, trained_until=judged.rows["origin"].unique().sort()[-10])
    again = rescore(early, examples, judged.rows)
    assert again["origin"].min() > early.trained_until
    assert again.select("series_id", "origin", "horizon").equals(
        judged.rows.filter(pl.col("origin") > early.trained_until).select("series_id", "origin", "horizon")
    )


def test_what_was_learnt_from_does_not_stay_in_memory(task, observations, examples_of):
    examples = examples_of(task, observations(hours=400))
    seen = weakref.ref(examples)
    trained = train(task, examples, "", {}, NOW)
    del examples
    gc.collect()
    assert seen() is None and trained.bundle.features
