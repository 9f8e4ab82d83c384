"""Concept drift: errors that change are found, errors that only follow the hour of the day are not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.monitoring import concept
from forecastle.task import Task, load_task

START = datetime(2013, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def outcomes(hours: int, seed: int, start: datetime = START, series: tuple[str, ...] = ("EWR", "JFK")) -> pl.DataFrame:
    """Outcomes whose errors are three times as large by day as by night, and grow with the step ahead."""
    random = np.random.default_rng(seed)
    tables = []
    for name in series:
        for step in (1, 2, 3):
            times = [start + hour * HOUR for hour in range(hours)]
            by_day = np.array([3.0 if 14 <= at.hour <= 23 else 1.0 for at in times])
            error = random.normal(0, 1, hours) * by_day * step**0.5 * (2.0 if name == "JFK" else 1.0)
            tables.append(
                pl.DataFrame(
                    {"series_id": name, "timestamp": times, "horizon": step, "value": 10.0, "actual": 10 + error}
                )
            )
    return pl.concat(tables).with_columns(pl.lit("1").alias("model_version"))


@pytest.fixture(scope="module")
def known() -> dict:
    shipped = load_task(Path(__file__).parents[3] / "tasks" / "nyc-temperature.toml")
    return concept.profile(shipped, outcomes(40 * 24, seed=1))


LATER = START + timedelta(days=60)


def live(seed: int = 2, hours: int = 30 * 24) -> pl.DataFrame:
    return outcomes(hours, seed, LATER)


def test_what_is_left_of_the_errors_has_no_season_no_step_and_no_series(task: Task, known: dict) -> None:
    means = concept.standardised(task, known, live()).with_columns(pl.col("timestamp").dt.hour().alias("hour"))
    assert means["z"].std() == pytest.approx(1, abs=0.1) and abs(means["z"].mean()) < 0.1
    day = means.group_by(pl.col("hour").is_between(14, 23)).agg(pl.col("z").std())["z"]
    assert day.max() / day.min() < 1.6, "of three times: cells of few errors are drawn to the whole"
    assert means.group_by("series_id").agg(pl.col("z").std())["z"].to_list() == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize("seed", range(2, 8))
def test_errors_that_stay_as_they_were_raise_no_alarm(task: Task, known: dict, seed: int) -> None:
    assert concept.test(task, known, live(seed)) == ""


@pytest.mark.parametrize(
    "change",
    [
        pl.col("actual") + 4,
        10 + (pl.col("actual") - 10) * 3,
        pl.col("actual") + 5 * ((pl.col("timestamp").dt.hour() - 11) * (2 * np.pi / 24)).sin(),
    ],
    ids=["level", "size", "daily wave"],
)
def test_a_change_of_one_series_is_found_and_named_with_its_time(task: Task, known: dict, change: pl.Expr) -> None:
    since = LATER + timedelta(days=15)
    later = (pl.col("timestamp") >= since) & (pl.col("series_id") == "EWR")
    rows = live().with_columns(pl.when(later).then(change).otherwise(pl.col("actual")).alias("actual"))
    said = concept.test(task, known, rows)
    assert said.startswith("EWR since ") and "JFK" not in said
    found = datetime.fromisoformat(said.removeprefix("EWR since "))
    assert since < found < since + timedelta(days=10)


def test_the_profile_survives_json(task: Task, known: dict) -> None:
    read = json.loads(json.dumps(known))
    assert concept.standardised(task, read, live()).equals(concept.standardised(task, known, live()))


def test_series_that_the_back_test_did_not_know_are_left_out(task: Task, known: dict) -> None:
    assert concept.standardised(task, known, outcomes(48, 3, LATER, ("LGA",))).is_empty()
    assert concept.test(task, known, outcomes(480, 3, LATER, ("LGA",))) == ""


def test_a_task_that_looks_once_a_day_has_no_daily_wave(task: Task) -> None:
    daily = task.model_copy(update={"frequency": timedelta(days=1)})
    rows = outcomes(60 * 24, seed=1).filter(pl.col("timestamp").dt.hour() == 0)
    profile = concept.profile(daily, rows)
    assert profile["wave"] == {} and concept.test(daily, profile, rows) == ""


def test_a_back_test_without_any_error_knows_no_series_and_raises_no_alarm(task: Task) -> None:
    exact = outcomes(40 * 24, seed=1).with_columns(actual=pl.col("value"))
    never_wrong = concept.profile(task, exact)
    assert never_wrong["series"] == {} and never_wrong["cells"] == []
    assert concept.test(task, json.loads(json.dumps(never_wrong)), live()) == ""


def test_a_series_that_was_always_right_leaves_the_others_their_test(task: Task) -> None:
    rows = outcomes(40 * 24, seed=1)
    still = rows.with_columns(actual=pl.when(pl.col("series_id") == "EWR").then("value").otherwise("actual"))
    assert set(concept.profile(task, still)["series"]) == {"JFK"}


THREE = ("EWR", "HPN", "LGA")


def shared(hours: int, seed: int, start: datetime, weather: float = 5.0) -> pl.DataFrame:
    """Outcomes of three series of whose errors most is the weather's, which is the same for all of them."""
    front = pl.DataFrame({"timestamp": [start + hour * HOUR for hour in range(hours)]}).with_columns(
        front=pl.Series(np.random.default_rng(100 + seed).normal(0, weather, hours))
    )
    rows = outcomes(hours, seed, start, THREE).join(front, on="timestamp")
    return rows.with_columns(pl.col("actual") + pl.col("front")).drop("front")


