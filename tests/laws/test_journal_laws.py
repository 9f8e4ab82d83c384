"""Exactly once: whatever is retried, repeated or restarted, a forecast is recorded once and scored once."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.frame import TIME
from forecastle.monitoring.journal import FORECAST, Journal, identified

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

hours = st.integers(0, 5)
series = st.sampled_from(["a", "b"])
acts = st.one_of(
    st.tuples(st.just("record"), series, hours),
    st.tuples(st.just("score"), hours, st.floats(-5, 5)),
    st.tuples(st.just("give up"), hours),
    st.tuples(st.just("restart")),
)


def issued(name: str, hour: int, value: float) -> pl.DataFrame:
    origin = START + hour * HOUR
    rows = [
        ("", "t", name, origin, origin + step * HOUR, step, value, None, None, 0.0, "1", "d", origin, False, "x")
        for step in (1, 2)
    ]
    return pl.DataFrame(rows, schema=FORECAST, orient="row")


@settings(max_examples=40, deadline=None)
@given(st.lists(acts, max_size=20))
def test_the_journal_agrees_with_a_dictionary_through_repeats_and_restarts(story: list[tuple]) -> None:
    promised: dict[tuple[str, int, int], float] = {}
    delivered: dict[tuple[str, int, int], float] = {}
    lost: set[tuple[str, int, int]] = set()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/journal.db"
        journal = Journal(url)
        for number, (act, *details) in enumerate(story):
            if act == "record":
                name, hour = details
                keys = [(name, hour, step) for step in (1, 2)]
                assert journal.record(issued(name, hour, float(number))) == sum(key not in promised for key in keys)
                for key in keys:
                    promised.setdefault(key, float(number))
            elif act == "score":
                hour, actual = details
                now = START + hour * HOUR
                waiting = [key for key in promised if key not in delivered]  # given up or not
                due = journal.due("t", now)
                assert due.height == sum(origin + step <= hour for _, origin, step in waiting)
                outcomes = due.with_columns(actual=pl.lit(actual), scored_at=pl.lit(now, TIME))
                assert journal.score(outcomes) == due.height
                assert journal.score(outcomes.with_columns(actual=pl.lit(99.0))) == 0
                delivered |= {key: actual for key in waiting if key[1] + key[2] <= hour}
                lost -= set(delivered)
            elif act == "give up":
                gone = {key for key in promised if key not in delivered and key not in lost}
                gone = {key for key in gone if key[1] + key[2] < details[0]}
                assert journal.give_up("t", START + details[0] * HOUR) == len(gone)
                lost |= gone
            else:
                journal.close()
                journal = Journal(url)
        assert _by_key(journal.forecasts("t"), "value") == promised
        assert _by_key(journal.outcomes("t"), "actual") == delivered
        newest = {name: max(hour for one, hour, _ in promised if one == name) for name, _, _ in promised}
        assert set(_by_key(journal.latest("t"), "value")) == {key for key in promised if key[1] == newest[key[0]]}
        counts = {"scored": len(delivered), "never_came": len(lost)}
        assert journal.counts("t") == {"waiting": len(promised) - sum(counts.values())} | counts
        journal.close()


def _tally(outcomes: pl.DataFrame, version: str, now: datetime) -> dict[tuple[str, int], tuple[float, float]]:
    ours = outcomes.filter(pl.col("model_version") == version, pl.col("scored_at") <= now)
    weighed = ours.with_columns(
        weight=1 / pl.len().over("series_id", "timestamp").sqrt(), missed=pl.col("actual").abs() > 1
    )
    cells = weighed.group_by("series_id", "horizon").agg(
        pl.col("weight").sum(), (pl.col("weight") * pl.col("missed")).sum().alias("misses")
    )
    return {(name, step): (weight, misses) for name, step, weight, misses in cells.rows()}


def _by_key(table: pl.DataFrame, column: str) -> dict[tuple[str, int, int], float]:
    rows = table.select("series_id", (pl.col("origin") - START).dt.total_hours(), "horizon", column).rows()
    assert len({row[:3] for row in rows}) == len(rows)
    return {row[:3]: row[3] for row in rows}


days = st.integers(0, 80)
passes = st.one_of(
    st.tuples(st.just("score"), series, days, st.integers(1, 3), st.sampled_from(["1", "2"]), st.floats(-2, 2)),
    st.tuples(st.just("score late"), series, days, st.integers(1, 3), st.just("1"), st.floats(-2, 2)),
    st.tuples(st.just("tally"), st.integers(30, 120)),
    st.tuples(st.just("prune"), days),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(passes, max_size=25))
def test_a_process_that_remembers_what_is_settled_tallies_what_counting_all_anew_does(story: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/journal.db"
        lasting, other = Journal(url), Journal(url)
        for act, *details in story:
            if act in ("score", "score late"):
                name, day, step, version, actual = details
                time = START + day * 24 * HOUR
                scored = time + (HOUR if act == "score" else 20 * 24 * HOUR)
                row = (
                    "",
                    "t",
                    name,
                    time - step * HOUR,
                    time,
                    step,
                    0.0,
                    -1.0,
                    1.0,
                    0.0,
                    version,
                    "d",
                    time,
                    False,
                    "x",
                )
                made = identified(pl.DataFrame([row], schema=FORECAST, orient="row"))
                other.record(made)
                other.score(made.with_columns(actual=pl.lit(actual), scored_at=pl.lit(scored, TIME)))
            elif act == "prune":
                other.forget("t", START + details[0] * 24 * HOUR, ["1"])
            else:
                now = START + details[0] * 24 * HOUR
                for version in ("1", "2"):
                    found, expected = lasting.tally("t", version, now), _tally(other.outcomes("t"), version, now)
                    assert found.keys() == expected.keys()
                    assert all(np.allclose(found[cell], expected[cell]) for cell in expected)
                    with Journal(url) as anew:
                        assert found == anew.tally("t", version, now)  # to the last bit
        lasting.close()
        other.close()
