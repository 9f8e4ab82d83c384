"""A task file that changes while data lives: what it stands for may not, all else is marked until it is learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forecastle.backtesting import backtest_task
from forecastle.data import identity
from forecastle.errors import TaskError
from forecastle.serving.app import create_app
from forecastle.serving.server import running
from forecastle.task import make_task

HOUR = timedelta(hours=1)


def changed(site, **fields: Any):
    """Return the site with another task file."""
    return replace(site, task=make_task(site.task.model_dump(mode="json", exclude_none=True) | fields))


def other_unit(site) -> dict[str, Any]:
    columns = site.task.model_dump(mode="json", exclude_none=True)["columns"]
    return {"columns": columns | {"temperature_2m": columns["temperature_2m"] | {"unit": "°F"}}}


CHANGES = {
    "target": lambda site: {"target": "relative_humidity_2m"},
    "unit": other_unit,
    "frequency": lambda site: {"frequency": "2h"},
    "grid": lambda site: {"grid": "observed"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_a_name_stands_for_may_not_change_by_any_door(site, field: str) -> None:
    site.pass_hours(1)
    before = site.state()
    other = changed(site, **CHANGES[field](site))
    doors = {
        "live": lambda: other.run("live"),
        "train": lambda: other.run("train"),
        "backtest": lambda: backtest_task(other.task, other.settings, other.now),
        "serve": lambda: running(other.settings, [other.task], lambda: other.now).__enter__(),
    }
    for name, door in doors.items():
        with pytest.raises(TaskError, match=field) as caught:
            door()
        assert "name of its own" in str(caught.value), name
    assert site.state() == before
    assert site.pass_hours(1)["watch"]


def test_a_changed_task_of_another_name_starts_stores_of_its_own(site) -> None:
    other = changed(site, name="humidity", target="relative_humidity_2m")
    other.must_run("live", until="quality-check")
    assert other.folder != site.folder and other.history.newest() is not None
    assert site.pass_hours(1)["watch"]


def test_stores_from_before_identities_were_noted_take_it_from_their_champion(site) -> None:
    (site.folder / "task.json").unlink()
    with pytest.raises(TaskError, match="target temperature_2m, now relative_humidity_2m"):
        changed(site, target="relative_humidity_2m").run("live")
    assert not (site.folder / "task.json").exists()
    site.pass_hours(1)
    assert json.loads((site.folder / "task.json").read_text(encoding="utf-8"))["unit"] == "°C"


def test_how_a_derived_target_is_made_is_part_of_what_it_is(small_task, tmp_path) -> None:
    table = {"a": {}, "b": {}, "y": {"derived": "share", "inputs": ["a", "b"]}}
    task = small_task(columns=table)
    identity.hold(task, tmp_path)
    identity.hold(small_task(columns=table | {"a": {"minimum": 0}}), tmp_path)
    with pytest.raises(TaskError, match="share of a, b, now share of b, a"):
        identity.require(small_task(columns=table | {"y": {"derived": "share", "inputs": ["b", "a"]}}), tmp_path)
    finer = small_task(columns=table, source={"provider": "file", "path": "table.parquet", "step": "15m"})
    with pytest.raises(TaskError, match="step 1h, now 15m"):
        identity.require(finer, tmp_path)


def test_any_other_change_marks_the_champion_everywhere_until_it_is_learnt(site) -> None:
    assert site.pass_hours(1)["forecast"]["task_changed"] is False
    other = changed(site, features={"windows": [3, 12]})
    said = other.pass_hours(1)
    assert said["forecast"]["task_changed"] is True and said["forecast"]["new"] > 0  # and it keeps serving
    assert _told(site) == (False, "0.0", False)
    assert _told(other) == (True, "1.0", True)
    other.now += timedelta(days=2)
    run = other.folder / "runs" / f"train-{other.now:%Y%m%dT%H%M%SZ}"
    other.must_run("train", until="train")
    _let_it_win(other, run)
    assert other.pass_hours(1)["forecast"]["task_changed"] is False
    assert _told(other) == (False, "0.0", False)


def test_a_description_is_no_change_and_neither_is_a_default_written_out(site) -> None:
    other = changed(site, description="Other words.", monitoring={"drift_ratio": 0.1, "stale_after": "3h"})
    assert other.task.monitoring == site.task.monitoring
    assert other.pass_hours(1)["forecast"]["task_changed"] is False


def _told(site) -> tuple[bool, str, bool]:
    """Return what the API, the metrics and the page say of a changed task."""
    client = TestClient(create_app(site.settings, [site.task], lambda: site.now), base_url="http://127.0.0.1")
    info = client.get(f"/v1/tasks/{site.task.name}").json()
    (line,) = [one for one in client.get("/metrics").text.splitlines() if one.startswith("forecastle_task_changed{")]
    return info["model"]["task_changed"], line.rpartition(" ")[2], "the task has changed since" in client.get("/").text


def _let_it_win(site, run) -> None:
    """Promote the newest version, whatever the test of it says."""
    from forecastle.models import publishing, registry

    version = json.loads((run / "model.json").read_text(encoding="utf-8"))["version"]
    found = registry.find(site.settings, site.task, version)
    publishing.promote(site.settings, site.task, found, run / "bundle", site.now, "Better.", "ann")


def test_the_service_in_front_of_stores_that_are_not_there_yet_starts(site, tmp_path) -> None:
    empty = replace(site, settings=site.settings.model_copy(update={"home": tmp_path / "nothing"}))
    with running(empty.settings, [empty.task], lambda: empty.now) as address:
        assert address.startswith("http")