@pytest.fixture(scope="module")
def apart() -> dict:
    shipped = load_task(Path(__file__).parents[3] / "tasks" / "nyc-temperature.toml")
    return json.loads(json.dumps(concept.profile(shipped, shared(40 * 24, 1, START))))


def in_the_sun(rows: pl.DataFrame, since: datetime, series: tuple[str, ...], most: float) -> pl.DataFrame:
    sun = most * ((pl.col("timestamp").dt.hour() - 11) * (2 * np.pi / 24)).sin().clip(lower_bound=0)
    later = (pl.col("timestamp") >= since) & pl.col("series_id").is_in(series)
    return rows.with_columns(pl.col("actual") + pl.when(later).then(sun).otherwise(0.0))


def test_what_sets_one_series_apart_from_the_others_is_found_sooner_and_blames_only_it(task: Task, apart: dict) -> None:
    since, sooner = LATER + timedelta(days=10), 0
    for seed in range(2, 9):
        rows = in_the_sun(shared(30 * 24, seed, LATER), since, ("LGA",), 4.0)
        means = concept.standardised(task, apart, rows)
        found = concept.changes(task, apart, means)
        alone = concept.changes(task, {**apart, "peers": None}, means)  # as of a profile that knows no peers
        assert since < found["LGA"] < since + timedelta(days=8)
        assert found["LGA"] <= alone.get("LGA", found["LGA"])
        assert set(found) - {"LGA"} == set(alone) - {"LGA"}, "what sets the others apart from it is not theirs"
        sooner += found["LGA"] != alone.get("LGA")
    assert sooner >= 4


@pytest.mark.parametrize("seed", range(2, 6))
def test_weather_that_all_series_share_sets_none_apart(task: Task, apart: dict, seed: int) -> None:
    hard = in_the_sun(shared(30 * 24, seed, LATER), LATER + timedelta(days=10), THREE, 4.0)
    means = concept.standardised(task, apart, hard)
    assert concept.changes(task, apart, means) == concept.changes(task, {**apart, "peers": None}, means)


def test_two_series_are_no_peers_for_each_other(task: Task, known: dict, apart: dict) -> None:
    assert known["peers"]["spread"] == {}
    rows = shared(30 * 24, 3, LATER).filter(pl.col("series_id") != "HPN")
    means = concept.standardised(task, apart, in_the_sun(rows, LATER + timedelta(days=10), ("LGA",), 2.5))
    assert concept.changes(task, apart, means) == concept.changes(task, {**apart, "peers": None}, means)


def several(count: int, hours: int, seed: int, start: datetime) -> pl.DataFrame:
    """Outcomes of many series, a shared front in all of them."""
    names = tuple(f"s{number:02}" for number in range(count))
    front = pl.DataFrame({"timestamp": [start + hour * HOUR for hour in range(hours)]}).with_columns(
        front=pl.Series(np.random.default_rng(900 + seed).normal(0, 5, hours))
    )
    rows = outcomes(hours, seed, start, names).filter(pl.col("horizon") == 1)
    return rows.join(front, on="timestamp").with_columns(pl.col("actual") + pl.col("front")).drop("front")


@pytest.mark.parametrize("count", [5, 30], ids=["few", "many"])
def test_of_several_series_only_those_that_alarm_are_blamed(task: Task, count: int) -> None:
    known = concept.profile(task, several(count, 30 * 24, 1, START))
    rows = in_the_sun(several(count, 20 * 24, 2, LATER), LATER + timedelta(days=6), ("s03",), 6.0)
    means = concept.standardised(task, known, rows)
    alone = concept.changes(task, {**known, "peers": None}, means)
    found = concept.changes(task, known, means)
    quiet = concept.changes(task, known, concept.standardised(task, known, several(count, 20 * 24, 2, LATER)))
    assert "s03" in found and found["s03"] > LATER + timedelta(days=6)
    assert set(found) <= {"s03", *alone, *quiet} and len(quiet) <= 2


def test_one_wild_hour_of_a_peer_takes_no_blame_for_a_series_that_changes(task: Task, apart: dict) -> None:
    since = LATER + timedelta(days=12)
    rows = in_the_sun(shared(30 * 24, 4, LATER), since, ("LGA",), 4.0)
    wild = (pl.col("series_id") == "EWR") & (pl.col("timestamp") == since + 20 * HOUR)
    broken = rows.with_columns(pl.when(wild).then(pl.col("actual") + 500).otherwise(pl.col("actual")).alias("actual"))
    calm, hit = (concept.changes(task, apart, concept.standardised(task, apart, one)) for one in (rows, broken))
    assert set(calm) == set(hit) == {"LGA"}
    assert hit["LGA"] - calm["LGA"] <= timedelta(days=1)
