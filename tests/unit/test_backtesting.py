"""A table of one's own, or a collected history, is back-tested in one call, whatever dirt is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.backtesting import Backtest, backtest_task, doubt
from forecastle.data.history import History
from forecastle.data.starter import file_task
from forecastle.errors import NotEnoughHistory, QualityGateFailed, TaskError
from forecastle.models import training
from forecastle.models import har
from forecastle.models.estimators import ESTIMATORS
from forecastle.models.learning import Options
from forecastle.models.evaluation import FORECAST_COLUMNS
from forecastle.settings import Settings
from forecastle.task import Task, load_task

NOW = datetime(2024, 12, 1, tzinfo=UTC)
START = datetime(2024, 3, 4, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Quick(Options):
    """Options with which everything is learnt in a moment."""

    rows: int = 4_000
    ridge_rows: int = 600
    rounds: int = 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn from little; what is tested here is the way of the data, not how good a forecast can be."""
    monkeypatch.setattr("forecastle.backtesting.Options", Quick)


def made_up(
    days: int = 25, step: timedelta = HOUR, series: tuple[str, ...] = ("a", "b"), seed: int = 0
) -> pl.DataFrame:
    """Return a daily cycle with noise; x is the noise of the step to come, known a step before."""
    random = np.random.default_rng(seed)
    size = int(timedelta(days=days) / step)
    tables = []
    for number, name in enumerate(series):
        noise = random.normal(0, 1, size + 1)
        cycle = np.sin(np.arange(size) * 2 * np.pi * (step / timedelta(days=1)))
        at = [START + step * place for place in range(size)]
        tables.append(
            pl.DataFrame(
                {"series_id": name, "timestamp": at, "y": 10 * number + 5 * cycle + noise[:-1], "x": noise[1:]}
            )
        )
    return pl.concat(tables)


@pytest.fixture
def task_of(tmp_path: Path) -> Callable[..., Task]:
    """Write a table and the task file that init writes for it, and load it."""

    def make(
        table: pl.DataFrame, frequency: str = "1h", horizon: str = "3h", more: str = "", **options: object
    ) -> Task:
        path = tmp_path / "table.parquet"
        table.write_parquet(path)
        text, _ = file_task("small", path, tmp_path, "y", frequency, horizon, **options)  # type: ignore[arg-type]
        (tmp_path / "small.toml").write_text(text + more)
        return load_task(tmp_path / "small.toml")

    return make


@pytest.fixture
def run(task_of, tmp_path: Path) -> Callable[..., Backtest]:
    """Back-test a table as a newcomer would: init, then backtest."""

    def make(table: pl.DataFrame, *args: str, origins: pl.DataFrame | None = None, **options: object) -> Backtest:
        task, chosen = task_of(table, *args, **options), None
        if origins is not None:
            chosen = tmp_path / "origins.parquet"
            origins.write_parquet(chosen)
        return backtest_task(task, Settings(home=tmp_path / "home"), NOW, chosen)

    return make


def some_origins(*offsets: int, series: tuple[str, ...] = ("a", "b"), step: timedelta = HOUR) -> pl.DataFrame:
    keys = [(name, START + step * offset) for name in series for offset in offsets]
    return pl.DataFrame(keys, schema={"series_id": pl.String, "origin": pl.Datetime("us", "UTC")}, orient="row")


def assert_whole(result: Backtest, steps: int, origins: int | None = None) -> None:
    """Every origin has exactly its steps, each with value, lower and upper."""
    rows = result.rows
    assert tuple(rows.columns) == FORECAST_COLUMNS
    assert (
        rows.group_by("series_id", "origin").agg(pl.col("horizon").sort())["horizon"] == [*range(1, steps + 1)]
    ).all()
    assert rows.select(pl.col("value", "lower", "upper").is_finite().all()).row(0) == (True, True, True)
    assert rows.select(pl.col("value").is_between("lower", "upper").all()).item()
    if origins is not None:
        assert rows.height == origins * steps


def test_a_forecast_of_what_drives_the_target_helps_where_it_had_been_issued_in_time(task_of, tmp_path):
    table = made_up(series=("a",))
    table = table.with_columns(pl.col("x").shift(1))  # x drives the step it is of, and is measured when that has passed
    path = tmp_path / "small.toml"
    task_of(table, covariates=["x"])
    text = (
        path.read_text()
        .replace("[source]", '[source]\nissued = "issued.parquet"')
        .replace("[columns.x]", "[columns.x]\nahead = true")
    )
    path.write_text(text)
    rmse = {}
    for hours in (-4, 1):
        told = table.select("series_id", "timestamp", "x", issued_at=pl.col("timestamp") + hours * HOUR)
        told.write_parquet(tmp_path / "issued.parquet")
        rmse[hours] = backtest_task(load_task(path), Settings(home=tmp_path / "home"), NOW).scores["rmse"]
    assert rmse[-4] < 0.6 * rmse[1]


