"""The laws of forecasts, for every estimator, the blend and the intervals: parity, no peeking, order-free,
series-isolated, same rows, a whole answer for every origin, determinism."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.backtesting import backtest_task
from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import Panel, build_panel, micros
from forecastle.data.starter import file_task
from forecastle.data.transformation import make_recipe
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, TIMESTAMP, conform
from forecastle.models import bundle as bundles
from forecastle.models.estimators import ESTIMATORS, LEARNERS, predict
from forecastle.models.learning import Fitted, Options
from forecastle.models.evaluation import scores
from forecastle.models.model import Model, apply
from forecastle.models.selection import Choice, choose
from forecastle.models.training import assemble, back_test, judge, spread_of, train
from forecastle.settings import Settings
from forecastle.task import Task, load_task, make_task

HOUR = timedelta(hours=1)
START = datetime(2024, 3, 1, tzinfo=UTC)  # New York changes its clock on the tenth
NOW = datetime(2025, 1, 1, tzinfo=UTC)
QUICK = Options(rows=3_000, ridge_rows=500, rounds=20)
FEW = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 10_000)


def task_of(grid: str) -> Task:
    return make_task(
        {
            "name": "law",
            "domain": "environmental",
            "timezone": "America/New_York",
            "frequency": "1h",
            "horizon": "3h",
            "grid": grid,
            "target": "y",
            "source": {"provider": "file", "path": "none.parquet"},
            "columns": {"y": {}, "x": {}},
            "features": {"season": 24, "holidays": "US"},
            "training": {"min_history": "5d"},
        }
    )


def observed(seed: int, hours: int = 450, series: tuple[str, ...] = ("a", "b")) -> pl.DataFrame:
    """Return a daily cycle with noise, with gaps, missing values, late values and revisions."""
    random = np.random.default_rng(seed)
    at = [START + HOUR * hour for hour in range(hours)]
    cycle = 5 * np.sin(np.arange(hours) * 2 * np.pi / 24)
    plain = pl.concat(
        pl.DataFrame(
            {
                "series_id": name,
                "timestamp": at,
                "y": cycle + random.normal(0, 1, hours),
                "x": random.normal(size=hours),
            }
        )
        for name in series
    ).with_columns(collected_at=pl.lit(START))
    size = plain.height
    late = pl.Series(np.where(random.random(size) < 0.05, 5, 0)) * HOUR
    table = plain.with_columns(
        pl.when(pl.Series(random.random(size) < 0.05)).then(None).otherwise(pl.col("y")).alias("y"),
        (pl.col(TIMESTAMP) + HOUR + late).alias(AVAILABLE_AT),
    ).filter(pl.Series(random.random(size) > 0.05))
    revised = table.filter(pl.Series(random.random(table.height) < 0.1)).with_columns(
        pl.col("y") + 10, pl.col(AVAILABLE_AT) + 7 * HOUR, pl.col(COLLECTED_AT) + 7 * HOUR
    )
    return conform(pl.concat([table, revised]), ["y", "x"])


@dataclass(frozen=True)
class Learnt:
    """A task with everything learnt from the first half of its observations."""

    task: Task
    table: pl.DataFrame
    examples: Examples
    fitted: dict[str, Fitted]
    model: Model  # a blend of every learner


@lru_cache
def learnt(grid: str) -> Learnt:
    task, table = task_of(grid), observed(0, hours=600)
    panel = build_panel(table, task)
    examples = make_examples(make_recipe(task, panel), panel, np.arange(panel.size))
    until = int(np.median(examples.origins))
    fitted = {name: estimator.fit(examples, until, QUICK) for name, estimator in ESTIMATORS.items()}
    found = choose(examples, until, QUICK)
    choice = Choice({name: 1 / len(LEARNERS) for name in LEARNERS}, 1.0, 0.0, found.errors, {})
    return Learnt(
        task, table, examples, fitted, assemble(task, examples, choice, fitted, spread_of(task, found.errors))
    )


@pytest.fixture(params=["regular", "observed"])
def made(request: pytest.FixtureRequest) -> Learnt:
    return learnt(request.param)


@pytest.fixture(params=[*ESTIMATORS, "blend"])
def forecast(request: pytest.FixtureRequest, made: Learnt):
    """Return what forecasts: each estimator alone, or the blend, its half widths beside."""
    if request.param == "blend":

        def both(examples: Examples) -> np.ndarray:
            prediction = apply(made.model, examples)
            return np.hstack([prediction.value, prediction.half])

        return both
    return lambda examples: predict(made.fitted[request.param], examples)


def test_an_origin_served_alone_has_the_bits_it_has_among_many(made, forecast):
    whole = forecast(made.examples)
    for row in np.random.default_rng(1).choice(len(made.examples), 25, replace=False):
        assert forecast(made.examples.take(np.array([row]))).tobytes() == whole[[row]].tobytes()


def test_origins_served_in_another_order_or_company_have_the_same_bits(made, forecast):
    whole = forecast(made.examples)
    for size in (2, 7, 64, 333):
        rows = np.random.default_rng(size).permutation(len(made.examples))[:size]
        assert forecast(made.examples.take(rows)).tobytes() == whole[rows].tobytes()


def test_features_through_json_and_float32_give_the_same_bits(made, forecast):
    def through_json(matrix: np.ndarray) -> np.ndarray:
        plain = [None if value != value else value for value in matrix.ravel().tolist()]
        back = [np.nan if value is None else value for value in json.loads(json.dumps(plain))]
        return np.array(back, dtype=np.float64).reshape(matrix.shape)

    some = made.examples.take(np.arange(0, len(made.examples), 17))
    wide = replace(some, origin=through_json(some.origin), step=through_json(some.step))
    narrow = replace(wide, origin=wide.origin.astype(np.float32), step=wide.step.astype(np.float32))
    assert forecast(wide).tobytes() == forecast(narrow).tobytes() == forecast(some).tobytes()


def test_a_bundle_saved_and_loaded_gives_the_same_bits(made, tmp_path):
    bundle = bundles.Bundle("law", "", "", "", NOW, NOW, made.model, made.examples.names, {}, {})
    loaded = bundles.load(bundles.save(bundle, tmp_path / "bundle")).model
    before, after = apply(made.model, made.examples), apply(loaded, made.examples)
    assert before.value.tobytes() == after.value.tobytes() and before.half.tobytes() == after.half.tobytes()


@pytest.mark.parametrize("grid", ["regular", "observed"])
@FEW
@given(seed=SEEDS, place=st.floats(0.3, 1))
def test_what_became_known_after_a_forecast_was_issued_changes_neither_its_value_nor_its_interval(grid, seed, place):
    made, table = learnt(grid), observed(seed, hours=300)
    issued = START + int(place * 300) * HOUR
    later = pl.col(AVAILABLE_AT) > issued
    changed = table.with_columns(
        pl.when(later).then(pl.col(name) * 3 + 70).otherwise(pl.col(name)).alias(name) for name in ("y", "x")
    )
    # the first version of a row that came late stays where it is: it says when the forecast from it was issued
    first = pl.col(AVAILABLE_AT) == pl.col(AVAILABLE_AT).min().over("series_id", TIMESTAMP)
    removed = changed.filter(~later | (first & (pl.col(TIMESTAMP) < issued)))
    whole = issued_by(made, table, issued)
    assert whole.height > 30
    assert issued_by(made, changed, issued).equals(whole)
    assert issued_by(made, removed, issued).equals(whole)


def issued_by(made: Learnt, table: pl.DataFrame, issued: datetime) -> pl.DataFrame:
    """Return the back-test's forecasts that were issued by a moment."""
    panel = build_panel(table, made.task, until=min(issued, START + 300 * HOUR) - HOUR)
    rows = np.flatnonzero(panel.issued_at <= micros(issued))
    forecasts = back_test(made.model, make_examples(made.model.recipe, panel, rows))
    return forecasts.select("series_id", "origin", "horizon", "value", "lower", "upper")


