"""Derived columns: the formulas by hand, when a step is known, and what a task may declare."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle.data import derivation
from forecastle.data.derivation import derive, join, open_history, realised_volatility, share, total
from forecastle.data.history import History
from forecastle.errors import NotEnoughHistory, TaskError
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


FLIGHTS = make_task(
    {
        "name": "delays",
        "domain": "logistics",
        "frequency": "1h",
        "horizon": "2h",
        "target": "mean",
        "source": {"provider": "file", "path": "t.csv", "events": True, "settles_after": "6h"},
        "columns": {
            "mean": {"derived": "mean", "inputs": ["delay"]},
            "delay": {"per_step": "greatest"},
            "left": {"per_step": "sum"},
        },
    }
)


def flights(*left: tuple[int, int]) -> pl.DataFrame:
    """Make flights from (minutes after START they were to leave, minutes late), known when they left."""
    known = [START + max(due + late, due) * MINUTE for due, late in left]
    at = [START + due * MINUTE for due, _ in left]
    delays = {"delay": [float(late) for _, late in left], "left": 1.0}
    frame = pl.DataFrame({"series_id": "EWR", "timestamp": at, "available_at": known, "collected_at": known, **delays})
    return conform(frame, ["delay", "left"])


def test_an_hours_mean_is_revised_as_its_events_become_known():
    told = derive(FLIGHTS, flights((5, 0), (10, -4), (30, 60), (50, 100)), START + 300 * MINUTE)
    assert told["timestamp"].unique().to_list() == [START]
    assert told["available_at"].to_list() == [START + minutes * MINUTE for minutes in (60, 90, 150)]
    assert told["mean"].to_list() == [-2.0, pytest.approx(56 / 3), 39.0]
    assert told["delay"].to_list() == [0.0, 60.0, 100.0]
    assert told["left"].to_list() == [2.0, 3.0, 4.0]


def test_an_hour_without_events_is_missing_and_one_event_is_enough():
    told = derive(FLIGHTS, flights((5, 0), (185, 7)), START + 300 * MINUTE)
    assert told.select("timestamp", "mean").rows() == [(START, 0.0), (START + 180 * MINUTE, 7.0)]


def test_events_of_one_minute_all_count_where_their_times_differ_by_a_second():
    second = timedelta(seconds=1)
    one = flights((5, 10))
    both = pl.concat([one, one.with_columns(pl.col("timestamp") + second, pl.col("delay") + 20)])
    assert derive(FLIGHTS, both, START + 300 * MINUTE)["mean"].to_list() == [20.0]


def test_what_the_source_of_events_measures_is_known_at_its_own_time_a_step_when_it_ended():
    assert FLIGHTS.knowable_after == 60 * MINUTE
    assert FLIGHTS.measured.knowable_after == timedelta(0)
    assert FLIGHTS.measured.frequency == FLIGHTS.frequency
    measured = FLIGHTS.measured
    assert measured.measured is measured
    assert FLIGHTS.settled_after == 420 * MINUTE
    assert TASK.settled_after == timedelta(0)


def with_wind(**column: Any) -> Task:
    wind = {"wind": {"task": "weather"} | column}
    return make_task(FLIGHTS.model_dump(mode="json") | {"columns": FLIGHTS.model_dump(mode="json")["columns"] | wind})


def weather(*readings: tuple[int, float, int]) -> pl.DataFrame:
    """Make wind from (minutes after START, value, minutes after START it was known)."""
    known = [START + minutes * MINUTE for _, _, minutes in readings]
    frame = pl.DataFrame(
        {
            "series_id": "EWR",
            "timestamp": [START + minutes * MINUTE for minutes, _, _ in readings],
            "available_at": known,
            "collected_at": known,
            "wind": [value for _, value, _ in readings],
        }
    )
    return conform(frame, ["wind"])


def test_a_joined_version_is_known_from_when_the_newer_of_its_sides_was():
    task = with_wind()
    steps = derive(task, flights((5, 0), (30, 60)), START + 300 * MINUTE)
    assert steps["wind"].null_count() == steps.height == 2
    told = join(task, "weather", steps, weather((0, 3.0, 5), (0, 4.0, 75), (0, 5.0, 120), (60, 9.0, 65)))
    found = [(row["available_at"], row["mean"], row["wind"]) for row in told.rows(named=True)]
    at = [START + minutes * MINUTE for minutes in (60, 75, 90, 120)]
    assert found == [(at[0], 0.0, 3.0), (at[1], 0.0, 4.0), (at[2], 30.0, 4.0), (at[3], 30.0, 5.0)]


def test_finer_rows_of_another_task_become_one_by_the_columns_rule():
    steps = derive(with_wind(), flights((5, 0)), START + 300 * MINUTE)
    readings = weather((0, 3.0, 1), (20, 8.0, 21), (40, 4.0, 41))
    found = {rule: join(with_wind(per_step=rule), "weather", steps, readings)["wind"][0] for rule in ("last", "mean")}
    assert found == {"last": 4.0, "mean": 5.0}


def test_another_task_without_history_is_named_with_what_to_collect_first(tmp_path):
    task = with_wind()
    history = open_history(task, tmp_path / "delays" / "history")
    assert history.newest() is None
    history.append(flights((5, 0), (61, 0)))
    with pytest.raises(NotEnoughHistory, match="observations of task 'weather'.*takes wind.*Collect them first"):
        history.read()
    beside = History(tmp_path / "weather" / "history", ("wind",))
    beside.append(weather((0, 3.0, 5)))
    assert history.read()["wind"].to_list() == [3.0]
    assert history.versions(start=START + 120 * MINUTE).is_empty()
    assert open_history(task, tmp_path / "delays" / "history", target_only=True).read()["mean"].to_list() == [0.0]


def test_what_was_derived_is_remembered_until_a_history_it_rests_on_changes(tmp_path, monkeypatch):
    derived = []
    monkeypatch.setattr(derivation, "derive", lambda *what: derived.append(1) or derive(*what))
    task, end = with_wind(), START + 600 * MINUTE
    beside = History(tmp_path / "weather" / "history", ("wind",))
    beside.append(weather((0, 3.0, 5)))
    history = open_history(task, tmp_path / "delays" / "history")
    history.append(flights((5, 0), (61, 30)))

    def read(**asked: Any) -> list[tuple[float | None, float | None]]:
        return history.read(end, **asked).select("mean", "wind").rows()

    assert read(start=START) == [(0.0, 3.0), (30.0, None)]
    assert read(start=START + 60 * MINUTE) == [(30.0, None)] and len(derived) == 1
    assert read() == [(0.0, 3.0), (30.0, None)] and len(derived) == 2, "further back than what is remembered"
    beside.append(weather((60, 9.0, 65)))
    assert read() == [(0.0, 3.0), (30.0, 9.0)] and len(derived) == 3
    history.append(flights((125, 60)))
    assert read() == [(0.0, 3.0), (30.0, 9.0), (60.0, None)] and len(derived) == 4
    assert history.read(START + 100 * MINUTE).height == 1 and len(derived) == 5, "known at another time"
    assert read(end=START + 60 * MINUTE) == [(0.0, 3.0)] and len(derived) == 6


def test_a_column_that_another_task_never_measured_is_a_mistake_of_the_task(tmp_path):
    History(tmp_path / "weather" / "history", ("wind",)).append(weather((0, 3.0, 5)))
    history = open_history(with_wind(column="wnid"), tmp_path / "delays" / "history")
    history.append(flights((5, 0), (61, 0)))
    with pytest.raises(TaskError, match="values of wnid in the history of task 'weather'"):
        history.read()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"column": "wind"}, "column needs task"),
        ({"task": "weather", "derived": "mean", "inputs": ["delay"]}, "leave out task or derived"),
        ({"task": "delays"}, "columns.wind.task: this is the task itself"),
    ],
)
def test_a_column_of_another_task_that_makes_no_sense_is_refused(column, said):
    data = FLIGHTS.model_dump(mode="json")
    with pytest.raises(TaskError, match=said):
        make_task(data | {"columns": data["columns"] | {"wind": column}})


def test_a_target_or_an_input_of_another_task_is_refused():
    data = FLIGHTS.model_dump(mode="json")
    columns = data["columns"] | {"wind": {"task": "weather"}}
    with pytest.raises(TaskError, match="target: 'wind' is a column of another task"):
        make_task(data | {"target": "wind", "columns": columns})
    columns["mean"] = {"derived": "mean", "inputs": ["wind"]}
    with pytest.raises(TaskError, match="columns.mean.inputs: 'wind' is no measured column"):
        make_task(data | {"columns": columns})


def test_events_have_no_step():
    with pytest.raises(TaskError, match="events come when they come"):
        make(step="20m", events=True)
