"""From a live forecast to the features that moved it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from forecastle import pipeline
from forecastle.cli import main
from forecastle.errors import TaskError, UserError
from forecastle.explaining import explain
from forecastle.models import bundle, pointer


def explained(site, series: str, horizon: int):
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        return explain(run, series, horizon)


def test_the_parts_of_an_explanation_sum_to_the_forecast_that_was_journalled(site) -> None:
    site.pass_hours(1)
    name = site.task.series_ids[0]
    with site.journal() as journal:
        made = journal.latest(site.task.name)
    for row in made.filter(made["series_id"] == name).iter_rows(named=True):
        told = explained(site, name, row["horizon"])
        assert (told.origin, told.timestamp, told.value) == (row["origin"], row["timestamp"], row["value"])
        assert sum(told.start.values()) + sum(told.features.values()) == pytest.approx(told.value, abs=1e-9)


def test_an_explanation_of_the_past_is_of_what_was_known_then(site) -> None:
    before = explained(site, "JFK", 2)
    then = site.now
    site.pass_hours(1)
    assert explained(site, "JFK", 2) != before
    site.now = then
    assert explained(site, "JFK", 2) == before


def test_what_cannot_be_explained_is_said(site) -> None:
    with pytest.raises(UserError, match="from 1 to 4 steps; found 5"):
        explained(site, "JFK", 5)
    with pytest.raises(TaskError, match="did you mean|JFK"):
        explained(site, "JFX", 1)


def test_a_trained_champion_carries_a_self_check_that_it_passes(site) -> None:
    current = pointer.published(site.settings, site.task)
    loaded = bundle.load(current.folder, current.version)
    assert loaded.check["forecasts"]["value"] and bundle.example(loaded).height > 300
    bundle.self_check(loaded)


def test_a_champion_that_fails_its_self_check_forecasts_nothing(site) -> None:
    current = pointer.published(site.settings, site.task)
    loaded = bundle.load(current.folder, current.version)
    wrong = replace(loaded, model=replace(loaded.model, weights=tuple(0.5 * one for one in loaded.model.weights)))
    bundle.save(wrong, current.folder)
    publish_again = pointer.ModelVersion(site.task.name, "1", current.run_id, current.data_version)
    pointer.publish(site.settings, site.task, publish_again, current.folder, site.now)
    site.now += timedelta(hours=1)
    ended = site.fail()
    assert ended.step == "forecast" and "to forecast what it did when it was made" in str(ended.error)


def test_where_a_champion_fails_its_self_check_the_one_before_forecasts_on_and_an_incident_says_so(
    site, tmp_path
) -> None:
    current = pointer.published(site.settings, site.task)
    good = bundle.load(current.folder, current.version)
    wrong = replace(good, model=replace(good.model, weights=tuple(0.5 * one for one in good.model.weights)))

    def publish(version: str, made: bundle.Bundle) -> None:
        known = pointer.ModelVersion(site.task.name, version, f"run-{version}", current.data_version)
        pointer.publish(site.settings, site.task, known, bundle.save(made, tmp_path / version), site.now)
        site.now += timedelta(hours=1)
        site.must_run("live")

    def refusals() -> list[tuple[str, bool]]:
        with site.journal() as journal:
            known = journal.incidents(site.task.name)
        return [(one.reason, one.closed_at is not None) for one in known if one.kind == "champion-refused"]

    publish("2", wrong)
    ((reason, closed),) = refusals()
    assert reason.startswith("What forecasts on is version 1: version 2 is refused") and not closed
    with site.journal() as journal:
        assert set(journal.latest(site.task.name)["model_version"]) == {"1"}
    publish("3", good)
    assert refusals() == [(reason, True)]


def test_the_command_explains_as_a_table_and_as_json(site, root, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FORECASTLE_HOME", str(site.settings.home))
    call = ["explain", "--task", str(root / "tasks" / "nyc-temperature.toml"), "--series", "JFK", "--now"]
    call += [site.now.isoformat(), "--horizon", "3"]
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    total = sum(one["adds"] for one in (*found["start"], *found["features"]))
    assert found["series_id"] == "JFK" and total == pytest.approx(found["value"], abs=1e-9)
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert f"{found['value']:.4f} °C" in shown and found["start"][0]["name"] in shown


def test_what_serves_is_loaded_checked_asked_and_explained_without_mlflow_or_the_lightgbm_package(site, root) -> None:
    program = """
import sys
from datetime import datetime
from pathlib import Path
from forecastle.models import bundle, explanation, pointer, predictor
from forecastle.data.recent import newest_origins
from forecastle.serving.board import Board
from forecastle.settings import Settings
from forecastle.task import load_task

settings, task = Settings(home=Path(sys.argv[1])), load_task(sys.argv[2])
current = pointer.published(settings, task)
model = bundle.load(current.folder, current.version)
bundle.self_check(model)
examples = newest_origins(model.recipe, bundle.example(model))
now = datetime.fromisoformat("2013-11-20T01:00Z")
assert predictor.forecast(model, examples, now, {}).height == 8
assert explanation.explain(model.model, examples, 1)[0].features
assert any(member.trees for member in model.model.members)
board = Board(settings, [task])
board.refresh(task.name, now)
assert board.snapshot(task.name).model.version == current.version
print(sorted({"mlflow", "lightgbm", "sklearn", "pandas"} & {name.split(".")[0] for name in sys.modules}))
"""
    task_file = root / "tasks" / "nyc-temperature.toml"
    said = subprocess.run(
        [sys.executable, "-c", program, str(site.settings.home), str(task_file)], capture_output=True, text=True
    )
    assert (said.stdout.strip(), said.returncode) == ("[]", 0), said.stderr
