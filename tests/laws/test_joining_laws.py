"""The laws of events and of columns of another task: parity, no peeking over the join, order-free, series-isolated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastle.data.derivation import derive, join, open_history
from forecastle.data.examples import make_examples
from forecastle.data.history import History
from forecastle.data.panel import build_panel
from forecastle.data.transformation import make_recipe
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, KEYS, SERIES, TIMESTAMP, conform
from forecastle.task import Task, make_task

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
START = datetime(2024, 3, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
HOURS = 30
END = START + (HOURS + 12) * HOUR


def make(**changes: Any) -> Task:
    data: dict[str, Any] = {
        "name": "events",
        "domain": "logistics",
        "frequency": "1h",
        "horizon": "2h",
        "target": "mean",
        "source": {"provider": "file", "path": "t.csv", "events": True, "settles_after": "3h"},
        "columns": {
            "mean": {"derived": "mean", "inputs": ["delay"]},
            "delay": {"per_step": "sum"},
            "wind": {"task": "weather"},
            "gusts": {"task": "weather", "column": "gust", "per_step": "greatest"},
        },
        "features": {"windows": [3], "lags": [0, 1, 2], "season": 6},
    }
    return make_task(data | changes)


TASK = make()


def events(seed: int, series: tuple[str, ...] = ("a", "b")) -> pl.DataFrame:
    """Make events at any second, none in some hours, known when they happened or up to five hours later."""
    random = np.random.default_rng(seed)
    rows = []
    for name in series:
        for hour in range(HOURS):
            for second in sorted(random.choice(3600, size=int(random.integers(0, 6)), replace=False)):
                at = START + hour * HOUR + int(second) * timedelta(seconds=1)
                known = at + int(random.choice([0, 5, 40, 300])) * MINUTE
                rows.append((name, at, known, known, float(random.normal(10, 20))))
    return conform(pl.DataFrame(rows, orient="row", schema=[*KEYS, AVAILABLE_AT, COLLECTED_AT, "delay"]), ["delay"])


def weather(seed: int, series: tuple[str, ...] = ("a", "b", "elsewhere")) -> pl.DataFrame:
    """Make half-hourly readings with gaps and nulls, some late, some revised."""
    random = np.random.default_rng(seed + 1)
    rows = []
    for name in series:
        for half in range(-4, 2 * HOURS):
            at = START + half * 30 * MINUTE
            for version in range(int(random.choice([0, 1, 1, 1, 2]))):
                known = at + (version * 90 + int(random.choice([0, 7, 200]))) * MINUTE
                value = None if random.random() < 0.1 else float(random.normal(5, 2))
                rows.append((name, at, known, known, value, float(random.normal(9, 3))))
    schema = {SERIES: pl.String, **dict.fromkeys((TIMESTAMP, AVAILABLE_AT, COLLECTED_AT), pl.Datetime("us", "UTC"))}
    floats = {"wind": pl.Float64, "gust": pl.Float64}
    return conform(pl.DataFrame(rows, orient="row", schema={**schema, **floats}), ["wind", "gust"])


def joined(own: pl.DataFrame, other: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
    if as_of is not None:
        own, other = (one.filter(pl.col(AVAILABLE_AT) <= as_of) for one in (own, other))
    return join(TASK, "weather", derive(TASK, own, as_of), other)


def same(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    numbers = [name for name, kind in left.schema.items() if kind == pl.Float64]
    return left.equals(right) and all(
        left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes() for name in numbers
    )


def later_changed(table: pl.DataFrame, now: datetime, *names: str) -> pl.DataFrame:
    late = pl.col(AVAILABLE_AT) > now
    return table.with_columns(pl.when(late).then(pl.col(name) * 3 + 7).otherwise(name).alias(name) for name in names)


@FEW
@given(seed=st.integers(0, 10_000), minutes=st.integers(60, HOURS * 60))
def test_nothing_known_later_on_either_side_changes_what_a_step_said(seed, minutes):
    own, other, now = events(seed), weather(seed), START + minutes * MINUTE
    then = joined(own, other, now)
    assert (then[AVAILABLE_AT] <= now).all()
    assert same(then, joined(later_changed(own, now, "delay"), later_changed(other, now, "wind", "gust"), now))
    assert same(then, joined(own, other, END).filter(pl.col(AVAILABLE_AT) <= now))


@FEW
@given(seed=st.integers(0, 10_000), minutes=st.integers(12 * 60, HOURS * 60))
def test_weather_known_after_the_issue_changes_no_feature_of_the_forecast(seed, minutes):
    own, other, now = events(seed), weather(seed), START + minutes * MINUTE
    panels = [build_panel(joined(own, one, END), TASK) for one in (other, later_changed(other, now, "wind", "gust"))]
    told = [make_examples(make_recipe(TASK, panel), panel, np.arange(panel.size)) for panel in panels]
    issued = told[0].issued_at <= (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert issued.any()
    before, after = (one.take(issued) for one in told)
    assert before.origin.tobytes() == after.origin.tobytes()
    assert before.step.tobytes() == after.step.tobytes()


@FEW
@given(seed=st.integers(0, 10_000))
def test_order_and_other_series_change_nothing_on_either_side(seed):
    own, other = events(seed), weather(seed)
    whole = joined(own, other)
    shuffled = (one.sample(fraction=1, shuffle=True, seed=seed) for one in (own, other))
    assert same(whole, joined(*shuffled))
    alone = (one.filter(pl.col(SERIES) == "b") for one in (own, other))
    assert same(whole.filter(pl.col(SERIES) == "b"), joined(*alone))


@FEW
@given(seed=st.integers(0, 10_000), pick=st.integers(0, 10_000))
def test_a_step_joined_alone_has_the_bits_it_has_among_all(seed, pick):
    own, other = events(seed), weather(seed)
    whole = joined(own, other)
    if whole.is_empty():
        return
    name, at = whole.select(KEYS).row(pick % whole.height)
    inside = (pl.col(SERIES) == name) & pl.col(TIMESTAMP).is_between(at, at + HOUR, closed="left")
    mine = (pl.col(SERIES) == name) & (pl.col(TIMESTAMP) == at)
    assert same(joined(own.filter(inside), other.filter(inside), END), joined(own, other, END).filter(mine))


@FEW
@given(seed=st.integers(0, 10_000))
def test_each_version_says_what_both_sides_say_as_of_its_moment(seed):
    own, other = events(seed), weather(seed)
    for row in joined(own, other).sample(fraction=0.2, seed=seed).iter_rows(named=True):
        when = pl.col(AVAILABLE_AT) <= row[AVAILABLE_AT]
        inside = (pl.col(SERIES) == row[SERIES]) & pl.col(TIMESTAMP).is_between(
            row[TIMESTAMP], row[TIMESTAMP] + HOUR, closed="left"
        )
        happened = own.filter(inside, when)
        assert row["mean"] == pytest.approx(happened["delay"].mean())
        seen = other.filter(inside, when).sort(AVAILABLE_AT).unique(TIMESTAMP, keep="last").sort(TIMESTAMP)
        assert row["gusts"] == (seen["gust"].max() if seen.height else None)
        winds = seen["wind"].drop_nulls()
        assert row["wind"] == (winds[-1] if len(winds) else None)


@FEW
@given(seed=st.integers(0, 10_000), hour=st.integers(0, HOURS))
def test_a_stretch_of_two_histories_is_read_as_it_is_within_the_whole(tmp_path_factory, seed, hour):
    home: Path = tmp_path_factory.mktemp("home")
    own, other = (one.sort(COLLECTED_AT) for one in (events(seed), weather(seed)))
    History(home / "events" / "history", ("delay",)).append(own)
    beside = History(home / "weather" / "history", ("wind", "gust"))
    beside.append(other)
    history, at = open_history(TASK, home / "events" / "history"), START + hour * HOUR
    whole = history.versions(as_of=END)
    assert whole.columns[4:] == ["mean", "delay", "wind", "gusts"]
    assert same(history.versions(as_of=END, start=at), whole.filter(pl.col(TIMESTAMP) >= at))
    assert same(history.versions(as_of=END, end=at), whole.filter(pl.col(TIMESTAMP) < at))
    assert whole.select(*KEYS, AVAILABLE_AT).is_unique().all()
