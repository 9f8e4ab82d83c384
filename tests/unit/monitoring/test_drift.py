"""Drift is the share of predictions asked for with values the training data never held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from forecastle.data.examples import make_examples
from forecastle.data import profiling
from forecastle.data.panel import build_panel, moment
from forecastle.data.replay import load_nyc_flights, load_nyc_weather
from forecastle.data.transformation import make_recipe
from forecastle.frame import TIME, conform
from forecastle.monitoring.drift import drift_ratio, margin_of, mark, out_of_distribution
from forecastle.task import Task


@dataclass(frozen=True)
class Trained:
    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    names: tuple[str, ...] = ("lag_0", "minute")
    margin: float = 0.1


def trained(*ranges: tuple[float, float]) -> Trained:
    least, most = np.array(ranges, np.float32).T
    return Trained(least, most)


def flags(*rows: tuple[float, float]) -> list[bool]:
    return out_of_distribution(trained((0, 20), (60, 120)), np.array(rows, np.float32)).tolist()


def test_a_value_well_outside_the_training_range_is_flagged_and_one_just_outside_is_not() -> None:
    assert flags((10, 60), (-1, 60), (21.5, 60), (-3, 60), (23, 60)) == [False, False, False, True, True]


def test_the_calendar_is_no_drift_and_neither_is_a_missing_value() -> None:
    assert flags((10, 900), (np.nan, 60)) == [False, False]


def test_the_number_of_a_series_is_no_drift() -> None:
    reference = Trained(np.zeros(2, np.float32), np.ones(2, np.float32), ("lag_0", "series"))
    assert out_of_distribution(reference, np.array([[0.5, 7]], np.float32)).tolist() == [False]


def test_infinity_is_flagged() -> None:
    assert flags((np.inf, 60), (-np.inf, 60)) == [True, True]


def test_a_feature_never_seen_in_training_flags_nothing() -> None:
    nothing = trained((np.nan, np.nan), (0, 0))
    assert out_of_distribution(nothing, np.array([[5, 0]], np.float32)).tolist() == [False]


def test_every_forecast_of_a_drifted_origin_is_marked(
    small_task: Callable[..., Task], observations: Callable[..., pl.DataFrame]
) -> None:
    task = small_task()
    panel = build_panel(observations(), task)
    examples = make_examples(make_recipe(task, panel), panel, panel.last_rows)
    names, width = examples.origin_names, len(examples.origin_names)
    wide = Trained(np.full(width, -1e6, np.float32), np.full(width, 1e6, np.float32), names)
    of_b = np.where(np.isnan(examples.origin[1]), 0, examples.origin[1])
    narrow = Trained(of_b, of_b, names)
    ids = pl.DataFrame({"series_id": ["b", "a", "b"], "origin": [moment(examples.origins[0])] * 3})
    ids = ids.with_columns(pl.col("origin").cast(TIME))
    assert mark(ids, examples, wide)["drifted"].to_list() == [False] * 3
    assert mark(ids, examples, narrow)["drifted"].to_list() == [False, True, False]


def test_the_ratio_is_taken_over_the_newest_predictions() -> None:
    assert drift_ratio([True] * 5 + [False] * 45 + [True] * 100, window=50) == pytest.approx(0.1)


def test_below_fifty_predictions_there_is_no_ratio() -> None:
    assert drift_ratio([True] * 49) is None
    assert drift_ratio([True] * 50) == 1.0
    assert drift_ratio([]) is None


def test_unseen_requests_that_are_like_those_in_training_are_not_called_drifted(task: Task) -> None:
    """Recorded weather, a fifth of its weeks in turn: what the training has not seen of the same half year."""
    weather = load_nyc_weather().filter(pl.col("timestamp") < datetime(2013, 7, 1, tzinfo=UTC))
    assert _flagged(task, weather) < 0.05


def _flagged(task: Task, table: pl.DataFrame) -> float:
    """Return the largest share of a fifth of a table's weeks that is flagged by what was learnt from the others."""
    names = [task.target, *task.covariates]
    rows = table.select("series_id", "timestamp", *names)
    panel = build_panel(
        conform(rows.with_columns(available_at=pl.col("timestamp"), collected_at=pl.col("timestamp")), names), task
    )
    examples = make_examples(make_recipe(task, panel), panel, np.arange(panel.size))
    week = examples.origins // (7 * 86_400 * 1_000_000)
    shares = []
    for number in range(5):
        seen, unseen = examples.take(week % 5 != number), examples.take(week % 5 == number)
        margin = margin_of(seen.origin_names, seen.origin, seen.origins)
        known = replace(profiling.reference(seen.origin_names, seen.origin), margin=margin)
        shares.append(float(out_of_distribution(known, unseen.origin).mean()))
    return max(shares)


def _delays() -> pl.DataFrame:
    """Recorded: the mean delay of each hour's departures, and how many they were."""
    hours = load_nyc_flights().group_by("series_id", pl.col("slot").dt.truncate("1h").alias("timestamp"))
    return hours.agg(y=pl.col("delay_minutes").mean(), x=pl.len().cast(pl.Float64))


def _made_up(kind: str) -> pl.DataFrame:
    """Half a year of three series whose law does not change, of a kind that other tasks are about."""
    random, hours, tables = np.random.default_rng(7), 24 * 182, []
    times = pl.datetime_range(datetime(2013, 1, 1), datetime(2013, 7, 2), "1h", time_zone="UTC", eager=True)[:hours]
    for name in "abc":
        slow = np.zeros(hours)
        for hour in range(1, hours):
            slow[hour] = 0.97 * slow[hour - 1] + random.normal(0, 0.24)
        day = np.sin(np.arange(hours) * 2 * np.pi / 24)
        y = {
            "volatility": np.exp(slow + 0.3 * random.standard_t(4, hours)) / 100,  # heavy tails, of prices
            "bikes": np.clip(np.round(12 + 9 * day + 4 * slow), 0, 24),  # docks that are empty or full for hours
            "traffic": random.poisson(np.exp(5 + 0.9 * day + 0.2 * slow)).astype(float),
            "air": np.exp(2 + slow) + random.exponential(2, hours),  # particles: never negative, with plumes
        }[kind]
        tables.append(pl.DataFrame({"series_id": name, "timestamp": times, "y": y, "x": day + slow}))
    return pl.concat(tables)


@pytest.mark.parametrize("kind", ["delays", "volatility", "bikes", "traffic", "air"])
def test_neither_are_those_of_other_kinds_of_tasks(small_task: Callable[..., Task], kind: str) -> None:
    assert _flagged(small_task(), _delays() if kind == "delays" else _made_up(kind)) < 0.05


def test_the_margin_grows_where_values_stray_from_block_to_block() -> None:
    """Weather of a kind that comes once in the training data may come again; white noise holds no surprise."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(2000, 3)).astype(np.float32)
    times, names = np.arange(2000), ("lag_0", "lag_1", "mean_3")
    strays = np.repeat(random.standard_t(2, size=(20, 3)), 100, axis=0).astype(np.float32)
    assert margin_of(names, noise, times) == 0.1
    assert margin_of(names, noise / 10 + 5 * strays, times) > 0.1


def test_a_feature_never_seen_and_too_few_rows_ask_for_no_margin() -> None:
    nothing = np.full((400, 2), np.nan, np.float32)
    nothing[:, 1] = np.arange(400) % 7
    assert margin_of(("lag_0", "lag_1"), nothing, np.arange(400)) == 0.1
    assert margin_of(("lag_0", "lag_1"), nothing[:5], np.arange(5)) == 0.1
