"""HAR forecasts volatility as its literature says, and competes nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel, moment
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import make_recipe
from forecastle.models import har
from forecastle.models.estimators import ESTIMATORS, candidates, predict
from forecastle.models.learning import Options
from forecastle.models.selection import choose

COEFFICIENTS = {"last": 0.2, "cascade_24": 0.3, "cascade_168": 0.25, "cascade_720": 0.15}


def volatility(table: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return a table whose y follows Corsi's equation on hours, days, weeks and months, with lognormal news."""
    tables = []
    for number, (_, own) in enumerate(table.group_by("series_id", maintain_order=True)):
        random = np.random.default_rng(seed + number)
        values = np.full(own.height + 720, 0.1)
        for hour in range(720, len(values)):
            looks = (values[hour - width : hour].mean() for width in (1, 24, 168, 720))
            expected = 0.01 + sum(weight * look for weight, look in zip(COEFFICIENTS.values(), looks, strict=True))
            values[hour] = expected * np.exp(random.normal(-0.08, 0.4))
        tables.append(own.with_columns(pl.Series("y", values[720:])))
    return pl.concat(tables)


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(domain="financial", columns={"y": {}}), volatility(observations(hours=24 * 200)))


def rmse(forecast, truth) -> float:
    return float(np.sqrt(np.nanmean((forecast - truth) ** 2)))


def test_the_coefficients_of_corsis_equation_are_found_again(examples):
    learnt = ESTIMATORS["har"].fit(examples, int(examples.times.max()), Options()).numbers["steps"][0]
    assert learnt["weights"] == pytest.approx(list(COEFFICIENTS.values()), abs=0.15)
    assert sum(learnt["weights"]) == pytest.approx(sum(COEFFICIENTS.values()), abs=0.1)


@pytest.mark.parametrize("name", har.NAMES)
def test_on_volatility_har_beats_both_naive_methods_and_is_right_on_average(examples, quick, name):
    until = int(np.median(examples.origins))
    after = examples.take(examples.origins > until)
    forecast = predict(ESTIMATORS[name].fit(examples, until, quick), after)
    naive = [rmse(after.last[:, None], after.truth), rmse(after.seasonal, after.truth)]
    assert rmse(forecast, after.truth) < 0.85 * min(naive)
    assert np.nanmean(forecast - after.truth) == pytest.approx(0, abs=0.1 * np.nanmean(after.truth))


def test_the_means_are_those_of_a_day_a_week_and_a_month(examples):
    assert examples.recipe.cascade == (24, 168, 720)
    row = 1000
    for width in examples.recipe.cascade:
        past = [examples.truth[row - back - 1, 0] for back in range(width)]
        column = examples.origin[row, examples.origin_names.index(f"cascade_{width}")]
        assert column == pytest.approx(np.mean(past), rel=1e-6)


def test_har_competes_for_a_markets_target_that_is_never_negative_and_for_no_other(
    small_task, observations, examples_of
):
    table = observations(hours=60)
    above = table.with_columns(pl.col("y").abs())
    for domain, rows, competes in (
        ("financial", above, True),
        ("financial", table.with_columns(-pl.col("y").abs()), False),
        ("environmental", above, False),
        ("logistics", above, False),
    ):
        recipe = examples_of(small_task(domain=domain), rows).recipe
        assert (set(har.NAMES) <= set(candidates(recipe))) == competes
        assert set(candidates(recipe)) | set(har.NAMES) == set(ESTIMATORS)
        assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_where_it_competes_it_is_validated_beside_the_others_and_may_join_the_blend(examples, quick):
    choice = choose(examples, int(examples.times.max()), quick)
    assert set(har.NAMES) <= set(choice.rmse)
    assert choice.weights.keys() & set(har.NAMES)  # the truth is its own


def test_a_market_that_closes_has_weeks_of_five_days_and_months_of_twenty_two(small_task, observations, examples_of):
    bars = observations(hours=24 * 60).with_columns(pl.col("y").abs())
    bars = bars.filter(pl.col("timestamp").dt.hour().is_between(14, 20), pl.col("timestamp").dt.weekday() <= 5)
    assert examples_of(small_task(domain="financial", grid="observed"), bars).recipe.cascade == (7, 35, 154)


def test_no_forecast_leaves_the_range_seen_in_training(examples, quick):
    fitted = ESTIMATORS["har"].fit(examples, int(examples.times.max()), quick)
    wild = replace(examples, last=np.where(np.arange(len(examples)) % 2, 1e6, -1e6))
    low, high = fitted.numbers["limits"]
    forecast = predict(fitted, wild)
    assert low == np.nanmin(examples.truth) and high == np.nanmax(examples.truth)
    assert forecast.min() >= low and forecast.max() <= high


def test_a_row_served_from_its_look_back_alone_has_the_bits_it_had_in_training(small_task, observations):
    task = small_task(domain="financial", columns={"y": {}})
    table = volatility(observations(hours=24 * 50)).filter(pl.int_range(pl.len()) % 7 != 3)
    panel = build_panel(table, task)
    recipe = make_recipe(task, panel)
    whole = make_examples(recipe, panel, np.arange(panel.size))
    for row in (5, 800, panel.size - 1):
        origin = moment(panel.timestamps[row])
        recent = table.filter(pl.col("timestamp").is_between(origin - recipe.lookback, origin))
        short = build_panel(recent, task, until=origin)
        place = short.rows_of(panel.series_ids[panel.series_of[row]]).stop - 1
        served = make_examples(recipe, short, np.array([place]), panel.issued_at[[row]])
        assert served.origin.tobytes() == whole.origin[[row]].tobytes()
