"""Derived columns: the formulas by hand, when a step is known, and what a task may declare."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle.data.derivation import derive, open_history, realised_volatility, share, total
from forecastle.data.history import History
from forecastle.errors import TaskError
from forecastle.frame import conform
from forecastle.task import Task, make_task

START = datetime(2026, 7, 16, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAN = float("nan")
SLOTS = [0, 20, 40]


def make(columns: dict[str, Any] | None = None, **source: Any) -> Task:
    volatility = {"derived": "realised-volatility", "inputs": ["open", "close"], "min_share": 0.6}
    return make_task(
        {
            "name": "moves",
            "domain": "financial",
            "frequency": "1h",
            "horizon": "2h",
            "target": "volatility",
            "source": {"provider": "file", "path": "candles.csv", "step": "20m"} | source,
            "columns": columns or {"volatility": volatility, "open": {}, "close": {}, "volume": {"per_step": "sum"}},
        }
    )


TASK = make()


def candles(*rows: tuple[int, float, float, float], late: int = 0) -> pl.DataFrame:
    """Make candles from (minutes after START, open, close, volume), known when they close or so many minutes later."""
    known = [START + (minutes + 20 + late) * MINUTE for minutes, *_ in rows]
    return conform(
        pl.DataFrame(
            {
                "series_id": ["BTC"] * len(rows),
                "timestamp": [START + minutes * MINUTE for minutes, *_ in rows],
                "available_at": known,
                "collected_at": known,
                "open": [row[1] for row in rows],
                "close": [row[2] for row in rows],
                "volume": [row[3] for row in rows],
            }
        ),
        ["open", "close", "volume"],
    )


HOUR = [(0, 100.0, 101.0, 5.0), (20, 101.5, 99.0, 6.0), (40, 99.0, 99.0, 7.0)]


def test_realised_volatility_is_the_root_of_the_sum_of_squared_log_returns_in_percent():
    by_hand = 100 * math.sqrt(math.log(101 / 100) ** 2 + math.log(99 / 101) ** 2)
    (found,) = realised_volatility(np.array([[100.0, 101.5, 99.0]]), np.array([[101.0, 99.0, 99.0]]))
    assert found == pytest.approx(by_hand, rel=1e-14)


def test_a_missing_candle_is_reached_over_and_a_price_of_nothing_is_missing():
    by_hand = 100 * math.sqrt(math.log(101 / 100) ** 2 + math.log(99 / 101) ** 2)
    for gone in (NAN, 0.0, -3.0):
        found = realised_volatility(np.array([[100.0, gone, 98.0]]), np.array([[101.0, gone, 99.0]]))
        assert found[0] == pytest.approx(by_hand, rel=1e-14)


def test_a_share_is_in_percent_and_missing_of_a_whole_of_nothing():
    assert share(np.array([[5.0, 10.0], [1.0, 1.0]]), np.array([[20.0, 20.0], [0.0, 0.0]])).tolist()[0] == 37.5
    assert np.isnan(share(np.array([[1.0]]), np.array([[0.0]]))).all()
    assert total(np.array([[1.0, NAN, 2.5]])).tolist() == [3.5]


def test_an_hour_of_candles_becomes_one_row_known_when_it_has_ended():
    (row,) = derive(TASK, candles(*HOUR)).rows(named=True)
    assert (row["timestamp"], row["available_at"]) == (START, START + 60 * MINUTE)
    assert row["volatility"] == realised_volatility(np.array([[100, 101.5, 99.0]]), np.array([[101, 99, 99.0]]))[0]
    assert (row["open"], row["close"], row["volume"]) == (99.0, 99.0, 18.0)


def test_the_hour_still_running_is_no_row_however_many_of_its_candles_are_there():
    begun = candles(*HOUR, (60, 99.0, 98.0, 1.0), (80, 98.0, 97.0, 1.0))
    assert derive(TASK, begun)["timestamp"].to_list() == [START]
    assert derive(TASK, begun, START + 119 * MINUTE)["timestamp"].to_list() == [START]
    assert derive(TASK, begun, START + 120 * MINUTE)["timestamp"].to_list() == [START, START + 60 * MINUTE]
    assert derive(TASK, candles(*HOUR), START + 59 * MINUTE).is_empty()


def test_too_few_candles_are_a_missing_hour_until_a_late_one_comes():
    one, two = candles(HOUR[0]), candles(HOUR[1], late=90)
    later = candles((60, 99.0, 98.0, 1.0), late=200)
    assert derive(TASK, pl.concat([one, later]))["timestamp"].to_list() == []
    (row,) = derive(TASK, pl.concat([one, two, later])).rows(named=True)
    assert row["available_at"] == START + 130 * MINUTE


def test_a_revised_candle_is_a_new_version_of_its_hour_from_then_on():
    revised = candles((20, 101.5, 105.0, 6.0), late=100)
    told = derive(TASK, pl.concat([candles(*HOUR), revised]))
    assert told["available_at"].to_list() == [START + 60 * MINUTE, START + 140 * MINUTE]
    first, second = told["volatility"]
    assert second > first == derive(TASK, candles(*HOUR))["volatility"][0]


def test_a_single_reading_is_known_at_once_and_names_its_step():
    columns = {"part": {"derived": "share", "inputs": ["open", "volume"]}, "open": {}, "volume": {}}
    data = make(columns={**columns, "volatility": columns["part"]}, step=None, instantaneous=True)
    (row,) = derive(data, candles((7, 3.0, 0.0, 12.0), late=-20).drop("close")).rows(named=True)
    assert (row["timestamp"], row["available_at"]) == (START, START + 7 * MINUTE)
    assert row["part"] == 25.0


def test_a_task_that_derives_nothing_reads_what_was_observed(small_task, observations, tmp_path):
    task = small_task()
    table = observations(hours=3)
    assert derive(task, table) is table
    assert task.measured is task
    assert type(open_history(task, tmp_path)) is History


def test_the_history_keeps_what_the_source_said_and_is_read_as_steps(tmp_path):
    history = open_history(TASK, tmp_path)
    assert history.newest() is None
    history.append(candles(*HOUR, (60, 99.0, 98.0, 1.0)))
    assert History(tmp_path, history.columns).read().height == 4
    assert history.newest() == START
    assert history.read()["volume"].to_list() == [18.0]
    assert history.read(start=START + MINUTE).is_empty()


def test_what_is_asked_for_and_judged_is_the_sources_step_and_its_own_columns():
    measured = TASK.measured
    assert (measured.frequency, measured.target, tuple(measured.columns)) == (
        20 * MINUTE,
        "open",
        ("open", "close", "volume"),
    )
    assert measured.measured is measured
    assert (TASK.knowable_after, measured.knowable_after) == (60 * MINUTE, 20 * MINUTE)


@pytest.mark.parametrize(
    ("columns", "source", "said"),
    [
        ({"volatility": {"derived": "realized"}}, {}, "did you mean 'realised-volatility'"),
        ({"volatility": {"derived": "mean"}}, {}, "derived = 'mean' needs inputs, the columns of its value"),
        ({"volatility": {"inputs": ["open"]}}, {}, "inputs belong to a column that is derived"),
        ({"volatility": {"derived": "mean", "inputs": ["opn"]}, "open": {}}, {}, "did you mean 'open'"),
        ({"volatility": {"derived": "mean", "inputs": ["volatility"]}}, {}, "columns: all are derived"),
        ({}, {"step": "25m"}, "source.step: '25m' does not divide the frequency '1h'"),
    ],
)
def test_mistakes_of_a_derived_column_are_named_with_their_place(columns, source, said):
    with pytest.raises(TaskError) as caught:
        make(columns, **source)
    assert said in str(caught.value)
