"""The law of parity over all ways to an answer: the short way has the bits of the long one, and of the panel."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecastle.data import profiling
from forecastle.data.dense import make_recent
from forecastle.data.examples import make_examples
from forecastle.data.gapless import Gapless
from forecastle.data.panel import build_panel, micros
from forecastle.data.present import Present
from forecastle.data.transformation import make_recipe
from forecastle.models.bundle import Bundle
from forecastle.models.estimators import fit_all, predict
from forecastle.models.intervals import Errors, calibrate
from forecastle.models.learning import Options, labelled, thinned
from forecastle.models.model import Model
from forecastle.models.shortcut import shortcut
from forecastle.monitoring import drift
from forecastle.serving.asking import Asked
from forecastle.serving.workbench import Workbench

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOURS = 700
START = datetime(2024, 10, 8, tzinfo=UTC)  # the clocks of Berlin and New York are put back before it ends
TASKS = {
    "hourly in New York": {"timezone": "America/New_York", "features": {"holidays": "US", "season": 24}},
    "further ahead than a season": {"timezone": "Europe/Berlin", "horizon": "30h", "features": {"season": 24}},
    "one column alone": {"columns": {"y": {}}, "features": {"season": 12, "windows": [2, 40]}},
}
CHAMPIONS = (
    {"lightgbm_change": 1.0},
    {"ridge": 0.75, "lightgbm_seasonal": 0.25},
    {"persistence": 0.5, "seasonal_naive": 0.25, "lightgbm_level": 0.25},
)
_BENCHES: dict[tuple[str, int], Workbench] = {}


def _bench(name: str, champion: int, small_task, observations) -> Workbench:
    """Return the workbench of a task with a quickly made champion, which has learnt the series a and b."""
    if (name, champion) in _BENCHES:
        return _BENCHES[name, champion]
    task, weights = small_task(**TASKS[name]), CHAMPIONS[champion]
    versions = observations(hours=HOURS, start=START, step=task.frequency, series=("a", "b"))
    versions = versions.filter(np.random.default_rng(5).random(versions.height) > 0.002)
    panel = build_panel(versions, task)
    recipe = make_recipe(task, panel)
    examples = make_examples(recipe, panel, np.arange(panel.size))
    learnt = fit_all(weights, examples, int(examples.times.max()), Options(rounds=5, ridge_rows=500))
    pairs = thinned(labelled(examples, int(examples.times.max())), examples, 2_000)
    value = sum(weight * predict(learnt[one], examples) for one, weight in weights.items())
    errors = Errors(pairs, pairs.pick(np.asarray(value)), pairs.pick(examples.truth), np.zeros(len(pairs.row), int))
    spread = calibrate([errors], 0.9, 0)
    members = tuple(learnt[one] for one in weights)
    model = Model(recipe, "blend", members, tuple(weights.values()), spread, 0.9, {"a": 1.0, "b": 2.0})
    present = Present(recipe)
    bundle = Bundle(
        task=task.name,
        task_digest=task.digest,
        version="1",
        data_version="0" * 32,
        created_at=START,
        trained_until=START,
        model=model,
        features=present.names,
        backtest={},
        reference={},
    )
    widths = {"a": np.linspace(0.5, 2.0, recipe.steps)}
    ends = np.full((len(recipe.columns), 1), np.inf)
    _BENCHES[name, champion] = Workbench(
        task=task,
        bundle=bundle,
        usual=drift.limits(profiling.reference(examples.origin_names, examples.origin)),
        widths=widths,
        versions=versions,
        issued=None,
        recent=make_recent(panel),
        present=present,
        learnt=frozenset(recipe.series_ids),
        lowest=-ends,
        highest=ends,
        gapless=Gapless(present),
        shortcut=shortcut(bundle, widths),
    )
    return _BENCHES[name, champion]


@pytest.mark.parametrize("name", TASKS)
@FEW
@given(
    champion=st.sampled_from(range(len(CHAMPIONS))),
    seed=st.integers(0, 10_000),
    back=st.integers(0, 300),
    asks=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((1, 2, 30, 480))), min_size=1, max_size=3),
    ill=st.sampled_from(("well", "well", "well", "nulls", "gaps", "twice", "off the grid", "zeros", "wild")),
)
def test_every_way_to_an_answer_gives_the_same_answer_to_the_bit(
    small_task, observations, name, champion, seed, back, asks, ill
) -> None:
    bench = _bench(name, champion, small_task, observations)
    random, step = np.random.default_rng(seed), bench.bundle.recipe.step
    origin = micros(START) + (HOURS - 1 - back) * step
    asked = []
    for series_id, size in dict(asks).items():
        times = origin - np.arange(size)[::-1] * step
        values = random.normal(10, 3, (len(bench.columns), size)).round(1)
        stride = step if size > 1 else 0
        if ill == "nulls":
            values[random.random(values.shape) < 0.1] = np.nan
        elif ill == "gaps":
            kept = np.r_[random.random(size - 1) > 0.2, True]
            times, values, stride = times[kept], values[:, kept], 0
        elif ill == "twice":
            times, values, stride = np.repeat(times, 2), np.repeat(values, 2, axis=1), 0
        elif ill == "off the grid":
            times, stride = times + step // 3, stride
        elif ill == "zeros":
            values = values.round(0) * random.choice([0.0, -0.0])
        elif ill == "wild":
            values[0, -1] = 1e6
        asked.append(Asked(series_id, times, values, stride))
    now = datetime.fromtimestamp(origin / 1e6, UTC) + timedelta(minutes=70)
    long = replace(bench, shortcut=None)
    told = [bench.predict(asked, now), long.predict(asked, now)]
    assert told[0] == told[1], ill
    several = bench.predict_each([*([one] for one in asked), asked], now)
    assert [one() for one in several] == [*([one] for one in told[0]), told[0]], ill
    by_panel = replace(bench, present=None).predict(asked, now)
    assert [one._replace(reason=None) for one in by_panel] == [one._replace(reason=None) for one in told[0]]


@pytest.mark.parametrize("name", TASKS)
def test_what_has_no_gap_goes_the_short_way_and_what_misses_a_value_that_counts_does_not(
    small_task, observations, name
) -> None:
    bench = _bench(name, 0, small_task, observations)
    step, size = bench.bundle.recipe.step, bench.present.width
    times = micros(START) + np.arange(HOURS - size, HOURS) * step
    values = np.random.default_rng(0).normal(10, 3, (len(bench.columns), size))
    now = START + timedelta(days=60)
    assert bench.shortly([Asked("a", times, values, step)], now)[0] is not None
    without = values.copy()
    without[0, -2] = np.nan
    assert bench.shortly([Asked("a", times, without, step)], now) == [None]
    assert bench.shortly([Asked("c", times[-5:], values[:, -5:], step)], now) == [None], "nothing is known of it before"
