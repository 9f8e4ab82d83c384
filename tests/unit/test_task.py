"""Reading a task file: what it may say, and how every mistake in it is named at once."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from forecastle.errors import TaskError
from forecastle.task import Task, duration_text, load_task, load_tasks, make_task, nearest, parse_duration, task_schema


def write(folder, text: str, name: str = "task.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


GOOD = """
name = "good"
domain = "logistics"
frequency = "1h"
horizon = "6h"
target = "delay"
timezone = "America/New_York"
[source]
provider = "file"
path = "table.csv"
[columns.delay]
unit = "min"
"""


def test_a_task_knows_its_steps_series_and_columns(task):
    assert task.steps == 6
    assert task.series_ids == ("EWR", "JFK", "LGA")
    assert task.target not in task.covariates
    assert (task.target, *task.covariates) == tuple(task.columns)
    assert task.unit == "°C"


def test_a_value_ages_from_when_it_could_be_known(small_task):
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    slow = small_task(source={"provider": "file", "path": "t.csv", "publication_delay": "2h"})
    assert small_task().age(noon, noon + 5 * hour) == 4 * hour
    assert slow.age(noon, noon + 5 * hour) == 2 * hour
    assert slow.age(noon, noon) == timedelta(0)


def test_no_limit_of_age_is_below_two_steps(small_task):
    assert small_task().patience(timedelta(hours=6)) == timedelta(hours=6)
    assert small_task(frequency="1d", horizon="1d").patience(timedelta(hours=6)) == timedelta(days=2)


def test_a_relative_path_is_relative_to_the_task_file(tmp_path):
    assert load_task(write(tmp_path, GOOD)).source.path == str(tmp_path / "table.csv")


def test_three_mistakes_are_named_at_once_each_with_place_and_nearest_name(tmp_path):
    text = GOOD.replace("timezone =", "timezon =").replace('"logistics"', '"logistic"').replace('"delay"', '"dely"', 1)
    with pytest.raises(TaskError) as caught:
        load_task(write(tmp_path, text))
    said = str(caught.value)
    assert "3 mistakes" in said
    assert "timezon: there is no such field; did you mean 'timezone'?" in said
    assert "domain: expected one of environmental, financial, logistics; found 'logistic'; did you mean" in said
    assert "target: 'dely' is not one of [columns]; did you mean 'delay'?" in said
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('horizon = "6h"', 'horizon = "0h"', "horizon: '0h' is no time ahead"),
        ('horizon = "6h"', 'horizon = "90m"', "horizon: '90m' is not a whole number of steps"),
        ('frequency = "1h"', 'frequency = "7h"', "frequency: '7h' does not divide the day"),
        ('frequency = "1h"', 'frequency = "hourly"', "frequency: expected a duration such as"),
        ("America/New_York", "America/New_Yrok", "there is no time zone 'America/New_Yrok'; did you mean"),
        ('path = "table.csv"', "", "provider 'file' needs path"),
        ('unit = "min"', "minimum = 3\nmaximum = 1", "minimum 3.0 is not below maximum 1.0"),
        (
            'unit = "min"',
            'flatline = "3d"',
            "columns.delay.flatline: '3d' cannot be seen in the 2d that a live batch holds",
        ),
        ('unit = "min"', 'flatline = "0h"', "columns.delay.flatline: '0h' cannot be seen"),
        ('provider = "file"', 'provider = "fil"', "found 'fil'; did you mean 'file'"),
        ('name = "good"', 'name = "Good Name"', "name: string should match pattern"),
        ('domain = "logistics"', "", "domain: missing"),
        ('horizon = "6h"', 'horizn = "6h"', "horizn: there is no such field; did you mean 'horizon'?"),
        ('provider = "file"', 'providr = "file"', "source.providr: there is no such field; did you mean 'provider'?"),
        (
            'unit = "min"',
            '[[series]]\nid = "A\\u0000"',
            r"series[0].id: expected text without control characters; found 'A\x00'",
        ),
        (
            'unit = "min"',
            '[columns."a\\u001b[2J"]',
            r"columns.a\x1b[2J: expected text without control characters; found 'a\x1b[2J'",
        ),
        ("[columns.", "[colums.", "colums: there is no such field; did you mean 'columns'?"),
    ],
)
def test_each_mistake_is_named_with_its_place(tmp_path, old, new, expected):
    with pytest.raises(TaskError, match="one mistake") as caught:
        load_task(write(tmp_path, GOOD.replace(old, new)))
    assert expected in str(caught.value)


def test_what_a_misspelt_name_leaves_missing_is_not_counted_as_another_mistake(task):
    data = task.model_dump(mode="json")
    data["serie"] = data.pop("series")
    with pytest.raises(TaskError, match="one mistake.*\n.*serie: there is no such field; did you mean 'series'"):
        make_task(data)
    data["series"] = []
    with pytest.raises(TaskError, match="2 mistakes.*\n.*serie: there is no such field.*\n.*series: provider"):
        make_task(data)


def test_a_place_without_coordinates_and_a_series_listed_twice_are_mistakes(task):
    data = task.model_dump(mode="json")
    data["series"] = [{"id": "EWR", "latitude": 1.0, "longitude": 2.0}, {"id": "EWR", "latitude": 1.0}]
    with pytest.raises(TaskError) as caught:
        make_task(data)
    assert "'EWR' is listed twice" in str(caught.value)
    assert "series[1].longitude: missing" in str(caught.value)


def test_a_missing_or_broken_file_says_what_to_do(tmp_path):
    write(tmp_path, GOOD, "mine.toml")
    with pytest.raises(TaskError, match="did you mean.*mine.toml.*forecastle init"):
        load_task(tmp_path / "min.toml")
    with pytest.raises(TaskError, match="readable TOML"):
        load_task(write(tmp_path, "name = ", "broken.toml"))


def test_the_digest_changes_with_what_changes_a_forecast_and_with_nothing_else(task):
    assert task.model_copy(update={"description": "other words"}).digest == task.digest
    assert task.model_copy(update={"horizon": timedelta(hours=3)}).digest != task.digest
    assert make_task(task.model_dump(mode="json")).digest == task.digest


def test_folders_of_tasks_are_read_and_names_must_differ(tmp_path):
    write(tmp_path, GOOD, "a.toml")
    assert [one.name for one in load_tasks([tmp_path])] == ["good"]
    write(tmp_path, GOOD, "b.toml")
    with pytest.raises(TaskError, match="'good' twice"):
        load_tasks([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="found none"):
        load_tasks([tmp_path / "empty"])


@pytest.mark.parametrize("text", ["90s", "30m", "1h", "36h", "7d"])
def test_durations_are_written_as_they_are_read(text):
    assert duration_text(parse_duration(text)) == text


def test_the_nearest_name_ignores_case_and_gives_up_on_strangers():
    assert nearest("TEMPERATURE", ["temperature_2m"]) == "; did you mean 'temperature_2m'?"
    assert nearest("zzz", ["temperature_2m"]) == ""


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ({"flatlin": {"verdict": "fail"}}, "gate.checks.flatlin: .*did you mean 'flatline'"),
        ({"flatline": {"verdikt": "fail"}}, "gate.checks.flatline.verdikt: there is no such field; did you mean 'verd"),
        ({"flatline": {"verdict": "mask"}}, "gate.checks.flatline.verdict: expected one of warn, fail; found 'mask'"),
        ({"gaps": {"scope": "station"}}, "gate.checks.gaps.scope: expected one of batch, series; found 'station'"),
        ({"keys": {"verdict": "warn"}}, "checks.keys cannot only warn"),
    ],
)
def test_a_mistake_in_what_a_task_says_of_the_gates_checks_is_named(small_task, checks, said):
    with pytest.raises(TaskError, match=said):
        small_task(gate={"checks": checks})


def test_a_task_gives_a_check_another_scope_or_verdict(small_task):
    gate = small_task(gate={"max_gap": "3h", "checks": {"null-share": {"scope": "batch"}}}).gate
    assert gate.max_gap == timedelta(hours=3)
    assert (gate.checks["null-share"].scope, gate.checks["null-share"].verdict) == ("batch", None)


def test_tasks_read_together_are_held_against_each_other(tmp_path, root):
    text = (root / "tasks" / "nyc-departure-delay.toml").read_text(encoding="utf-8")
    write(tmp_path, (root / "tasks" / "nyc-temperature.toml").read_text(encoding="utf-8"), "a.toml")
    write(tmp_path, text, "b.toml")
    assert [one.name for one in load_tasks([tmp_path])] == ["nyc-temperature", "nyc-departure-delay"]
    write(tmp_path, text.replace('"wind_speed_10m"', '"wind_sped_10m"').replace('id = "LGA"', 'id = "SFO"'), "b.toml")
    with pytest.raises(TaskError) as refused:
        load_tasks([tmp_path])
    said = str(refused.value)
    assert "columns.wind_speed: nyc-temperature has no 'wind_sped_10m'; did you mean 'wind_speed_10m'?" in said
    assert "nyc-temperature has no series 'SFO'" in said
    (tmp_path / "a.toml").unlink()
    assert [one.name for one in load_tasks([tmp_path])] == ["nyc-departure-delay"]


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "tasks").glob("*.toml")), ids=lambda file: file.stem
)
def test_the_schema_editors_use_takes_every_shipped_task_and_no_misspelt_one(file: Path) -> None:
    data = json.loads(json.dumps(tomllib.loads(file.read_text(encoding="utf-8")), default=str))
    judge = Draft202012Validator(task_schema())
    assert [error.message for error in judge.iter_errors(data)] == []
    assert not judge.is_valid(data | {"horizn": "6h"}) and not judge.is_valid(data | {"horizon": "soon"})


def test_a_copy_of_a_task_is_asked_anew_what_the_task_was_asked_before(task: Task) -> None:
    assert not task.is_derived and task.knowable_after == timedelta(0)
    means = task.model_copy(update={"source": task.source.model_copy(update={"instantaneous": False})})
    assert means.knowable_after == task.frequency
    daily = task.model_copy(update={"frequency": timedelta(days=1), "source": means.source})
    assert daily.knowable_after == timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "x"}, "columns.x.ahead: this is the target"),
        ({"grid": "observed"}, "columns.x.ahead: on the observed grid"),
        (
            {"source": {"provider": "file", "path": "a", "issued": "b", "step": "10m"}},
            "columns.x.ahead: the source's rows",
        ),
        ({"source": {"provider": "file", "path": "a"}}, "source.issued: a table of forecasts"),
        ({"columns": {"y": {}, "x": {}}}, "source.issued: a table of forecasts"),
        ({"source": {"provider": "open-meteo", "issued": "b"}}, "belongs to provider 'file'"),
        ({"source": {"provider": "open-meteo", "url": "http://x"}}, "that of 'open-meteo' is a setting"),
        ({"columns": {"y": {}, "x": {"ahead": True, "task": "other"}}}, "ahead belongs to a column that the source"),
    ],
)
def test_a_covariate_that_cannot_be_known_ahead_is_a_mistake(small_task, changes, said):
    source = {"provider": "file", "path": "a", "issued": "b"}
    good = {"source": source, "columns": {"y": {}, "x": {"ahead": True}}}
    assert small_task(**good).ahead == ("x",)
    with pytest.raises(TaskError, match=said):
        small_task(**good | changes)


def test_what_the_report_says_changes_no_forecast(small_task) -> None:
    told = small_task(report={"title": "A title", "team": ["Ann", "Ben"], "date": date(2026, 3, 31), "why": "Because."})
    assert told.digest == small_task().digest
    assert told.report.date == date(2026, 3, 31) and told.report.team == ("Ann", "Ben")


def test_a_report_with_mistakes_is_answered_with_all_of_them(small_task) -> None:
    with pytest.raises(TaskError) as refused:
        small_task(report={"titel": "A title", "team": [""], "documentation": "example.org"})
    for place in ("report.titel", "report.team", "report.documentation"):
        assert place in str(refused.value)
