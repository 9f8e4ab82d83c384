"""The laws of derived columns, over every formula: parity, no peeking, order-free, series-isolated, slot by slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastle.data.derivation import DERIVATIONS, PER_STEP, derive, open_history
from forecastle.data.history import History
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIMESTAMP, conform
from forecastle.task import INPUTS, Task, make_task

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
START = datetime(2024, 3, 10, tzinfo=UTC)
MINUTES = timedelta(minutes=5)
HOUR = timedelta(hours=1)


def make(formula: str, min_share: float = 0.5, **changes: Any) -> Task:
    inputs = ("x", "y")[: len(INPUTS[formula])]
    data: dict[str, Any] = {
        "name": "derived",
        "domain": "financial",
        "frequency": "1h",
        "horizon": "3h",
        "target": "z",
        "source": {"provider": "file", "path": "table.csv", "step": "5m"},
        "columns": {
            "z": {"derived": formula, "inputs": inputs, "min_share": min_share},
            "x": {},
            "y": {"per_step": "sum"},
        },
    }
    return make_task(data | changes)


@pytest.fixture(params=sorted(DERIVATIONS))
def task(request: pytest.FixtureRequest) -> Task:
    return make(request.param)


def readings(seed: int, hours: int = 10, series: tuple[str, ...] = ("a", "b")) -> pl.DataFrame:
    """Make five-minute rows with gaps and nulls, some known late and some revised."""
    random = np.random.default_rng(seed)
    tables = []
    for name in series:
        at = [START + number * MINUTES for number in range(12 * hours)]
        known = [one + MINUTES + HOUR * float(random.choice([0, 0, 0, 0.7, 3])) for one in at]
        values = {column: 100 + np.cumsum(random.normal(0, 1, len(at))) for column in ("x", "y")}
        tables.append(pl.DataFrame({SERIES: name, TIMESTAMP: at, AVAILABLE_AT: known, COLLECTED_AT: known, **values}))
    table = pl.concat(tables)
    blank = pl.Series(random.random(table.height) < 0.05)
    table = table.with_columns(pl.when(~blank).then("x").alias("x")).filter(random.random(table.height) > 0.1)
    revised = table.filter(pl.Series(random.random(table.height) < 0.1)).with_columns(
        pl.col("x") + 3, *(pl.col(name) + 7 * HOUR for name in (AVAILABLE_AT, COLLECTED_AT))
    )
    return conform(pl.concat([table, revised]), ["x", "y"])


def same(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    numbers = [name for name, kind in left.schema.items() if kind == pl.Float64]
    bits = all(left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes() for name in numbers)
    return bits and left.equals(right)


@FEW
@given(seed=st.integers(0, 10_000), pick=st.integers(0, 10_000))
def test_a_step_derived_from_its_own_rows_alone_has_the_bits_it_has_among_all(task, seed, pick):
    table = readings(seed)
    whole = derive(task, table)
    at, series = whole[TIMESTAMP][pick % whole.height], whole[SERIES][pick % whole.height]
    own = (pl.col(SERIES) == series) & pl.col(TIMESTAMP).is_between(at, at + HOUR, closed="left")
    until = table[COLLECTED_AT].max()
    alone = derive(task, table.filter(own), until)
    assert same(alone, derive(task, table, until).filter((pl.col(SERIES) == series) & (pl.col(TIMESTAMP) == at)))


@FEW
@given(seed=st.integers(0, 10_000), minutes=st.integers(0, 20 * 60))
def test_nothing_that_became_known_later_changes_what_a_step_said(task, seed, minutes):
    table, now = readings(seed), START + minutes * timedelta(minutes=1)
    later = pl.col(AVAILABLE_AT) > now
    changed = table.with_columns(pl.when(later).then(pl.col(name) * 3 + 7).otherwise(name).alias(name) for name in "xy")
    then = derive(task, table.filter(~later), now)
    assert same(then, derive(task, table, now))
    assert same(then, derive(task, changed, now))
    assert (then[AVAILABLE_AT] <= now).all()
    assert (then[AVAILABLE_AT] >= then[TIMESTAMP] + HOUR).all()
    assert same(then, derive(task, table, START + 99 * HOUR).filter(pl.col(AVAILABLE_AT) <= now))


@FEW
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_and_the_other_series_change_nothing(task, seed):
    table = readings(seed)
    whole = derive(task, table)
    assert same(whole, derive(task, table.sample(fraction=1, shuffle=True, seed=seed)))
    assert same(whole.filter(pl.col(SERIES) == "b"), derive(task, table.filter(pl.col(SERIES) == "b")))


@FEW
@given(seed=st.integers(0, 10_000), hour=st.integers(0, 9))
def test_a_stretch_of_the_history_is_read_as_it_is_within_the_whole(task, tmp_path_factory, seed, hour):
    root = tmp_path_factory.mktemp("history")
    table = readings(seed)
    History(root, ("x", "y")).append(table.unique([SERIES, TIMESTAMP], keep="first", maintain_order=True))
    history, now, start = open_history(task, root), START + 30 * HOUR, START + hour * HOUR
    whole = history.versions(as_of=now)
    assert same(history.versions(as_of=now, start=start), whole.filter(pl.col(TIMESTAMP) >= start))
    assert same(history.versions(as_of=now, end=start), whole.filter(pl.col(TIMESTAMP) < start))
    assert history.newest() == whole[TIMESTAMP].max()
    assert history.read(as_of=now).select(SERIES, TIMESTAMP).is_unique().all()


def test_every_formula_a_task_may_name_is_there_and_takes_its_inputs():
    assert set(DERIVATIONS) == set(INPUTS)
    for name, formula in DERIVATIONS.items():
        assert formula(*(np.full((2, 3), 4.0) for _ in INPUTS[name])).shape == (2,)


@pytest.mark.parametrize("name", [*DERIVATIONS, *PER_STEP])
def test_what_is_missing_gives_no_number_and_an_absent_slot_no_error(name):
    formula = DERIVATIONS.get(name) or PER_STEP[name]
    nothing = np.full((1, 4), np.nan)
    assert np.isnan(formula(*(nothing for _ in INPUTS.get(name, ("value",))))).all()