@FEW
@given(seed=SEEDS)
@pytest.mark.parametrize("grid", ["regular", "observed"])
def test_the_order_in_which_observations_arrive_changes_no_forecast(grid, seed):
    made, table = learnt(grid), observed(seed, hours=150)
    shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
    assert issued_by(made, shuffled, NOW).equals(issued_by(made, table, NOW))


@FEW
@given(seed=SEEDS)
@pytest.mark.parametrize("grid", ["regular", "observed"])
def test_without_one_series_the_others_get_the_same_forecasts_by_a_given_model(grid, seed):
    made, table = learnt(grid), observed(seed, hours=150, series=("a", "b", "c"))
    panel = build_panel(table, made.task)
    alone = build_panel(table.filter(pl.col("series_id") == "b"), made.task)
    own = np.arange(panel.size)[panel.rows_of("b")]
    among = apply(made.model, make_examples(made.model.recipe, panel, own))
    single = apply(made.model, make_examples(made.model.recipe, alone, np.arange(alone.size)))
    assert among.value.tobytes() == single.value.tobytes() and among.half.tobytes() == single.half.tobytes()


def judged(grid: str, table: pl.DataFrame):
    task = task_of(grid)
    panel = build_panel(table, task)
    examples = make_examples(make_recipe(task, panel), panel, np.arange(panel.size))
    cut = int(np.quantile(examples.origins, 0.8))
    return judge(task, examples.take(examples.origins <= cut), examples.take(examples.origins > cut), cut, QUICK)


