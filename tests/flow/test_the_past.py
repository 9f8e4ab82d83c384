"""A run as of the past, in a home that lives in the present, gives what is of that past and harms nothing of today."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta

import polars as pl

from forecastle import pipeline
from forecastle.data import roster
from forecastle.errors import SourceUnavailable, UserError
from forecastle.models import bundle, pointer, registry

HOUR = timedelta(hours=1)


def test_no_model_forecasts_hours_that_it_was_trained_on(site) -> None:
    before = site.state()
    site.now -= timedelta(days=2)
    failed = site.fail()
    assert failed.step == "forecast" and isinstance(failed.error, UserError)
    assert "version 1, which forecasts, was trained" in str(failed.error) and "backtest" in str(failed.error)
    after = site.state()
    assert [after[name] == before[name] for name in ("forecasts", "outcomes", "incidents")] == [True] * 3


def test_a_past_that_came_after_the_training_is_forecast_as_a_live_run_would_have(site) -> None:
    site.pass_hours(1)
    site.now += 5 * HOUR
    site.must_run("live")
    present, site.now = site.now, site.now - 3 * HOUR
    said = site.must_run("live")
    assert said["forecast"]["new"] == len(site.task.series) * site.task.steps
    assert said["forecast"]["model_version"] == "1"
    with site.journal() as journal:
        assert journal.latest(site.task.name)["issued_at"].unique().to_list() == [present]


def test_what_works_as_of_the_past_ends_no_incident_of_today(site) -> None:
    site.pass_hours(1)
    site.now += 3 * HOUR
    site.source.fault = "503"
    assert isinstance(site.fail().error, SourceUnavailable)
    site.source.fault = None
    site.now -= 2 * HOUR
    site.must_run("live")
    with site.journal() as journal:
        (one,) = journal.incidents(site.task.name, open_only=True)
    assert one.kind == "ingest-failed"
    site.pass_hours(3)
    with site.journal() as journal:
        assert journal.incidents(site.task.name, open_only=True) == ()


def test_scoring_as_of_the_past_takes_back_no_revised_truth(site) -> None:
    site.pass_hours(3)

    def warmer(blocks) -> None:
        for block in blocks:
            block["hourly"]["temperature_2m"] = [
                None if one is None else one + 0.5 for one in block["hourly"]["temperature_2m"]
            ]

    site.source.change = warmer
    site.pass_hours(1)
    with site.journal() as journal:
        revised = journal.outcomes(site.task.name)
        assert journal.revised(site.task.name) > 0
    site.source.change = None
    site.now -= HOUR
    site.must_run("live")
    with site.journal() as journal:
        assert journal.outcomes(site.task.name).equals(revised)


def test_a_series_that_was_not_there_yet_has_not_fallen_silent(site) -> None:
    site.pass_hours(1)
    before = (site.folder / roster.NOTE).read_bytes()
    site.now -= timedelta(days=90)
    site.run("live", until="ingest")
    assert (site.folder / roster.NOTE).read_bytes() == before


def test_a_model_of_the_past_takes_no_place_and_answers_no_alarm_of_today(site) -> None:
    with site.journal() as journal:
        journal.open_incident(site.task.name, "data-drift", "a sensor", site.now - HOUR)
    made, back = bundle.load(pointer.published(site.settings, site.task).folder, "1"), timedelta(days=2)
    before, site.now = site.folder / "runs" / f"train-{site.now:%Y%m%dT%H%M%SZ}", site.now - back
    run = before.with_name(f"train-{site.now:%Y%m%dT%H%M%SZ}")
    shutil.copytree(before, run)  # as if it had been trained then
    (run / "decision.json").unlink()
    old = replace(made, created_at=made.created_at - back, trained_until=made.trained_until - back)
    new = registry.log_training(site.settings, site.task, old, bundle.save(old, run / "bundle"))
    (run / "model.json").write_text(json.dumps({"version": new.version, "run_id": new.run_id}))
    rows = pl.read_parquet(run / "backtest.parquet")  # of series that the champion does not know: no other keeps it out
    rows.with_columns(series_id="new " + pl.col("series_id")).write_parquet(run / "contest.parquet")
    with pipeline.open_run(site.task, site.settings, "train", site.now, site.source) as opened:
        said = pipeline.run_step(opened, pipeline.TRAIN[-1]).summary
    assert not said["promoted"] and said["reasons"][0].startswith("It is a model of the past")
    assert pointer.published(site.settings, site.task).version == "1"
    assert registry.alias(site.settings, site.task, "champion").version == "1"
    assert json.loads((run / "decision.json").read_bytes())["worse"] is False
    with site.journal() as journal:
        (one,) = journal.incidents(site.task.name, open_only=True)
        assert [step.what for step in journal.incident_steps([one.number])[one.number]] == ["opened"]
