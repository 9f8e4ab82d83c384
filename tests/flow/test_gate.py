"""The gate in the flows: a year without a false alarm, mad stations, refused trainings in MLflow, and releases."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecastle.cli import main
from forecastle.data.intake import release
from forecastle.data.quality_check import judge
from forecastle.data.quarantine import quarantined
from forecastle.errors import QualityGateFailed
from forecastle.frame import conform
from forecastle.settings import Settings
from forecastle.task import Task

HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def year(weather: pl.DataFrame) -> pl.DataFrame:
    """The recorded hours of a year at three airports, by time, as the shipped task sees them."""
    columns = ("temperature_2m", "relative_humidity_2m", "wind_speed_10m", "pressure_msl")
    rows = weather.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in columns))
    return conform(rows.with_columns(available_at="timestamp", collected_at="timestamp"), columns).sort("timestamp")


@pytest.mark.parametrize("quarter", range(4))
def test_a_year_of_recorded_weather_hour_by_hour_raises_no_false_alarm(
    task: Task, year: pl.DataFrame, quarter: int
) -> None:
    times = year["timestamp"]
    first, last = times.min() + 48 * HOUR, times.max()
    hours = range((last - first) // HOUR + 1)
    alarms, masked = [], []
    for hour in hours[quarter * len(hours) // 4 : (quarter + 1) * len(hours) // 4]:
        now = first + hour * HOUR
        start = now - 48 * HOUR
        begin, end = times.search_sorted(start), times.search_sorted(now, side="right")
        before, until = times.search_sorted(start - WEEK), times.search_sorted(now - HOUR, side="right")
        batch = year[begin:end].with_columns(available_at=pl.lit(now), collected_at=pl.lit(now))
        report, passed = judge(task, batch, start, now, now, year[before:until])
        alarms += [(now, one.check, one.found) for one in report.failures]
        gust = passed.filter(pl.col("series_id") == "EWR", pl.col("timestamp").dt.strftime("%m-%d %H") == "02-12 08")
        masked += gust["wind_speed_10m"].to_list()
    assert alarms == []
    assert set(masked) == ({None} if quarter == 0 else set())


def _of_newark(change: Any) -> Any:
    def changed(blocks: list[dict[str, Any]]) -> None:
        values = blocks[0]["hourly"]["temperature_2m"]
        values[:] = [None if value is None else change(value) for value in values]

    return changed


def test_a_mad_station_is_withheld_and_told_of_until_it_is_sane_while_the_others_go_on(site) -> None:
    site.pass_hours(1)
    site.source.change = _of_newark(lambda value: round(value * 1.8 + 32, 1))
    site.now += HOUR
    said = site.must_run("live")
    assert said["quality-check"]["withheld"] == ["EWR"] and said["quality-check"]["verdict"] == "warn"
    assert said["forecast"]["new"] > 0
    newest = site.history.read().group_by("series_id").agg(pl.col("timestamp").max())
    assert dict(newest.iter_rows()) == {"EWR": site.now.replace(minute=0) - HOUR, "JFK": site.now.replace(minute=0)}
    with site.journal() as journal:
        (incident,) = journal.incidents(site.task.name, open_only=True)
    assert incident.kind == "series-withheld" and "EWR" in incident.reason and "1.8 times +32" in incident.reason
    site.source.change = None
    site.now += HOUR
    assert site.must_run("live")["quality-check"]["withheld"] == []
    with site.journal() as journal:
        assert list(journal.incidents(site.task.name, open_only=True)) == []
    assert site.history.read()["temperature_2m"].max() < 30


def test_a_unit_that_changed_for_good_stays_withheld_however_long(site) -> None:
    site.pass_hours(1)
    site.source.change = _of_newark(lambda value: round(value * 1.8 + 32, 1))
    for days in (1, 2, 3, 6):
        site.now += timedelta(days=days)
        assert site.must_run("live")["quality-check"]["withheld"] == ["EWR"]
    assert site.history.read()["temperature_2m"].max() < 30


def test_a_series_withheld_for_longer_than_is_caught_up_gets_what_it_lacks_when_it_is_sane(site) -> None:
    site.pass_hours(1)
    site.source.change = _of_newark(lambda value: round(value * 1.8 + 32, 1))
    for _ in range(9):
        site.now += timedelta(days=1)
        site.must_run("live")
    site.source.change = None
    site.now += timedelta(days=2)
    site.must_run("live")
    rows = site.history.read(start=site.now - timedelta(days=14)).group_by("series_id").len()
    newark, kennedy = (dict(rows.iter_rows())[name] for name in ("EWR", "JFK"))
    assert newark >= kennedy - 12


def test_a_series_withheld_from_the_first_training_gets_its_past_later(empty_site) -> None:
    site = empty_site
    site.source.change = _of_newark(lambda value: 55 + value)
    said = site.must_run("train", until="quality-check")
    assert said["quality-check"]["withheld"] == ["EWR"]
    assert "Live runs ask for the past once a day" in said["quality-check"]["notes"][1]
    site.source.change = None
    site.now += timedelta(days=2)
    site.must_run("live", until="quality-check")
    with site.journal() as journal:
        assert list(journal.incidents(site.task.name, open_only=True)) == []
    first = dict(site.history.read().group_by("series_id").agg(pl.col("timestamp").min()).iter_rows())
    assert first["EWR"] == first["JFK"] == site.task.start


def _refusals(settings: Settings, task: Task) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking_uri)
    experiment = client.get_experiment_by_name(task.name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.gate = 'fail'"))


def test_a_training_that_the_gate_refuses_leaves_a_failed_run_with_the_report_in_mlflow(empty_site, tmp_path) -> None:
    empty_site.source.fault = "nulls"
    ended = empty_site.fail("train")
    assert ended.step == "quality-check" and isinstance(ended.error, QualityGateFailed)
    empty_site.fail("train")  # a retry adds no second run
    (run,) = _refusals(empty_site.settings, empty_site.task)
    assert run.info.status == "FAILED"
    assert "null-share" in run.data.tags["gate_reason"] and run.data.tags["task"] == empty_site.task.name
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    logged = json.loads((artifacts / "quality.json").read_bytes())
    assert not logged["passed"] and (artifacts / "quality.html").exists()
    (one,) = quarantined(empty_site.folder)
    assert one.is_waiting and one.checks == ("null-share",)


def test_a_registry_that_is_down_does_not_hide_what_the_gate_said(empty_site) -> None:
    nowhere = "sqlite:////proc/no-such-folder/mlflow.db"
    empty_site.settings = empty_site.settings.model_copy(update={"mlflow_uri": nowhere})
    empty_site.source.fault = "nulls"
    ended = empty_site.fail("train")
    assert isinstance(ended.error, QualityGateFailed) and ended.error.exit_code == 3
    assert "null-share" in ended.error.found
    assert "could not be logged to MLflow" in ended.error.action


def test_a_refused_live_batch_is_told_of_in_the_store_alone(site) -> None:
    site.source.fault = "nulls"
    site.now += HOUR
    assert site.fail().step == "quality-check"
    assert _refusals(site.settings, site.task) == []
    assert len(quarantined(site.folder)) == 1


def test_a_good_training_keeps_its_gates_report_and_verdict_with_the_model(site) -> None:
    from mlflow.tracking import MlflowClient

    model = json.loads(next(site.folder.glob("runs/train-*/model.json")).read_bytes())
    run = MlflowClient(tracking_uri=site.settings.tracking_uri).get_run(model["run_id"])
    assert run.data.tags["gate"] in ("pass", "warn", "mask")


def test_a_refused_training_goes_on_once_somebody_has_released_its_batch(empty_site) -> None:
    empty_site.source.fault = "nulls"
    assert empty_site.fail("train").step == "quality-check"
    (one,) = quarantined(empty_site.folder)
    release(empty_site.task, empty_site.folder, one.name, "ann", empty_site.now + HOUR, "we know of it")
    said = empty_site.must_run("train", until="transform")
    assert said["quality-check"]["known"] > 0 and said["transform"]["rows"] > 0
    empty_site.now += HOUR
    empty_site.source.fault = None
    assert empty_site.must_run("train", until="quality-check")["ingest"]["rows"] < 200


def test_the_command_line_lists_shows_and_releases(empty_site, root: Path, tmp_path, monkeypatch, capsys) -> None:
    empty_site.source.fault = "nulls"
    empty_site.run("live")
    file = tmp_path / "small.toml"
    text = (root / "tasks" / "nyc-temperature.toml").read_text(encoding="utf-8")
    file.write_text(text.replace("maximum = 1090", "maximum = 1091"), encoding="utf-8")
    monkeypatch.setenv("FORECASTLE_HOME", str(empty_site.settings.home))

    def said(*arguments: str) -> str:
        assert main(["quarantine", *arguments]) == 0
        return capsys.readouterr().out

    (one,) = json.loads(said("list", "--json"))
    assert (one["task"], one["waiting"], one["checks"]) == ("nyc-temperature", True, ["null-share"])
    assert one["name"] in said("list") and "null in temperature_2m" in said("list", "--task", str(file))
    shown = said("show", one["name"], "--task", str(file))
    assert one["page"] in shown and "null-share" in shown and "EWR" in shown
    assert json.loads(said("show", one["name"], "--task", str(file), "--json"))["report"]["passed"] is False
    release_it = ("release", one["name"], "--task", str(file), "--by", "ann", "--because", "known")
    assert f"{one['rows']} new rows" in said(*release_it)
    assert "was released before, by ann at 20" in said(*release_it[:-4], "--by", "bob", "--because", "why not")
    assert json.loads(said(*release_it, "--json"))["known"] == one["rows"]
    assert json.loads(said("list", "--json")) == [] and "Nothing waits" in said("list")
    assert json.loads(said("list", "--released", "--json"))[0]["released"]["by"] == "ann"
    assert main(["quarantine", "show", "none", "--task", str(file)]) == 2
