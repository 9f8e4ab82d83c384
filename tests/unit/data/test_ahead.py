"""Covariates known ahead: what their source forecast, kept as it was issued, and used from then on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.data import ahead
from forecastle.data.examples import make_examples
from forecastle.data.ingestion import ISSUED_TABLE, Batch, load_batch, make_batch, save_batch
from forecastle.data.intake import admit, release
from forecastle.data.panel import Panel, build_panel, micros
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import make_recipe, step_features
from forecastle.errors import QualityGateFailed, UserError
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIMESTAMP, conform
from forecastle.task import Task

HOUR = timedelta(hours=1)
NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def forecast_task(small_task) -> Task:
    """A task whose covariate x is known ahead, by its source."""
    return small_task(
        source={"provider": "file", "path": "table.parquet", "issued": "issued.parquet", "instantaneous": True},
        columns={"y": {}, "x": {"ahead": True, "minimum": -50, "maximum": 50}},
    )


def answered(last: datetime = NOON + 6 * HOUR, y: float = 1.0) -> pl.DataFrame:
    """Return an answer of two days, with the hours to come up to ``last``; x counts the hours from noon."""
    at = pl.datetime_range(NOON - 47 * HOUR, last, HOUR, time_zone="UTC", eager=True).cast(pl.Datetime("us", "UTC"))
    hours = (at - NOON).dt.total_hours().cast(pl.Float64)
    return pl.DataFrame({SERIES: "a", TIMESTAMP: at, "y": y + hours.abs() / 10, "x": hours})


def collected(task: Task, table: pl.DataFrame, now: datetime = NOON, *told: pl.DataFrame) -> Batch:
    return make_batch(task, [table, *told], now - 47 * HOUR, now, now, True, ["answer"])


def issued_rows(*rows: tuple[int, int, float]) -> pl.DataFrame:
    """Return forecasts for so many hours from noon, issued so many hours from noon, of this value."""
    data = [("a", NOON + hour * HOUR, NOON + when * HOUR, NOON + when * HOUR, value) for hour, when, value in rows]
    names = [SERIES, TIMESTAMP, AVAILABLE_AT, COLLECTED_AT, "x"]
    return conform(pl.DataFrame(data, schema=names, orient="row"), ["x"])


def laid_out(task: Task, issued: pl.DataFrame | None) -> tuple[Recipe, Panel]:
    rows = collected(task, answered()).rows
    panel = build_panel(rows, task, ahead=issued)
    return make_recipe(task, panel), panel


def seen(recipe: Recipe, panel: Panel, issued: datetime, horizon: int = 1) -> float:
    """Return the feature of the newest origin, noon, for a forecast issued at a moment."""
    found = step_features(recipe, panel, panel.last_rows, horizon, np.array([micros(issued)]))
    return float(found.matrix[0, found.names.index("x_ahead")])


def test_hours_to_come_in_an_answer_are_forecasts_issued_then_as_far_ahead_as_the_task_looks(forecast_task):
    batch = collected(forecast_task, answered(last=NOON + 30 * HOUR))
    assert batch.issued.rows() == [("a", NOON + h * HOUR, NOON, NOON, float(h)) for h in (1, 2, 3, 4)]
    assert batch.after_collection == 30 and batch.rows[TIMESTAMP].max() == NOON


def test_a_source_may_say_itself_when_it_issued_what_but_nothing_after_now(forecast_task):
    told = pl.DataFrame(
        {
            SERIES: "a",
            TIMESTAMP: [NOON + HOUR, NOON + HOUR, NOON - 5 * HOUR],
            ahead.ISSUED_AT: [NOON - HOUR, NOON + HOUR, NOON - 9 * HOUR],
            "x": [1.0, 2.0, 3.0],
        }
    )
    batch = collected(forecast_task, answered(last=NOON), NOON, told)
    assert batch.issued.equals(issued_rows((-5, -9, 3.0), (1, -1, 1.0)))


def test_a_forecast_out_of_its_columns_range_is_none(forecast_task):
    wild = answered().with_columns(pl.when(pl.col("x") == 2).then(999.0).otherwise("x").alias("x"))
    assert collected(forecast_task, wild).issued["x"].to_list() == [1.0, 3.0, 4.0]


def test_a_task_that_knows_nothing_ahead_drops_them(small_task):
    task = small_task(source={"provider": "file", "path": "table.parquet", "instantaneous": True})
    batch = collected(task, answered())
    assert batch.issued.is_empty() and batch.after_collection == 6


def test_a_feature_is_the_newest_forecast_that_had_been_issued(forecast_task):
    recipe, panel = laid_out(forecast_task, issued_rows((1, -3, 10.0), (1, 0, 20.0), (1, 2, 30.0), (2, 0, 40.0)))
    moments = [NOON + hours * HOUR for hours in (-4, -3, -1, 0, 1, 2)]
    values = [seen(recipe, panel, moment) for moment in moments]
    assert np.array_equal(values, [np.nan, 10.0, 10.0, 20.0, 20.0, 30.0], equal_nan=True)
    assert seen(recipe, panel, NOON, horizon=2) == 40.0
    assert np.isnan(seen(recipe, panel, NOON, horizon=3))


def test_where_nothing_was_issued_the_feature_is_missing(forecast_task):
    nobodys = issued_rows((1, 0, 1.0)).with_columns(pl.lit("b").alias(SERIES))
    for issued in (None, issued_rows(), nobodys):
        assert np.isnan(seen(*laid_out(forecast_task, issued), NOON))


def test_what_came_true_is_never_taken_for_what_was_forecast(forecast_task):
    past = make_batch(
        forecast_task, [answered()], NOON - 47 * HOUR, NOON, NOON, False, []
    ).rows  # each known at its time
    panel = build_panel(past, forecast_task, ahead=issued_rows((-1, -2, 7.0)))
    recipe = make_recipe(forecast_task, panel)
    examples = make_examples(recipe, panel, np.arange(panel.size))
    told = examples.step[:, :, examples.step_names.index("x_ahead")]
    assert np.argwhere(~np.isnan(told)).tolist() == [[0, panel.size - 3]]  # one step ahead of two hours before noon
    assert told[0, -3] == 7.0


def test_a_saved_batch_keeps_what_was_issued(forecast_task, tmp_path):
    batch = collected(forecast_task, answered())
    assert load_batch(save_batch(tmp_path, batch)).issued.equals(batch.issued)
    (tmp_path / ISSUED_TABLE).write_bytes(b"torn")
    with pytest.raises(UserError, match="a whole batch"):
        load_batch(tmp_path)
    (empty := collected(forecast_task, answered(last=NOON))).issued.is_empty()
    assert load_batch(save_batch(tmp_path, empty)).issued.is_empty()


def test_forecasts_are_kept_beside_the_history_and_read_as_of_a_moment(forecast_task, tmp_path):
    for _ in range(2):  # repeating a passage changes nothing
        admit(forecast_task, tmp_path, collected(forecast_task, answered()), NOON)
    later = answered().with_columns(pl.col("x") + pl.when(pl.col("x") > 1).then(0.5).otherwise(0.0))
    admit(forecast_task, tmp_path, collected(forecast_task, later, NOON + HOUR), NOON + HOUR)
    known = ahead.read(tmp_path / "history", ("x",), NOON)
    assert known is not None and known["x"].to_list() == [1.0, 2.0, 3.0, 4.0]
    both = ahead.read(tmp_path / "history", ("x",), NOON + HOUR, start=NOON + 2 * HOUR)
    assert both is not None and both["x"].to_list() == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.5]
    assert ahead.read(tmp_path / "history", (), NOON) is None


def test_forecasts_of_a_refused_batch_count_from_its_release(forecast_task, tmp_path: Path):
    holed = answered().with_columns(pl.lit(None, dtype=pl.Float64).alias("y"))
    with pytest.raises(QualityGateFailed):
        admit(forecast_task, tmp_path, collected(forecast_task, holed), NOON)
    name = next((tmp_path / "quarantine").iterdir()).name
    assert ahead.read(tmp_path / "history", ("x",), NOON + 9 * HOUR).is_empty()
    release(forecast_task, tmp_path, name, "me", NOON + 5 * HOUR, "it is right")
    assert ahead.read(tmp_path / "history", ("x",), NOON + 4 * HOUR).is_empty()
    assert ahead.read(tmp_path / "history", ("x",), NOON + 5 * HOUR)["x"].to_list() == [1.0, 2.0, 3.0, 4.0]
