"""What a scheduler is told: cron expressions, the steps of each flow as words, mistaken files as jobs of their own."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from forecastle.cli import main
from forecastle.pipeline import CHALLENGE, COLLECT, FLOWS, LEEWAY
from forecastle.schedule import NOW, cron, jobs


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ({"seconds": 20}, "* * * * * */20"),
        ({"minutes": 1}, "* * * * *"),
        ({"minutes": 5}, "*/5 * * * *"),
        ({"minutes": 90}, "*/30 * * * *"),
        ({"hours": 1}, "0 * * * *"),
        ({"hours": 6}, "0 */6 * * *"),
        ({"days": 1}, "0 0 * * *"),
    ],
)
def test_a_length_becomes_a_cron_expression_that_hits_each_of_its_steps(length, expected: str) -> None:
    assert cron(timedelta(**length)) == expected


def test_the_leeway_becomes_the_seconds_of_the_expression() -> None:
    assert cron(timedelta(hours=1), LEEWAY) == "0 * * * * 30"


def test_every_shipped_task_has_the_steps_of_its_flows_in_their_order(root: Path) -> None:
    found = {job.id: job for job in jobs([root / "tasks"])}
    for name in (file.stem for file in (root / "tasks").glob("*.toml")):
        for flow, steps in FLOWS.items():
            told = found[f"{name}-{flow}"].steps
            assert [(one.name, one.after) for one in told] == [(step.name, step.after) for step in steps]


def test_the_words_of_a_step_are_a_command_that_names_its_file_flow_and_moment(root: Path, commands_known) -> None:
    file = root / "tasks" / "nyc-temperature.toml"
    train, live, challenge = jobs([file])
    assert train.steps[0].words == ("ingest", "--task", str(file), "--flow", "train", "--now", NOW, "--json")
    assert live.steps[2].words == ("forecast", "--task", str(file), "--now", NOW, "--json")
    assert challenge.steps[0].words == train.steps[0].words
    assert {step.words[0] for job in (train, live, challenge) for step in job.steps} <= commands_known


def test_the_training_table_is_what_train_makes_and_live_makes_none(root: Path) -> None:
    train, *others = jobs([root / "tasks" / "nyc-temperature.toml"])
    made = {step.name: step.table for step in train.steps if step.table}
    assert made == {"version": "forecastle://nyc-temperature/training-table"}
    assert not any(step.table for job in others for step in job.steps)


def test_a_challenge_trains_and_promotes_nothing_and_starts_by_itself_never(root: Path) -> None:
    (challenge,) = [job for job in jobs([root / "tasks" / "nyc-temperature.toml"]) if job.flow == "challenge"]
    assert [(one.name, one.after) for one in challenge.steps] == [(step.name, step.after) for step in CHALLENGE]
    assert "promote" not in [one.name for one in challenge.steps] and challenge.cron is None
    assert (challenge.id, challenge.start is None) == ("nyc-temperature-challenge", False)


def test_a_task_that_asks_more_often_than_it_forecasts_collects_in_between(root: Path) -> None:
    collect = {job.flow: job for job in jobs([root / "tasks" / "transit-delay.toml"])}["collect"]
    assert (collect.cron, [one.name for one in collect.steps]) == ("*/2 * * * *", [step.name for step in COLLECT])
    assert "live" in collect.steps[0].words


def test_a_mistaken_file_stops_no_other_and_says_what_is_wrong(root: Path, tmp_path: Path) -> None:
    good = (root / "tasks" / "nyc-temperature.toml").read_text(encoding="utf-8")
    (tmp_path / "a.toml").write_text(good, encoding="utf-8")
    (tmp_path / "b.toml").write_text(good.replace('"1h"', '"7m"'), encoding="utf-8")
    (tmp_path / "c.toml").write_text(good, encoding="utf-8")
    found = {job.id: job for job in jobs([tmp_path])}
    assert list(found) == [
        *(f"nyc-temperature-{flow}" for flow in ("train", "live", "challenge")),
        "b-mistake",
        "c-mistake",
    ]
    assert "does not divide the day" in found["b-mistake"].description and found["b-mistake"].cron is None
    assert str(tmp_path / "a.toml") in found["c-mistake"].description


def test_a_mistaken_file_of_any_name_has_a_job_whose_name_a_scheduler_takes(tmp_path: Path) -> None:
    (tmp_path / "my tâsk (2).toml").write_text("", encoding="utf-8")
    (job,) = jobs([tmp_path])
    assert (job.id, job.task, job.file) == ("my-t-sk--2--mistake", "my-t-sk--2-", str(tmp_path / "my tâsk (2).toml"))


def test_the_command_lists_what_it_can_and_exits_with_2_for_a_mistaken_file(root: Path, tmp_path: Path, capsys) -> None:
    good = root / "tasks" / "nyc-temperature.toml"
    (tmp_path / "bad.toml").write_text("name = 3", encoding="utf-8")
    assert main(["flows", str(good), str(tmp_path), "--json"]) == 2
    said = capsys.readouterr()
    assert [job["id"] for job in json.loads(said.out)][:2] == ["nyc-temperature-train", "nyc-temperature-live"]
    assert "bad.toml" in said.err
    assert main(["flows", str(good)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["nyc-temperature-live", "0", "*"]


@pytest.fixture
def commands_known() -> set[str]:
    from typer.main import get_command

    from forecastle.cli import app

    return set(getattr(get_command(app), "commands", {}))
