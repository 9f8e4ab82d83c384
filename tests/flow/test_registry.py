"""What a whole training leaves in the registry, and the commands that look at it and decide."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle import pipeline
from forecastle.cli import main
from forecastle.data import versioning
from forecastle.models import publishing, registry
from forecastle.models.estimators import ESTIMATORS
from forecastle.reporting.figures import FIGURES

COMPETING = tuple(name for name in ESTIMATORS if not name.startswith("har"))  # HAR is for volatility alone


@pytest.fixture
def call(site, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command of the group ``registry`` and return its exit code, its output and what it complained of."""
    monkeypatch.setenv("FORECASTLE_HOME", str(site.settings.home))
    task = ["--task", str(root / "tasks" / "nyc-temperature.toml")]

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["registry", *words, *task])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_training_run_tells_everything_it_was_made_of(site) -> None:
    version = registry.alias(site.settings, site.task, "champion")
    with registry._registry(site.settings) as client:
        run = client.get_run(version.run_id)
        kept = {one.path for one in client.list_artifacts(version.run_id)}
        drawn = {Path(one.path).stem for one in client.list_artifacts(version.run_id, "figures")}
        model = {Path(one.path).name for one in client.list_artifacts(version.run_id, "model")}
    assert {"profile.html", "quality.html", "quality.json", "features.json", "backtest.parquet"} <= kept
    assert {*FIGURES, "importance"} <= drawn
    assert model == {"MLmodel", "bundle", "input_example.json", "python_env.yaml", "requirements.txt"}
    record = versioning.record(site.settings, site.task, version.data_version)
    (learnt,) = [one.dataset for one in run.inputs.dataset_inputs]
    assert (learnt.digest, json.loads(learnt.profile)["num_rows"]) == (record.version, record.rows)
    assert Path(json.loads(learnt.source)["uri"].partition("/files/")[2]).name == record.version[2:]
    assert run.data.tags["data_commit"] == record.commit
    steps = range(1, site.task.steps + 1)
    wanted = {f"{name}.rmse{of}" for name in COMPETING for of in ("", *(f".h{step}" for step in steps))}
    assert wanted <= set(run.data.metrics)


def test_the_commands_list_and_show_what_serves(call) -> None:
    code, said, _ = call("list", "--json")
    (one,) = json.loads(said)
    assert code == 0 and (one["version"], one["stage"], one["aliases"]) == ("1", "Production", ["champion"])
    assert one["serves"] and one["promoted_by"].startswith("train-") and one["rmse"] > 0
    code, said, _ = call("show", "champion", "--json")
    found = json.loads(said)
    assert code == 0 and sum(found["importance"].values()) == pytest.approx(1)
    assert set(found["backtest"]["candidates"]) == set(COMPETING)
    (event,) = found["events"]
    assert (event["action"], event["version"], event["before"]) == ("promote", "1", "")
    assert event["why"] == one["promoted_because"]
    shown = call("list")[1] + call("show", "1")[1] + call("list", "--events")[1]
    assert "Production (champion)" in shown and "What its trees learnt from" in shown
    assert f"{event['by']}: promote version 1. {event['why']}" in " ".join(shown.split())


def test_a_rejected_model_is_promoted_by_no_run(site) -> None:
    site.now += timedelta(hours=1)
    site.must_run("train", until="train")
    publishing.reject(site.settings, site.task, "2", site.now, "A sensor was moved.", "ann")
    with pipeline.open_run(site.task, site.settings, "train", site.now, site.source) as run:
        said = pipeline.run_step(run, pipeline.TRAIN[-1]).summary
    assert said == {"promoted": False, "version": "2", "reasons": ["ann has rejected it: A sensor was moved."]}
    assert registry.alias(site.settings, site.task, "champion").version == "1"


def test_the_commands_decide_with_who_when_and_why(call, site) -> None:
    assert call("reject", "champion", "--why", "Out.")[0] == 2
    assert call("rollback", "--why", "It errs.")[0] == 2
    code, said, _ = call("promote", "1", "--why", "It knows the place.", "--by", "ann", "--now", "2013-11-20T02:00Z")
    assert (code, said) == (0, "Promoted version 1.\n")
    events = json.loads(call("list", "--events", "--json")[1])
    told = {"at": "2013-11-20T02:00:00Z", "by": "ann", "action": "promote", "version": "1", "before": "1"}
    assert events[-1] == told | {"why": "It knows the place."}
    (site.folder / "models" / "champion.json").unlink()
    assert call("sync", "--by", "ann")[1] == "Version 1 serves now, as the registry says; before: none.\n"
    assert call("sync", "--by", "ann")[1] == "In step: version 1 serves, as the registry says.\n"
    assert json.loads(call("sync", "--json")[1]) == {"version": "1", "before": "1", "moved": False}
    code, _, complaint = call("show", "7")
    assert code == 2 and "registry list" in complaint
