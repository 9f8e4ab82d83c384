"""The law of parity over both paths to a feature: what a request is answered from has the bits of the definition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel
from forecastle.data.present import Present
from forecastle.data.dense import make_recent
from forecastle.data.transformation import make_recipe

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TASKS = {
    "hourly in New York": {"timezone": "America/New_York", "features": {"holidays": "US", "season": 24}},
    "hourly, further ahead than a season": {"timezone": "Europe/Berlin", "horizon": "30h", "features": {"season": 24}},
    "half-hourly with lags of its own": {
        "timezone": "Europe/Berlin",
        "frequency": "30m",
        "features": {"lags": [0, 5, 60], "windows": [2, 30]},
    },
    "daily, with a season of a week": {"frequency": "1d", "horizon": "4d", "features": {"season": 7}},
    "one column alone": {"columns": {"y": {}}, "timezone": "America/New_York"},
}
STARTS = (datetime(2024, 2, 27, tzinfo=UTC), datetime(2024, 10, 22, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("fields", TASKS.values(), ids=TASKS)
@FEW
@given(seed=st.integers(0, 10_000), back=st.integers(0, 500), start=st.sampled_from(STARTS))
def test_the_features_of_a_moment_have_the_bits_of_the_definition(
    small_task, observations, fields, seed, back, start
) -> None:
    task = small_task(**fields)
    random = np.random.default_rng(seed)
    table = observations(hours=560, seed=seed, start=start, step=task.frequency, series=("a", "b", "c"))
    table = table.filter(np.r_[np.full(560, True), random.random(2 * 560) > random.choice([0.0, 0.1, 0.95])])
    blank = random.random(table.height) < random.choice([0.0, 0.2])
    table = table.with_columns(
        table[name].scatter(np.flatnonzero(blank), [value] * int(blank.sum())) for name, value in (("y", None),)
    )
    if random.random() < 0.2:
        table = table.with_columns((table["y"].round(0) * 0.0).alias("y"))  # zeros of either sign
    until = start + timedelta(days=5000)
    panel = build_panel(table, task, until=None)
    recipe = make_recipe(task, panel)
    present, recent = Present(recipe), make_recent(panel)
    rows = np.array([panel.rows_of(name).stop - 1 for name in panel.series_ids])
    origin = int(panel.timestamps[rows].max()) - (back % 400) * panel.step
    places = [
        (name, int(panel.rows_of(name).start + (origin - recent.first[name]) // panel.step))
        for name in panel.series_ids
        if recent.first[name] <= origin <= recent.first[name] + (recent.values[name].shape[1] - 1) * panel.step
    ]
    names, at = tuple(name for name, _ in places), np.array([row for _, row in places])
    now = int(until.timestamp() * 1e6)
    windows = np.stack([recent.window(name, origin, len(recipe.columns), present.width) for name in names])
    served = present.examples(names, windows, origin, now)
    defined = make_examples(recipe, panel, at, np.full(len(at), now))
    assert present.names == defined.names
    for field in ("origins", "issued_at", "times", "last", "seasonal", "origin", "step"):
        assert getattr(served, field).tobytes() == np.ascontiguousarray(getattr(defined, field)).tobytes(), field
    assert [served.series_ids[one] for one in served.series] == [defined.series_ids[one] for one in defined.series]


def test_a_grid_of_observed_bars_is_left_to_the_definition(small_task, observations) -> None:
    task = small_task(grid="observed")
    assert Present(make_recipe(task, build_panel(observations(), task))).names == ()
