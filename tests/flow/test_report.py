"""The final report of a system that ran: trained, forecast, scored, stopped by its gate once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecastle.cli import main
from forecastle.cli.report import commands
from forecastle.monitoring import uptime
from forecastle.pipeline import FLOWS
from forecastle.reporting import printing
from forecastle.reporting.evidence import appendix
from forecastle.reporting.facts import Facts, load, say
from forecastle.reporting.report import Written, make
from forecastle.reporting.scene import Scene, repository

MADE_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print no PDF, which takes seconds: that one is printed is a test of its own."""
    monkeypatch.setattr(printing, "browser", lambda: None)


@pytest.fixture
def written(site, tmp_path: Path, root: Path) -> Written:
    """The report of a site after three good hours and one bad one, in which its service was there for half a minute."""
    site.pass_hours(3)
    site.source.fault = "nulls"
    site.now += 1 * (site.task.frequency)
    site.fail()
    with site.journal() as journal:
        for slot in (0, 1, 3):
            uptime.beat(journal, MADE_AT + slot * uptime.EVERY)
        return make(scene(site, journal, tmp_path / "report", root))


def scene(site, journal, folder: Path, root: Path) -> Scene:
    flows = {name: [(step.name, step.after) for step in steps] for name, steps in FLOWS.items()}
    return Scene(
        site.task,
        root / "tasks" / "nyc-temperature.toml",
        site.settings,
        journal,
        site.now,
        MADE_AT,
        folder,
        flows,
        commands(),
        repository(),
    )


def test_it_tells_what_the_stores_hold(written: Written, site, monkeypatch) -> None:
    facts = written.facts
    with site.journal() as journal:
        outcomes = journal.outcomes(site.task.name)
        assert facts.value("results.forecasts.all") == journal.forecasts(site.task.name).height > 0
    assert facts.value("results.live.n") == outcomes.height > 0
    error = (outcomes["value"] - outcomes["actual"]) ** 2
    assert facts.value("results.live.rmse") == pytest.approx(error.mean() ** 0.5)
    assert facts.value("extraction.observations") == site.history.read().height
    assert facts.value("system.uptime.share") == 0.75
    assert facts.value("faults") == []
    # the gate: a batch that passed, one that did not, and the steps that did not start after it
    assert facts.value("gate.pass.verdict") != "fail" == facts.value("gate.fail.verdict")
    assert [row["ended"] for row in facts.rows("gate.fail.steps")] == [
        *("succeeded", "refused: QualityGateFailed"),
        *["did not start"] * 3,
    ]
    stages = {row["alias"]: row["stage"] for row in facts.rows("registry.versions")}
    assert stages["champion"] == "Production"
    # no place of this machine stands in it, and what was written is what the facts say
    told = (written.folder / "report.json").read_text(encoding="utf-8")
    assert str(site.settings.home) not in told
    assert load(written.folder / "report.json").as_dict() == facts.as_dict()
    # written again from its facts alone it is the same, by the command too
    text = (written.folder / "report.md").read_text(encoding="utf-8")
    assert f"{say(facts.value('results.live.rmse'))} °C" in text
    monkeypatch.chdir(written.folder)
    assert main(["report", "--facts", "report.json", "--output", "again", "--json"]) == 0
    assert (written.folder / "again" / "report.md").read_text(encoding="utf-8") == text
    # in an installed wheel the package's files are there, and those of the repository are not
    with site.journal() as journal:
        one = scene(site, journal, written.folder, Path("."))
        installed = Scene(**{**one.__dict__, "repository": None})
        found = Facts(dict(appendix.locations(installed)))
    words = {row["path"]: row["found"] for row in found.rows("code.3")}
    assert words["src/forecastle/pipeline.py"] == "there"
    assert re.match("not there: no repository", words["dags/forecastle_dag.py"])


def test_neither_a_task_nor_facts_is_told(capsys) -> None:
    assert main(["report"]) == 2
    assert "--task" in capsys.readouterr().err


def test_where_nothing_ran_everything_is_said_to_be_unmeasured(empty_site, tmp_path: Path, root: Path) -> None:
    with empty_site.journal() as journal:
        written = make(scene(empty_site, journal, tmp_path / "report", root))
    assert {"results.live.rmse", "registry.champion", "gate.fail.verdict", "system.uptime.share"} <= set(
        written.unmeasured
    )
    facts = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["facts"]
    silent = [name for name, fact in facts.items() if fact["value"] is None and not fact["measure"]]
    assert silent == []