@pytest.mark.parametrize("grid", ["regular", "observed"])
@pytest.mark.parametrize("seed", range(2))
def test_every_method_is_scored_on_the_same_rows_and_every_origin_gets_every_step(grid, seed):
    result = judged(grid, observed(seed, hours=350))
    assert {candidate["n"] for candidate in result.candidates.values()} == {scores(result.rows)["n"]}
    assert (result.rows.group_by("series_id", "origin").len()["len"] == 3).all()
    assert result.rows.select(pl.col("value", "lower", "upper").is_finite().all()).row(0) == (True, True, True)


def test_observations_in_another_order_train_the_same_model():
    table = observed(3, hours=300)
    one, two = judged("regular", table), judged("regular", table.sample(fraction=1, shuffle=True, seed=1))
    assert one.rows.equals(two.rows) and one.choice.weights == two.choice.weights


@FEW
@given(seed=SEEDS, blank=st.sampled_from(["nothing", "the last", "a day", "two weeks", "everything"]))
def test_whatever_is_missing_every_origin_gets_a_number_for_every_step(seed, blank):
    made, table = learnt("regular"), observed(seed, hours=400)
    end = table[TIMESTAMP].max()
    reach = {"nothing": 0, "the last": 1, "a day": 24, "two weeks": 336, "everything": 10_000}[blank]
    gone = table.with_columns(
        pl.when(pl.col(TIMESTAMP) > end - reach * HOUR).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("y", "x")
    )
    panel: Panel = build_panel(gone, made.task, until=end + 3 * HOUR)
    prediction = apply(made.model, make_examples(made.model.recipe, panel, panel.last_rows))
    assert prediction.value.shape == prediction.half.shape == (2, 3)
    assert np.isfinite(prediction.value).all() and np.isfinite(prediction.half).all()
    assert (prediction.half > 0).all()


def test_the_same_seed_and_data_give_the_same_bytes():
    task, table = task_of("regular"), observed(0, hours=300)
    digests = []
    for _ in range(2):
        panel = build_panel(table, task)
        examples = make_examples(make_recipe(task, panel), panel, np.arange(panel.size))
        trained = train(task, examples, "d41d", {}, NOW)
        with TemporaryDirectory() as folder:
            digests.append((bundles.save(trained.bundle, Path(folder)) / bundles.DIGEST).read_text())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("later", ["changed", "removed"])
def test_values_after_the_first_asked_origin_never_change_the_model_it_is_forecast_with(later, tmp_path, monkeypatch):
    monkeypatch.setattr("forecastle.backtesting.Options", lambda seed: QUICK)
    first = START + 320 * HOUR
    table = (
        observed(5, hours=400)
        .unique(["series_id", "timestamp"], keep="first")
        .select("series_id", "timestamp", "y", "x")
    )
    after = pl.col(TIMESTAMP) > first
    other = table.filter(~after)
    if later == "changed":
        other = table.with_columns(pl.when(after).then(pl.col("y") * 3 + 70).otherwise(pl.col("y")).alias("y"))
    origins = [first] if later == "removed" else [first, first + 30 * HOUR]
    names = table.filter(pl.col(TIMESTAMP) == first)["series_id"].to_list()
    keys = [(name, origin) for name in names for origin in origins]
    pl.DataFrame(keys, schema=["series_id", "origin"], orient="row").write_parquet(tmp_path / "origins.parquet")
    rows = []
    for content in (table, other):
        content.write_parquet(tmp_path / "table.parquet")
        text, _ = file_task("law", tmp_path / "table.parquet", tmp_path, "y", "1h", "3h", covariates=["x"])
        (tmp_path / "law.toml").write_text(text)
        task = load_task(tmp_path / "law.toml")
        result = backtest_task(task, Settings(home=tmp_path / "home"), NOW, tmp_path / "origins.parquet")
        rows.append(result.rows.filter(pl.col("origin") == first).drop("actual"))
    assert rows[0].height == 3 * len(names) > 0
    assert rows[0].equals(rows[1])
