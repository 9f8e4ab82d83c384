"""The LIVE flow, hour by hour, over recorded answers: good days, bad hours, and what heals by itself."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from threading import get_ident
from typing import Any

import polars as pl
import pytest

from forecastle.data.quarantine import quarantined
from forecastle.errors import AnswerChanged, NotEnoughHistory, QualityGateFailed, SourceUnavailable
from forecastle.models import evaluation
from forecastle.monitoring import incidents
from forecastle.monitoring.journal import OUTCOME, Journal

LIVE = ["ingest", "quality-check", "forecast", "score", "watch"]


def test_a_good_day_is_forecast_every_hour_and_scored_as_its_truth_comes(site) -> None:
    said = site.pass_hours(24)
    series, steps = len(site.task.series), site.task.steps
    assert said["quality-check"]["verdict"] in ("pass", "warn")
    assert said["forecast"]["new"] == series * steps
    with site.journal() as journal:
        forecasts, outcomes = journal.forecasts(site.task.name), journal.outcomes(site.task.name)
        assert journal.incidents(site.task.name) == ()
        assert journal.due(site.task.name, site.now).is_empty()
    assert forecasts.height == 24 * series * steps
    assert forecasts["issued_at"].min() == site.now - timedelta(hours=23)
    assert forecasts.filter(pl.col("timestamp") <= pl.col("origin")).is_empty()
    # of the first origin all steps have come, of the newest none
    assert outcomes.height == series * (24 * steps - steps * (steps + 1) // 2)
    assert outcomes["forecast_id"].is_unique().all()
    assert evaluation.scores(outcomes.select(list(OUTCOME)))["n"] == outcomes.height


def test_the_truth_of_an_outcome_is_what_the_airport_measured(site, weather) -> None:
    site.pass_hours(6)
    with site.journal() as journal:
        outcomes = journal.outcomes(site.task.name)
    measured = weather.select("series_id", "timestamp", pl.col("temperature_2m").alias("measured"))
    beside = outcomes.join(measured, on=["series_id", "timestamp"], validate="m:1")
    assert beside.height == outcomes.height > 0
    assert (beside["actual"] == beside["measured"]).all()


def test_every_step_leaves_its_summary_in_the_folder_of_the_run(site) -> None:
    said = site.pass_hours(1)
    folder = site.folder / "runs" / f"live-{site.now:%Y%m%dT%H%M%SZ}"
    left = {path.stem: json.loads(path.read_bytes()) for path in (folder / "steps").glob("*.json")}
    assert sorted(left) == sorted(LIVE)
    assert all(one["ok"] for one in left.values())
    assert left["forecast"]["summary"] == said["forecast"]


def test_a_failed_gate_stops_the_run_before_anything_downstream(site) -> None:
    site.pass_hours(1)
    before = site.state()
    site.now += timedelta(hours=1)
    site.source.fault = "nulls"
    ended = site.run("live")
    assert list(ended) == ["ingest", "quality-check"]
    error = ended["quality-check"].error
    assert isinstance(error, QualityGateFailed) and error.exit_code == 3 and not error.retried
    assert "temperature_2m" in str(error)
    after = site.state()
    assert after["forecasts"] == before["forecasts"] and after["outcomes"] == before["outcomes"]
    assert after["history"] == before["history"]


def test_a_failed_batch_lies_in_quarantine_with_its_report(site) -> None:
    site.now += timedelta(hours=1)
    site.source.fault = "nulls"
    site.fail()
    (quarantine,) = (site.folder / "quarantine").iterdir()
    assert {"batch.parquet", "batch.json", "quality.json", "quality.html"} <= {one.name for one in quarantine.iterdir()}
    report = json.loads((quarantine / "quality.json").read_bytes())
    assert report["verdict"] == "fail" and not report["passed"]
    assert pl.read_parquet(quarantine / "batch.parquet")["temperature_2m"].null_count() > 0
    step = site.folder / "runs" / f"live-{site.now:%Y%m%dT%H%M%SZ}" / "steps" / "quality-check.json"
    assert json.loads(step.read_bytes())["error"]["kind"] == "QualityGateFailed"


def test_the_next_good_hour_heals_the_gap(site) -> None:
    site.pass_hours(1)
    for _ in range(3):
        site.now += timedelta(hours=1)
        site.source.fault = "nulls"
        site.fail()
    site.source.fault = None
    said = site.pass_hours(1)
    assert said["quality-check"]["new"] == 4 * len(site.task.series)
    last = site.history.read(start=site.now - timedelta(hours=6))
    assert last.height == 6 * len(site.task.series)
    assert last["temperature_2m"].null_count() == 0


@pytest.mark.parametrize("days", [4, 30])
def test_a_gap_longer_than_the_window_is_fetched_whole(site, days) -> None:
    site.pass_hours(1)
    site.now += timedelta(days=days)
    said = site.must_run("live")
    expected = len(site.task.series) * (24 * days + 2)
    assert site.history.read(start=site.now - timedelta(days=days, hours=2)).height >= 0.99 * expected
    assert said["quality-check"]["new"] >= 0.99 * 24 * days * len(site.task.series)


def test_a_series_that_fell_silent_for_good_is_not_asked_for_from_its_end_on_for_ever(site) -> None:
    site.pass_hours(1)
    silent = site.weather.filter((pl.col("series_id") != "JFK") | (pl.col("timestamp") <= site.now))
    for days in (6, 6, 6):  # the first two are within the reach for all, the third is not
        site.now += timedelta(days=days)
        site = type(site)(site.task, site.settings, silent, now=site.now)
        site.must_run("live")
    window = json.loads((site.folder / "runs" / f"live-{site.now:%Y%m%dT%H%M%SZ}" / "window.json").read_bytes())
    others = timedelta(days=6) + site.task.gate.window  # since their last row, and what shows that they are themselves
    assert datetime.fromisoformat(window["from"]) >= site.now - others - timedelta(hours=1)


@pytest.mark.parametrize("fault", ["503", "429", "empty"])
def test_a_source_that_is_down_ends_the_run_with_4_and_what_is_retried(site, fault) -> None:
    before = site.state()
    site.now += timedelta(hours=1)
    site.source.fault = fault
    ended = site.fail()
    assert ended.step == "ingest"
    assert isinstance(ended.error, SourceUnavailable) and ended.error.exit_code == 4 and ended.error.retried
    _only_the_archive_and_an_incident_are_new(site, before, archived=1)
    assert not (site.folder / "quarantine").exists()


def test_a_source_that_is_down_is_asked_again_as_often_as_the_settings_say(site) -> None:
    site.settings = site.settings.model_copy(update={"http_attempts": 2})
    site.now += timedelta(hours=1)
    site.source.fault = "503"
    ended = site.fail()
    assert site.source.asked == 2
    assert "2 attempts" in str(ended.error) and "HTTP 503" in str(ended.error)


def test_once_the_source_is_back_the_same_run_ends_as_if_it_had_never_been_away(site) -> None:
    site.now += timedelta(hours=1)
    site.source.fault = "503"
    site.fail()
    site.source.fault = None
    said = site.must_run("live")
    assert said["quality-check"]["new"] == len(site.task.series)
    assert len(site.archived()) == 3  # of the training, the refusal, and this hour


@pytest.mark.parametrize(
    ("fault", "expected", "found"),
    [
        ("html", "JSON", "HTML"),
        ("unequal", "arrays of one length for series EWR", "values of temperature_2m"),
        ("unit", "temperature_2m of series EWR in '°C'", "°Ré"),
    ],
)
def test_an_answer_that_is_not_what_was_agreed_is_archived_and_then_refused(site, fault, expected, found) -> None:
    before = site.state()
    site.now += timedelta(hours=1)
    site.source.fault = fault
    ended = site.fail()
    assert ended.step == "ingest"
    assert isinstance(ended.error, AnswerChanged) and ended.error.exit_code == 3 and not ended.error.retried
    assert expected in ended.error.expected and found in ended.error.found
    _only_the_archive_and_an_incident_are_new(site, before, archived=1)


def test_the_refused_answer_lies_in_the_archive_byte_for_byte(site) -> None:
    site.now += timedelta(hours=1)
    site.source.fault = "html"
    site.fail()
    assert b"<!DOCTYPE html><html><body>We are down for maintenance.</body></html>" in site.bodies()


def test_rows_after_the_time_of_collection_are_dropped_counted_and_never_history(site) -> None:
    site = type(site)(site.task, site.settings, site.weather, forecast_values=True)
    said = site.pass_hours(1)
    rest_of_the_day = 24 - 2  # the hours 00:00 and 01:00 have come
    assert said["ingest"]["after_collection"] == rest_of_the_day * len(site.task.series)
    assert site.history.newest() <= site.now


def test_identical_duplicates_are_dropped_and_counted(site) -> None:
    site.source.change = _repeat_an_hour
    said = site.pass_hours(1)
    assert said["ingest"]["duplicates"] == len(site.task.series)
    assert said["quality-check"]["new"] == len(site.task.series)


def test_one_time_with_two_values_withholds_its_series_and_is_named(site) -> None:
    def contradict(blocks: list[dict[str, Any]]) -> None:
        _repeat_an_hour(blocks)
        blocks[0]["hourly"]["temperature_2m"][-1] += 1.0

    before = site.history.read()
    site.now += timedelta(hours=1)
    site.source.change = contradict
    assert site.must_run("live")["quality-check"]["withheld"] == ["EWR"]
    after = site.history.read()
    assert after.filter(series_id="EWR").equals(before.filter(series_id="EWR"))
    assert after.filter(series_id="JFK").height == before.filter(series_id="JFK").height + 1
    (waiting,) = quarantined(site.folder)
    assert waiting.series == ("EWR",) and "1 with different values, such as EWR 2013-11-19" in waiting.reason


def test_a_value_that_cannot_be_is_masked_and_reaches_no_feature(site) -> None:
    def boil(blocks: list[dict[str, Any]]) -> None:
        hourly = blocks[0]["hourly"]
        hourly["temperature_2m"][hourly["time"].index("2013-11-20T01:00")] = 400.0

    site.source.change = boil
    said = site.pass_hours(1)
    assert said["quality-check"]["masked"] == 1 and said["quality-check"]["verdict"] == "mask"
    assert site.history.read()["temperature_2m"].max() < 40
    with site.journal() as journal:
        assert journal.forecasts(site.task.name)["value"].is_between(-20, 40).all()


def test_a_revised_value_is_a_new_row_and_the_past_stays_as_it_was_known(site) -> None:
    site.pass_hours(1)
    before, known_at = site.history.read(), site.now

    def revise(blocks: list[dict[str, Any]]) -> None:
        hourly = blocks[0]["hourly"]
        hourly["temperature_2m"][hourly["time"].index("2013-11-20T00:00")] += 0.5

    site.source.change = revise
    said = site.pass_hours(1)
    assert said["quality-check"]["revised"] == 1
    assert site.history.read(as_of=known_at).equals(before)


def test_a_rerun_of_the_same_run_ends_in_the_same_state(site) -> None:
    site.pass_hours(3)
    before = site.state()
    again = site.must_run("live")
    assert site.state() == before
    assert again["forecast"]["new"] == 0 and again["score"]["scored"] == 0
    assert again["quality-check"]["new"] == again["quality-check"]["revised"] == 0


def test_without_a_champion_nothing_is_forecast_and_the_message_says_what_to_do(empty_site) -> None:
    ended = empty_site.fail()
    assert ended.step == "forecast"
    assert isinstance(ended.error, NotEnoughHistory) and "forecastle run train" in str(ended.error)
    assert empty_site.history.newest() is not None  # collection goes on


def test_features_the_training_never_held_raise_one_drift_incident(site) -> None:
    site.pass_hours(24)
    since = f"{site.now:%Y-%m-%dT%H:%M}"  # hours that are known keep their values, or the gate sees another unit

    def heat(blocks: list[dict[str, Any]]) -> None:
        for block in blocks:
            hourly = block["hourly"]
            hourly["temperature_2m"] = [
                value + 30.0 if value is not None and time > since else value
                for time, value in zip(hourly["time"], hourly["temperature_2m"], strict=True)
            ]

    site.source.change = heat
    said = site.pass_hours(8)
    assert said["watch"]["drift_ratio"] > site.task.monitoring.drift_ratio
    with site.journal() as journal:
        (incident,) = [one for one in journal.incidents(site.task.name) if one.kind == "data-drift"]
    assert incident.closed_at is None and "% of the newest 500; the limit is 10 %." in incident.reason


def test_a_source_that_stands_still_makes_its_data_stale_and_says_so(site) -> None:
    site.pass_hours(1)
    recorded = site.weather
    stopped = recorded.filter(pl.col("timestamp") <= site.now)
    site = type(site)(site.task, site.settings, stopped, now=site.now)
    opened = [site.pass_hours(1)["watch"]["opened"] for _ in range(4)]
    assert sorted(sum(opened, [])) == ["data-stale", "no-forecasts"] and opened[:2] == [[], []]
    site = type(site)(site.task, site.settings, recorded, now=site.now)
    assert site.pass_hours(1)["watch"]["closed"] == ["data-stale", "no-forecasts"]


def test_one_series_that_stands_still_among_others_is_stale_and_named(site) -> None:
    site.pass_hours(1)
    recorded = site.weather
    stopped = recorded.filter((pl.col("series_id") != "JFK") | (pl.col("timestamp") <= site.now))
    site = type(site)(site.task, site.settings, stopped, now=site.now)
    opened = [site.pass_hours(1)["watch"]["opened"] for _ in range(4)]
    assert [one for one in sum(opened, []) if one == "data-stale"] == ["data-stale"]
    with site.journal() as journal:
        (incident,) = [one for one in journal.incidents(site.task.name) if one.kind == "data-stale"]
    assert "JFK" in incident.reason
    site = type(site)(site.task, site.settings, recorded, now=site.now)
    assert "data-stale" in site.pass_hours(1)["watch"]["closed"]


def test_what_a_webhook_told_and_nobody_repeats_is_ended_by_the_watch_and_told(site) -> None:
    before = site.now - incidents.LAPSES_AFTER
    with site.journal() as journal:
        for told in ({"task": site.task.name}, {}):
            alert = {"status": "firing", "labels": {"rule": "service-down", **told}}
            incidents.receive(journal, site.settings, [site.task.name], {"alerts": [alert]}, before)
    said = site.pass_hours(1)["watch"]
    assert (said["closed"], said["told"]) == (["service-down"], 2)
    with site.journal() as journal:
        assert journal.incidents(open_only=True) == ()


def _repeat_an_hour(blocks: list[dict[str, Any]]) -> None:
    """Answer the hour of 2013-11-19 06:00 twice, at every place."""
    for block in blocks:
        hourly = block["hourly"]
        at = hourly["time"].index("2013-11-19T06:00")
        for values in hourly.values():
            values.append(values[at])


def _only_the_archive_and_an_incident_are_new(site, before: dict[str, Any], archived: int) -> None:
    after = site.state()
    assert len(after["archive"]) == len(before["archive"]) + archived
    kept = ("history", "forecasts", "outcomes")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    (incident,) = after["incidents"]
    assert (incident.kind, incident.closed_at) == ("ingest-failed", None)
    run = site.folder / "runs" / f"live-{site.now:%Y%m%dT%H%M%SZ}"
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert left == {"window.json", "steps/ingest.json"}


def test_a_pass_asks_no_more_than_it_did(site, monkeypatch) -> None:
    """What a pass costs in seconds changes with the machine; how often it asks Polars and the journal does not."""
    from polars.lazyframe import engine

    asked: Counter[str] = Counter()
    collect, transaction = engine._LocalEngine.collect, Journal.transaction
    here = get_ident()

    def counted(which: str, real: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            asked[which] += get_ident() == here
            return real(*given, **named)

        return call

    site.pass_hours(4)
    monkeypatch.setattr(engine._LocalEngine, "collect", counted("queries", collect))
    monkeypatch.setattr(Journal, "transaction", counted("transactions", transaction))
    site.pass_hours(4)
    assert 100 < asked["queries"] / 4 <= 270
    assert 20 < asked["transactions"] / 4 <= 50