def test_a_recorded_table_is_back_tested_on_its_last_part_however_long_ago_it_ended(run):
    table = made_up()
    result = run(table, covariates=["x"])
    assert_whole(result, 3)
    assert result.rows["origin"].min() > START + timedelta(days=21)
    assert result.rows["origin"].max() == table["timestamp"].max()
    assert result.scores["skill"] > 0.3
    assert {candidate["n"] for candidate in result.scores["candidates"].values()} == {result.scores["n"]}
    assert set(result.scores["candidates"]) == set(ESTIMATORS) - set(har.NAMES)
    truth = result.rows.join(table, on=["series_id", "timestamp"], how="left")
    assert truth["actual"].equals(truth["y"], null_equal=True)


def test_asked_origins_and_no_others_are_forecast(run):
    asked = some_origins(480, 495, 530, 599)
    result = run(made_up(), origins=asked.sample(fraction=1, shuffle=True, seed=1))
    assert_whole(result, 3, origins=8)
    keys = result.rows.select("series_id", "origin").unique().sort("series_id", "origin")
    assert keys.equals(asked.sort("series_id", "origin").cast(keys.schema))


def test_an_origin_asked_twice_is_forecast_once(run):
    assert_whole(run(made_up(), origins=pl.concat([some_origins(480)] * 2)), 3, origins=2)


@pytest.mark.parametrize("missing", ["the last value", "the truth", "everything recent", "rows"])
def test_every_origin_gets_every_step_whatever_is_missing(run, missing):
    table, origin = made_up(), START + 520 * HOUR
    at = pl.col("timestamp")
    gone = {
        "the last value": at == origin,
        "the truth": at > origin,
        "everything recent": at.is_between(START + timedelta(days=8), origin),
        "rows": at.is_between(origin - 30 * HOUR, origin + 2 * HOUR),
    }[missing]
    if missing == "rows":
        table = table.filter(~(gone & (pl.col("series_id") == "a")))
    else:
        table = table.with_columns(pl.when(gone).then(None).otherwise(pl.col("y")).alias("y"))
    assert_whole(run(table, origins=some_origins(515, 520)), 3, origins=4)


def test_an_origin_at_the_very_end_or_after_it_gets_every_step(run):
    result = run(made_up(), origins=some_origins(590, 599, 605))
    assert_whole(result, 3, origins=6)
    assert result.rows.filter(pl.col("origin") >= START + 599 * HOUR)["actual"].is_null().all()


@pytest.mark.parametrize(
    ("origins", "found"),
    [
        (some_origins(480, series=("aa",)), "did you mean 'a'"),
        (some_origins(-5, 480), "2024-03-03 19:00"),
        (some_origins(480).with_columns(pl.col("origin") + timedelta(minutes=7)), "2024-03-24 00:07"),
        (pl.DataFrame({"series": ["a"], "origin": [START]}), "series_id"),
    ],
)
def test_origins_that_cannot_be_are_named(run, origins, found):
    with pytest.raises(TaskError, match=found):
        run(made_up(), origins=origins)


def test_no_origins_are_nothing_to_forecast_from(run):
    with pytest.raises(NotEnoughHistory, match="origins"):
        run(made_up(), origins=some_origins(480).clear())


def test_a_gate_that_fails_stops_the_back_test(task_of, tmp_path):
    table = made_up().with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise(pl.col("y")).alias("y")
    )
    task = task_of(table)
    strict = task.model_copy(update={"columns": {"y": task.columns["y"].model_copy(update={"max_null_share": 0.01})}})
    with pytest.raises(QualityGateFailed, match="passes the gate"):
        backtest_task(strict, Settings(home=tmp_path), NOW)


