"""Intervals cover what they promise, each series at its own width, and follow a shift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import Examples
from forecastle.frame import TIME
from forecastle.models.estimators import predict
from forecastle.models.learning import Fitted, all_pairs, labelled, thinned
from forecastle.models.evaluation import scores, scores_by_series
from forecastle.models.intervals import NARROWEST, WIDEST, Errors, Spread, adapt, calibrate, follow, multipliers
from forecastle.models.model import Model
from forecastle.models.training import back_test, forecast_rows
from forecastle.monitoring.journal import Journal, identified

HOUR = 3_600_000_000
COVERAGE = 0.9


def noise_beside_louder_noise(table: pl.DataFrame, seed: int, louder_from: int | None = None) -> pl.DataFrame:
    """Return values around zero; series b ten times as loud as a, both three times louder from an hour on."""
    random = np.random.default_rng(seed)
    hour = pl.int_range(pl.len()).over("series_id")
    scale = pl.when(pl.col("series_id") == "b").then(10.0).otherwise(1.0)
    shift = pl.lit(1.0) if louder_from is None else pl.when(hour >= louder_from).then(3.0).otherwise(1.0)
    return table.with_columns((pl.Series(random.normal(size=table.height)) * scale * shift).alias("y"))


def persistence_errors(examples: Examples, until: int) -> list[Errors]:
    pairs = thinned(labelled(examples, until), examples, 5_000)
    forecast, truth = pairs.pick(predict(Fitted("persistence"), examples)), pairs.pick(examples.truth)
    fold = (examples.origins[pairs.row] > until // 2 + int(examples.origins.min()) // 2).astype(np.int64)
    return [Errors(pairs, forecast, truth, fold)]


def calibrated(examples: Examples, until: int) -> Model:
    spread = calibrate(persistence_errors(examples, until), COVERAGE, 0)
    return Model(examples.recipe, "persistence", (Fitted("persistence"),), (1.0,), spread, COVERAGE, {})


@pytest.fixture
def two_series(small_task, observations, examples_of):
    def make(seed: int, hours: int = 2400, louder_from: int | None = None) -> Examples:
        task = small_task(features={"lags": [0, 1, 2], "windows": [3]})
        table = observations(hours=hours).with_columns(pl.lit(0.0).alias("x"))
        return examples_of(task, noise_beside_louder_noise(table, seed, louder_from))

    return make


@pytest.mark.parametrize("seed", range(3))
def test_nine_in_ten_outcomes_lie_inside_for_every_horizon_and_every_series(two_series, seed):
    examples = two_series(seed)
    until = int(np.median(examples.origins))
    rows = back_test(calibrated(examples, until), examples.take(examples.origins > until))
    figures = scores(rows)
    assert figures["n"] > 5_000
    assert 0.88 <= figures["coverage"] <= 0.92
    assert all(0.86 <= one["coverage"] <= 0.94 for one in figures["horizons"])
    assert all(0.86 <= one["coverage"] <= 0.94 for one in scores_by_series(rows).values())


def test_a_louder_series_gets_wider_intervals(two_series):
    examples = two_series(0)
    until = int(np.median(examples.origins))
    rows = back_test(calibrated(examples, until), examples.take(examples.origins > until))
    width = dict(rows.group_by("series_id").agg((pl.col("upper") - pl.col("lower")).median()).iter_rows())
    assert 6 < width["b"] / width["a"] < 15


def test_after_a_shift_every_window_of_500_outcomes_is_covered_again(two_series):
    examples = two_series(1, hours=3000, louder_from=1800)
    until = int(np.median(examples.origins))
    rows = back_test(calibrated(examples, until), examples.take(examples.origins > until))
    shift = examples.origins[0] + 1800 * HOUR
    after = rows.filter(pl.col("timestamp").dt.epoch("us") >= shift).drop_nulls("actual").sort("timestamp", "horizon")
    inside = after.select(pl.col("actual").is_between("lower", "upper"))["actual"].to_numpy()
    windows = np.convolve(inside[500:], np.ones(500) / 500, mode="valid")
    assert inside[:30].mean() < 0.75
    assert 0.85 <= windows.min() and windows.max() <= 0.95


def test_before_any_outcome_nothing_is_widened():
    assert (multipliers(np.zeros(2), np.zeros((2, 3))) == 1).all()


def test_misses_widen_and_hits_narrow_the_series_most():
    series, step = follow(0.0, 0.0, True, 1.0, COVERAGE)
    wider = multipliers([series, 0.0], [[0.0, step, 0.0], [0.0] * 3])
    assert wider[0, 1] > wider[0, 0] > wider[1, 1] == wider[1, 0] == 1
    series, step = follow(0.0, 0.0, False, 1.0, COVERAGE)
    assert series < step < 0


@pytest.mark.parametrize(("missed", "bound"), [(True, WIDEST), (False, NARROWEST)])
def test_what_a_width_cannot_follow_does_not_pile_up(missed: bool, bound: float):
    moved = (0.0, 0.0)
    for _ in range(5_000):
        moved = follow(*moved, missed, 1.0, COVERAGE)
    assert abs(sum(moved) - bound) < 0.1 and sum(moved) / bound <= 1
    assert abs(sum(follow(*moved, not missed, 1.0, COVERAGE))) < abs(sum(moved)), "the first surprise turns it"


def test_as_many_misses_as_promised_leave_widths_as_they_are():
    moved = (0.0, 0.0)
    for number in range(100):
        moved = follow(*moved, number % 10 == 0, 0.4, COVERAGE)
    assert moved == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("days", [30, 60])
def test_after_a_sensor_was_stuck_for_weeks_intervals_cover_again_within_500_outcomes(two_series, days):
    examples = two_series(3, hours=1200 + 24 * days + 700).take(slice(None))
    stuck = slice(*(examples.origins[0] + hour * HOUR for hour in (1200, 1200 + 24 * days)))
    forecast, half = np.zeros(examples.truth.shape), np.full(examples.truth.shape, 1.645)
    half[examples.series == 1] *= 10
    within = (examples.times >= stuck.start) & (examples.times < stuck.stop)
    outcome = np.where(within, 0.0, examples.outcome)
    adapted = adapt(replace(examples, outcome=outcome), forecast, half, COVERAGE)
    for series in (0, 1):
        after = (examples.series == series) & (examples.times[:, 0] >= stuck.stop)
        inside = (np.abs(outcome) <= adapted)[after][~np.isnan(outcome[after]).any(axis=1)].ravel()
        windows = inside[: len(inside) // 500 * 500].reshape(-1, 500).mean(axis=1)
        assert windows[0] > 0.6 and windows[1:].min() > 0.85


def test_an_outcome_counts_only_for_forecasts_issued_after_it_was_known(two_series):
    examples = two_series(0, hours=60).take(np.arange(60))
    forecast, half = predict(Fitted("persistence"), examples), np.ones((60, 3))
    plain = adapt(examples, forecast, half, COVERAGE)
    assert (plain[0] == 1).all() and not (plain[2] == 1).any()
    known_at, moment = examples.outcome_at.copy(), examples.issued_at[30]
    late = known_at == examples.issued_at[20]
    known_at[late] = moment
    later = adapt(replace(examples, outcome_at=known_at), forecast, half, COVERAGE)
    assert (later[:20] == plain[:20]).all() and (later[20:30] != plain[20:30]).any()
    outcome = np.where(late, examples.outcome + 1000, examples.outcome)
    other = adapt(replace(examples, outcome_at=known_at, outcome=outcome), forecast, half, COVERAGE)
    assert (other[:30] == later[:30]).all() and (other[30:] != later[30:]).any()


def test_a_journal_that_scores_outcomes_as_they_come_moves_widths_as_the_back_test_does(two_series, tmp_path):
    examples = two_series(0, hours=700).take(slice(None))
    forecast, half = predict(Fitted("persistence"), examples), np.full(examples.truth.shape, 0.01)
    half[examples.origins > np.median(examples.origins)] = 1e6
    adapted = adapt(examples, forecast, half, COVERAGE)
    rows = forecast_rows(examples, forecast, forecast - adapted, forecast + adapted)
    known_at = forecast_rows(examples, examples.outcome_at, half, half).select(scored_at="value")
    told = {"task": "t", "model_version": "1", "data_version": "d", "estimator": "x", "drifted": False}
    named = [pl.lit(value).alias(name) for name, value in told.items()]
    made = identified(rows.with_columns(*named, pl.col("origin").alias("issued_at")).drop("actual", "naive"))
    with Journal(f"sqlite:///{tmp_path}/journal.db") as journal:
        journal.record(made)
        came = pl.from_epoch(known_at["scored_at"].cast(pl.Int64), "us").dt.replace_time_zone("UTC").cast(TIME)
        scored = made.with_columns(actual=rows["actual"], scored_at=came).drop_nulls("actual")
        journal.score(scored)
        for place in (5, 300, 600, 699):
            now = pl.Series([examples.issued_at[place]]).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")[0]
            tally = journal.tally("t", "1", now, COVERAGE)
            moved = np.zeros((2, 4))
            for (name, step), logarithm in tally.items():
                moved[examples.series_ids.index(name), step] = logarithm
            here = examples.issued_at == examples.issued_at[place]
            expected = half * multipliers(moved[:, 0], moved[:, 1:])[examples.series]
            assert (adapted[here] == expected[here]).all()


def test_a_forecast_issued_after_its_outcome_was_known_counts_from_then_on_only(two_series):
    examples = two_series(0, hours=60).take(np.arange(60))
    issued = examples.issued_at.copy()
    issued[10] = issued[15]
    forecast, half = predict(Fitted("persistence"), examples), np.ones((60, 3))
    outcome = examples.outcome.copy()
    outcome[10] += 1000
    late = replace(examples, issued_at=issued)
    without, with_misses = (adapt(one, forecast, half, COVERAGE) for one in (late, replace(late, outcome=outcome)))
    before = issued <= issued[15]
    assert (without[before] == with_misses[before]).all()
    assert (without[~before] != with_misses[~before]).any()


def test_the_order_of_origins_changes_no_adapted_width(two_series):
    examples = two_series(0, hours=100)
    order = np.random.default_rng(0).permutation(len(examples))
    forecast, half = predict(Fitted("persistence"), examples), np.ones((len(examples), 3))
    plain = adapt(examples, forecast, half, COVERAGE)
    assert (adapt(examples.take(order), forecast[order], half[order], COVERAGE) == plain[order]).all()


def test_a_single_fold_of_errors_gives_intervals_in_the_targets_unit(two_series):
    examples = two_series(2)
    until = int(np.median(examples.origins))
    (errors,) = persistence_errors(examples, until)
    spread = calibrate([replace(errors, fold=np.zeros_like(errors.fold))], COVERAGE, 0)
    model = replace(calibrated(examples, until), spread=spread)
    assert 0.87 <= scores(back_test(model, examples.take(examples.origins > until)))["coverage"] <= 0.93
    assert all(1.5 < quantile < 3 for quantile in spread.quantiles)


def test_errors_so_many_times_as_small_give_intervals_as_many_times_as_narrow(two_series):
    examples = two_series(0)
    (errors,) = persistence_errors(examples, int(np.median(examples.origins)))
    tiny = replace(errors, truth=errors.forecast + 1e-6 * (errors.truth - errors.forecast))
    usual, small = calibrate([errors], COVERAGE, 0), calibrate([tiny], COVERAGE, 0)
    assert small.trees is not None
    assert np.array(small.quantiles) == pytest.approx(np.array(usual.quantiles), rel=0.02)
    assert small.usual == pytest.approx(1e-6 * usual.usual)


def test_forecasts_that_were_never_wrong_give_no_trees(two_series):
    examples = two_series(0, hours=300)
    (errors,) = persistence_errors(examples, int(np.median(examples.origins)))
    spread = calibrate([replace(errors, truth=errors.forecast)], COVERAGE, 0)
    assert spread.trees is None and spread.usual == 0.0 and np.isfinite(spread.quantiles).all()


def test_few_errors_give_one_width_and_none_give_no_width(two_series):
    examples = two_series(0, hours=30)
    few = examples.take(np.arange(12))
    pairs = all_pairs(few)
    errors = Errors(pairs, np.zeros(36), np.ones(36), np.zeros(36, dtype=np.int64))
    spread = calibrate([errors], COVERAGE, 0)
    assert spread.trees is None
    assert np.array(spread.quantiles) * spread.usual == pytest.approx([1.0] * 3)
    assert calibrate([], COVERAGE, 0) == Spread((), 0.0, 0.0)
