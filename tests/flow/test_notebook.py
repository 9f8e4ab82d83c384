"""`import forecastle as fc`: what the commands do, as four functions over the same stores."""

from __future__ import annotations

import ast
import json
from datetime import datetime, timedelta
from typing import Any

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


def test_the_example_notebook_tests_trains_and_forecasts_as_the_command_line_does(root, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"FORECASTLE_GIT": "false", "FORECASTLE_PROFILE": "plain"}.items():
        monkeypatch.setenv(name, value)
    book = json.loads((root / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            *before, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(before, []), "notebook", "exec"), space)
            if isinstance(last, ast.Expr):  # what a notebook shows
                shown = eval(compile(ast.Expression(last.value), "notebook", "eval"), space)
            else:
                exec(compile(ast.Module([last], []), "notebook", "exec"), space)
    tested, made = space["tested"], space["made"]
    assert tested.scores["skill"] > 0 and tested.rows["horizon"].unique().sort().to_list() == [1, 2, 3]
    assert made.promoted, made.reasons
    assert made.scores["n"] == tested.scores["n"] == tested.rows["actual"].count()
    assert shown["horizon"].to_list() == [1, 2, 3]
    assert shown["timestamp"].min() == datetime.fromisoformat("2024-01-22T00:00:00+00:00")
    assert (shown["lower"] <= shown["value"]).all() and (shown["value"] <= shown["upper"]).all()
    again = fc.forecast(space["task"], space["now"])
    assert again["model_version"].unique().to_list() == [made.model_version]
    assert main(["lineage", "champion", "--task", "traffic.toml", "--json"]) == 0


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