def test_where_markets_close_a_step_is_the_next_bar(run):
    """Bars from 14:00 to 20:00 UTC on weekdays; nights and weekends hold none, and one holiday."""
    hours = made_up(days=100, series=("IBM", "SAP"))
    at = pl.col("timestamp")
    bars = hours.filter(
        at.dt.hour().is_between(14, 20), at.dt.weekday() <= 5, at.dt.date() != (START + timedelta(days=90)).date()
    )
    bars = bars.with_columns(pl.Series("y", np.cumsum(np.random.default_rng(0).normal(size=bars.height))))
    result = run(bars, "1h", "3h", grid="observed", timezone="America/New_York", domain="financial")
    assert_whole(result, 3)
    own = bars.filter(pl.col("series_id") == "SAP")["timestamp"].to_list()
    friday = next(one for one in reversed(own) if one.weekday() == 4 and one.hour == 19)
    ahead = result.rows.filter(series_id="SAP", origin=friday)["timestamp"].to_list()
    place = own.index(friday)
    assert ahead == own[place + 1 : place + 4]
    assert [one.weekday() for one in ahead] == [4, 0, 0]
    assert result.rows.drop_nulls("actual").join(bars, on=["series_id", "timestamp"], how="anti").is_empty()
    assert result.scores["weights"] == {"persistence": 1.0}


def test_asked_bars_of_a_market_that_closes_get_every_step(run):
    at = pl.col("timestamp")
    bars = made_up(days=60).filter(at.dt.hour().is_between(8, 15), at.dt.weekday() <= 5)
    asked = bars.group_by("series_id").tail(40).select("series_id", pl.col("timestamp").alias("origin"))
    assert_whole(run(bars, grid="observed", origins=asked), 3, origins=80)
    with pytest.raises(TaskError, match="observed bars"):
        run(bars, grid="observed", origins=asked.with_columns(pl.col("origin") + 12 * HOUR))


def test_half_hourly_tables_have_twice_the_steps(run):
    result = run(made_up(days=20, step=HOUR / 2), "30m", "3h")
    assert_whole(result, 6)
    assert result.scores["skill"] > 0.2


def test_five_minute_tables_look_two_hours_ahead_in_twenty_four_steps(run):
    result = run(made_up(days=6, step=HOUR / 12), "5m", "2h")
    assert_whole(result, 24)
    ahead = result.rows.select((pl.col("timestamp") - pl.col("origin")).dt.total_minutes() / pl.col("horizon"))
    assert ahead.to_series().unique().to_list() == [5.0]


def test_daily_tables_have_no_season_within_the_day(run):
    assert_whole(run(made_up(days=400, step=24 * HOUR), "1d", "7d"), 7)


def dirty(table: pl.DataFrame, spikes: float = 1e6, seed: int = 0) -> pl.DataFrame:
    """Return a table as a bad sensor makes it: spikes, stuck values, gaps, repeated rows, in no order."""
    random = np.random.default_rng(seed)
    spike, gone = pl.Series(random.random(table.height) < 0.005), pl.Series(random.random(table.height) < 0.03)
    hour = pl.int_range(pl.len()).over("series_id")
    stuck = pl.col("y").get(100).over("series_id")
    table = table.with_columns(
        pl.when(spike)
        .then(spikes)
        .when(hour.is_between(100, 160))
        .then(stuck)
        .when(gone)
        .then(None)
        .otherwise("y")
        .alias("y")
    ).filter((hour < 300) | (hour > 340))
    table = table.filter(pl.Series(random.random(table.height)) > 0.02)
    return pl.concat([table, table.sample(50, seed=seed)]).sample(fraction=1, shuffle=True, seed=seed)


def test_a_dirty_sensor_is_forecast_and_its_impossible_values_are_masked(run):
    result = run(dirty(made_up(days=30)), more="minimum = -100\nmaximum = 100\n")
    assert_whole(result, 3)
    assert result.rows["actual"].max() < 100
    assert result.scores["skill"] > 0.1
    assert 0.85 < result.scores["coverage"] < 0.95


def test_spikes_of_ten_times_the_range_that_nobody_masks_leave_the_forecasts_useful(run):
    result = run(dirty(made_up(days=60), spikes=100.0))
    assert_whole(result, 3)
    assert result.rows["actual"].max() == 100.0
    assert result.scores["skill"] > 0.1


def test_unmasked_spikes_of_any_size_spoil_no_more_than_the_forecasts_that_start_from_one(run):
    clean = run(made_up(days=60)).rows
    spoilt = run(dirty(made_up(days=60), spikes=1e6)).rows
    error = (pl.col("value") - pl.col("actual")).abs()
    usual = clean.select(error.median()).item()
    assert spoilt.filter(pl.col("actual") < 100).select(error.median()).item() < 3 * usual


def test_the_order_and_repetition_of_rows_change_nothing(run):
    table = made_up()
    plain = run(table).rows
    shuffled = pl.concat([table, table.sample(80, seed=2)]).sample(fraction=1, shuffle=True, seed=3)
    assert run(shuffled).rows.equals(plain)


def test_one_timestamp_with_two_values_is_refused(run):
    table = made_up()
    with pytest.raises(QualityGateFailed, match="each timestamp of a series once"):
        run(pl.concat([table, table[:1].with_columns(pl.col("y") + 1)]))


