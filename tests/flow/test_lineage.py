"""From a forecast back to the answers it rests on, over whole flows; and what must stay for that."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle.cli import main
from forecastle.data import admissions
from forecastle.errors import UserError
from forecastle.lineage import Lineage, needed, trace
from forecastle.models import pointer, publishing, registry

HOUR = timedelta(hours=1)


def lineage(site: Any, name: str) -> Lineage:
    with site.journal() as journal:
        return trace(site.settings, site.task, journal, name)


def notes(site: Any) -> dict[str, str]:
    """The archive's notes: name, and when it was collected."""
    archive = site.folder / "archive"
    found = {str(path.relative_to(archive)): path for path in archive.glob("[0-9]*/**/*.json")}
    return {name: json.loads(path.read_bytes())["collected_at"] for name, path in found.items()}


def test_a_forecast_leads_to_its_model_its_data_its_commit_and_its_answers(site) -> None:
    collected_for_training = sorted(notes(site))
    site.pass_hours(2)
    with site.journal() as journal:
        made = journal.latest(site.task.name).row(0, named=True)
    found = lineage(site, made["forecast_id"])
    run = f"train-{site.now - 2 * HOUR:%Y%m%dT%H%M%SZ}"
    assert {name: found.forecast[name] for name in made} == made
    assert found.forecast["feature_digest"] and found.forecast["data_age"] == 300
    assert (found.model.version, found.model.stage) == (made["model_version"], "Production") == ("1", "Production")
    assert (found.data.version, found.data.run) == (made["data_version"], run)
    assert sorted(found.answers) == collected_for_training and found.missing == ()
    assert len(notes(site)) > len(collected_for_training)
    said = ["git", "-C", str(site.settings.versions), "show", "--format=%s", found.data.commit]
    shown = subprocess.run(said, check=True, capture_output=True, text=True).stdout
    assert f"of run {run}" in shown and f"+- md5: {found.data.version}" in shown
    assert lineage(site, made["forecast_id"][:8].upper()) == found
    assert lineage(site, "champion") == lineage(site, "1")
    assert lineage(site, "1").answers == found.answers


def test_only_what_was_let_in_by_the_time_of_training_is_listed(site) -> None:
    before = lineage(site, "champion").answers
    refused = site.now + HOUR
    site.now = refused
    site.source.fault = "nulls"
    assert site.fail().step == "quality-check"
    site.source.fault = None
    site.pass_hours(1)
    site.must_run("train")
    after = set(lineage(site, "2").answers)
    names = notes(site)
    assert after > set(before)
    assert {names[name] for name in names.keys() - after} == {f"{refused:%Y-%m-%dT%H:%M:%SZ}"}
    assert lineage(site, "1").answers == before


def test_an_answer_that_is_gone_from_the_archive_is_named(site) -> None:
    gone = lineage(site, "champion").answers[0]
    (site.folder / "archive" / gone).unlink()
    assert lineage(site, "champion").missing == (gone,)


@pytest.mark.parametrize("name", ["deadbeefdeadbeef", "dead", "no-such-thing", "99", "challenger"])
def test_an_unknown_name_is_answered_with_the_newest_that_are_known(site, name) -> None:
    site.pass_hours(1)
    with pytest.raises(UserError) as unknown:
        lineage(site, name)
    with site.journal() as journal:
        newest = journal.latest(site.task.name)["forecast_id"].to_list()
    offered = str(unknown.value)
    if name in ("99", "challenger"):
        with pytest.raises(UserError) as as_the_registry_says:
            publishing.find(site.settings, site.task, name)
        assert offered == str(as_the_registry_says.value)
        assert ("(1), champion or challenger" if name == "99" else "none yet. Train one") in offered
    else:
        assert any(one[:12] in offered for one in newest)


def test_digits_that_begin_several_ids_are_refused(site, monkeypatch) -> None:
    monkeypatch.setattr("forecastle.lineage.SHORTEST", 1)
    site.pass_hours(6)
    with site.journal() as journal:
        ids = journal.forecasts(site.task.name)["forecast_id"].to_list()
    first = next(one[:1] for one in ids if sum(other[:1] == one[:1] for other in ids) > 1 and not one[:1].isdigit())
    with pytest.raises(UserError, match="several"):
        lineage(site, first)


