"""`import forecastle as fc`: what the commands do, as four functions over the same stores."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

import forecastle as fc
from forecastle.cli import main
from forecastle.errors import NotEnoughHistory, TaskError

COUNTS = """
name = "counts"
domain = "logistics"
frequency = "1h"
horizon = "2h"
target = "count"

[source]
provider = "file"
path = "counts.csv"

[columns.count]
unit = "vehicles"

[training]
min_history = "7d"
"""


@pytest.fixture
def counts(tmp_path):
    """A task over three weeks of a table with a clear day, up to the end of 2024-01-21."""
    hours = range(21 * 24)
    start = datetime(2024, 1, 1)
    table = {
        "series_id": ["a"] * len(hours),
        "timestamp": [start + timedelta(hours=hour) for hour in hours],
        "count": [100.0 + 10 * (hour % 24) + hour % 7 for hour in hours],
    }
    pl.DataFrame(table).write_csv(tmp_path / "counts.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    (tmp_path / "counts.toml").write_text(COUNTS)
    return fc.load_task(tmp_path / "counts.toml")


def test_a_table_is_back_tested_trained_on_and_forecast_as_at_the_command_line(counts, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FORECASTLE_GIT", "false")
    monkeypatch.setenv("FORECASTLE_PROFILE", "plain")
    now = datetime(2024, 1, 22)  # without a zone it is UTC
    tested = fc.backtest(counts, now)
    assert tested.scores["rmse"] > 0 and tested.rows["horizon"].unique().sort().to_list() == [1, 2]
    made = fc.train(counts, now)
    assert made.promoted, made.reasons
    assert made.scores["n"] == tested.scores["n"] == tested.rows["actual"].count()
    found = fc.forecast(counts, now)
    assert found["horizon"].to_list() == [1, 2]
    assert found["model_version"].to_list() == [made.model_version] * 2
    assert found["timestamp"].min() == datetime.fromisoformat("2024-01-22T00:00:00+00:00")
    assert (found["lower"] <= found["value"]).all() and (found["value"] <= found["upper"]).all()
    assert main(["lineage", "champion", "--task", str(tmp_path / "counts.toml"), "--json"]) == 0


def test_over_another_transport_it_forecasts_what_the_flow_does(site) -> None:
    site.now += timedelta(hours=1)
    found = fc.forecast(site.task, site.now, site.settings, site.source)
    assert set(found["series_id"]) == {series.id for series in site.task.series}
    assert found["issued_at"].unique().to_list() == [site.now]


def test_what_stops_a_flow_is_raised(counts, empty_site, tmp_path) -> None:
    with pytest.raises(NotEnoughHistory, match="a champion of task"):
        fc.forecast(empty_site.task, empty_site.now, empty_site.settings, empty_site.source)
    with pytest.raises(TaskError, match="a task file at"):
        fc.load_task(tmp_path / "conts.toml")
    with pytest.raises(AttributeError, match="no attribute 'forcast'"):
        getattr(fc, "forcast")  # noqa: B009  # as a typing error in a notebook would