def test_a_series_that_begins_late_one_that_ends_early_and_one_too_short_to_train_are_forecast(run):
    table = made_up(series=("early", "late", "short", "whole"))
    hour = pl.int_range(pl.len()).over("series_id")
    name = pl.col("series_id")
    table = table.filter(
        ~((name == "early") & (hour > 520)), ~((name == "late") & (hour < 450)), ~((name == "short") & (hour < 590))
    )
    result = run(table)
    assert_whole(result, 3)
    assert result.rows["series_id"].unique().sort().to_list() == ["early", "late", "short", "whole"]
    asked = pl.concat([some_origins(520, series=("early", "whole")), some_origins(595, series=("short",))])
    assert_whole(run(table, origins=asked), 3, origins=3)


def test_one_series_and_one_step_are_enough(run):
    result = run(made_up(series=("only",)), "1h", "1h")
    assert_whole(result, 1)
    assert result.scores["skill"] > 0.1


def test_a_covariate_that_is_never_there_changes_no_shape(run):
    table = made_up().with_columns(pl.lit(None, dtype=pl.Float64).alias("x"))
    result = run(table, covariates=["x"])
    assert_whole(result, 3)
    assert result.scores["skill"] > 0.1


def test_a_target_that_never_varies_is_forecast_to_the_point(run):
    result = run(made_up().with_columns(pl.lit(3.0).alias("y")))
    assert_whole(result, 3)
    assert result.scores["rmse"] == 0 and result.scores["skill"] is None and result.scores["coverage"] == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("hours", [2, 3, 5, 12, 30, 60])
def test_however_short_a_table_is_what_can_be_forecast_is(run, hours):
    result = run(made_up().group_by("series_id", maintain_order=True).head(hours))
    assert_whole(result, 3)


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        (12, "Few origins to judge by: 1 of 2 that were forecast from, of 12 that were possible;"),
        (12, "Of 2, 3 steps ahead no truth is there."),
        (60, "Few origins to judge by: 8 of 9 that were forecast from, of 60 that were possible;"),
        (400, None),
    ],
)
def test_a_back_test_says_how_few_origins_it_was_judged_by_of_how_many_were_possible(run, task_of, hours, said):
    table = made_up().group_by("series_id", maintain_order=True).head(hours)
    found = doubt(task_of(table), run(table).scores)
    assert found is None if said is None else said in (found or "")


def test_a_table_of_one_row_and_one_without_any_value_are_too_little(run):
    with pytest.raises(NotEnoughHistory):
        run(made_up()[:1])
    with pytest.raises(NotEnoughHistory, match="observed values of 'y'"):
        run(made_up().with_columns(pl.lit(None, dtype=pl.Float64).alias("y")))


def test_a_column_that_begins_late_is_learnt_from_where_it_is(run):
    at = pl.col("timestamp")
    table = made_up().with_columns(
        pl.when(at < START + timedelta(days=19)).then(None).otherwise(pl.col("y")).alias("y")
    )
    assert_whole(run(table), 3)


def test_a_collected_history_is_back_tested_as_it_was_known(small_task, observations, tmp_path):
    place = {"id": "a", "latitude": 1, "longitude": 2}
    task = small_task(source={"provider": "open-meteo"}, series=[place, place | {"id": "b"}])
    table = observations(hours=500)
    settings = Settings(home=tmp_path)
    history = History(settings.task_folder(task.name) / "history", ("y", "x"))
    history.append(table)
    result = backtest_task(task, settings, NOW)
    assert_whole(result, 3)
    revised = table.filter(pl.col("timestamp") < table["timestamp"].max() - 20 * HOUR).with_columns(
        pl.col("y") * 9, pl.col("available_at") + 490 * HOUR, pl.col("collected_at") + 490 * HOUR
    )
    history.append(revised)
    first = result.rows["origin"].min()
    issued = first + HOUR
    assert revised["collected_at"].min() > issued
    columns = ("series_id", "horizon", "value", "lower", "upper")
    again = backtest_task(task, settings, NOW + timedelta(days=100)).rows.filter(pl.col("origin") == first)
    assert again.select(columns).equals(result.rows.filter(pl.col("origin") == first).select(columns))
    assert backtest_task(task, settings, table["collected_at"].max()).rows.equals(result.rows)


def test_very_many_origins_are_thinned_evenly(run, monkeypatch):
    monkeypatch.setattr(training, "BACKTEST_PAIRS", 120)
    result = run(made_up())
    assert_whole(result, 3)
    assert 20 <= result.rows.height // 3 <= 40