def test_the_command_draws_a_tree_and_answers_json(site, tmp_path, monkeypatch, capsys, described) -> None:
    site.pass_hours(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORECASTLE_HOME", str(site.settings.home))
    file = task_file(tmp_path, described)
    with site.journal() as journal:
        name = journal.latest(site.task.name)["forecast_id"][0]
    assert main(["lineage", name, "--task", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["forecast"]["forecast_id"] == name and found["model"]["version"] == "1"
    assert found["data"]["commit"] and found["answers"]
    assert main(["lineage", name, "--task", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    order = ["forecast ", "model version 1", "data version ", "git commit ", "archived answers", found["answers"][0]]
    places = [next(number for number, line in enumerate(lines) if word in line) for word in order]
    assert places == sorted(places)
    whole = [found["data"]["commit"], found["data"]["version"], found["data"]["run"], found["model"]["run_id"], name]
    assert all(any(one in line for line in lines) for one in whole)
    assert main(["lineage", "deadbeef99", "--task", str(file)]) == 2
    assert "the newest:" in capsys.readouterr().err


def test_the_training_run_holds_the_profile_page_and_its_pages(site) -> None:
    version = registry.alias(site.settings, site.task, "champion")
    with registry._registry(site.settings) as client:
        kept = {one.path for one in client.list_artifacts(version.run_id)}
        pages = {one.path for one in client.list_artifacts(version.run_id, "profile")}
        page = Path(client.download_artifacts(version.run_id, "profile.html")).read_text()
        tags = client.get_run(version.run_id).data.tags
    assert {"profile.html", "profile", "quality.html"} <= kept
    assert "profile/0.html" in pages  # a busy machine has no time for the second
    assert set(re.findall('<a href="(.*?)">', page)) == pages
    assert tags["data_version"] == version.data_version


def test_what_a_live_model_rests_on_is_needed_and_what_nobody_rests_on_is_not(site) -> None:
    trained_on = lineage(site, "champion")
    site.pass_hours(1)
    with site.journal() as journal:
        found = needed(site.settings, site.task, journal)
    assert found.model_versions == {"1"}
    assert found.data_versions == {trained_on.data_version}
    assert found.archived == set(trained_on.answers) < set(notes(site))
    assert found.runs == {trained_on.model.run_id}
    assert found.folders == {trained_on.data.run}


def test_a_former_champion_is_needed_while_its_forecasts_wait(site) -> None:
    site.pass_hours(1)
    site.must_run("train")
    newer = registry.find(site.settings, site.task, "2")
    registry.set_alias(site.settings, site.task, "champion", newer)
    pointer.publish(
        site.settings, site.task, newer, site.folder / "runs" / f"train-{site.now:%Y%m%dT%H%M%SZ}" / "bundle", site.now
    )
    with site.journal() as journal:
        assert needed(site.settings, site.task, journal).model_versions == {"1", "2"}
        journal.give_up(site.task.name, site.now + timedelta(days=9))
        assert needed(site.settings, site.task, journal).model_versions == {"2"}


def test_a_table_without_a_record_needs_every_answer(site) -> None:
    for record in (site.settings.versions / site.task.name / "versions").iterdir():
        record.unlink()
    site.pass_hours(1)
    with site.journal() as journal:
        assert needed(site.settings, site.task, journal).archived == set(
            admissions.answers(admissions.admitted(site.folder))
        )
    assert lineage(site, "champion").data is None


def task_file(folder: Path, described: dict[str, Any]) -> Path:
    """Write the small task as a file."""

    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(toml, value)) + "]"
        return json.dumps(value) if isinstance(value, str | bool | int | float) else value.isoformat()

    path = folder / "task.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in described.items()), encoding="utf-8")
    return path


def test_answers_of_a_joined_task_are_listed_marked_by_its_name_and_missed(site, joining_site) -> None:
    joining_site.must_run("train")
    found = lineage(joining_site, "champion")
    own = {name for name in found.answers if ": " not in name}
    theirs = [name.removeprefix(f"{site.task.name}: ") for name in found.answers if name not in own]
    assert own == set(notes(joining_site)) and set(theirs) == set(notes(site))
    assert found.data.answers == len(found.answers) and found.missing == ()
    (site.folder / "archive" / theirs[0]).unlink()
    assert lineage(joining_site, "champion").missing == (f"{site.task.name}: {theirs[0]}",)
