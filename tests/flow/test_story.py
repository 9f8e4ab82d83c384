"""The demo's later chapters on a short history: they hold where the system does what it says, and only there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forecastle import pipeline
from forecastle.data.replay import replay_app
from forecastle.demo import story
from forecastle.demo.telling import Telling
from forecastle.errors import SourceUnavailable
from forecastle.http import asgi_transport
from forecastle.serving.server import running


@pytest.fixture
def stage(site, tmp_path) -> Iterator[story.Stage]:
    """A stage on the trained site, from the moment of its training on, for three simulated days."""
    settings = site.settings.model_copy(update={"port": 0, "host": "127.0.0.1"})
    made: story.Stage
    app = replay_app(site.weather, lambda: made.now, faults=lambda: made.fault, forecast_values=True)
    with pipeline.open_run(site.task, settings, "train", site.now, asgi_transport(app)) as opened:
        made = story.Stage(tmp_path, site.task, settings, opened, Telling(plain=True), days=3)
        made.now = site.now
        yield made


def test_three_days_pass_and_a_bad_hour_is_survived(stage, capsys) -> None:
    with running(stage.settings, [stage.task], stage.clock) as stage.address:
        told = {name: list(work(stage)) for name, work in story.CHAPTERS if work in (story.live, story.bad_hour)}
    broken = [claim.text for claims in told.values() for claim in claims if not claim.held]
    assert broken == []
    assert "the gate stopped the run" in told["a bad hour"][0].text
    assert len(stage.latencies) == 72 * len(stage.task.series) + 1
    assert "70 of 72 simulated hours" in capsys.readouterr().out


def test_promise_and_delivery_are_told_side_by_side(stage, site, capsys) -> None:
    site.pass_hours(8)
    stage.now = site.now
    promise = {"rmse": 1.0, "mae": 0.8, "r2": 0.9, "skill": 0.31, "coverage": 0.9, "n": 99}
    stage.measured["backtest"] = promise | {"horizons": [{"horizon": 1, **promise}]}
    stage.latencies += [1.0, 2.0, 3.0]
    (claim,) = story.compare(stage)
    assert "promised 0.31" in claim.text
    said = capsys.readouterr().out
    assert "request latency" in said and "p50 2.0 ms" in said
    assert "over 99 forecasts of the back-test" in said


def test_a_chapter_on_too_little_data_does_not_hold(stage) -> None:
    claims = list(story.collect(stage))
    assert [claim.held for claim in claims] == [False, True, True]  # a day's window is no year


def test_a_source_that_is_down_in_a_good_hour_ends_the_chapter_with_its_error(stage) -> None:
    stage.fault = "503"
    with pytest.raises(SourceUnavailable, match="HTTP 503"):
        list(story.live(stage))
