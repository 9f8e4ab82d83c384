"""What the gate refuses waits in quarantine until somebody releases it, once, whatever is killed in between."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data import roster
from forecastle.data.history import Appended, History
from forecastle.data.ingestion import Batch, load_batch, make_batch, save_batch
from forecastle.data.intake import admit, name_of, release
from forecastle.data.quarantine import find, note_release, quarantined
from forecastle.errors import QualityGateFailed, StorageUnavailable, UserError
from forecastle.task import Task

HOUR = timedelta(hours=1)
NOW = datetime(2013, 2, 12, 8, tzinfo=UTC)
LATER = NOW + 5 * HOUR


def table(task: Task, now: datetime = NOW) -> pl.DataFrame:
    """Return 49 hours of every series without a flaw, the last of them at now."""
    rows = [
        (name, at, 5.0 + at.hour / 10 + at.day, 60.0 + at.hour, 3.0 + at.hour / 7, 1013.0 + at.hour / 5)
        for name in task.series_ids
        for at in (now - ago * HOUR for ago in reversed(range(49)))
    ]
    schema = {"series_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), **dict.fromkeys(task.columns, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def holed(task: Task, now: datetime = NOW, places: tuple[str, ...] = ("EWR", "JFK", "LGA"), live: bool = True) -> Batch:
    """Return a batch that lacks three targets in ten at some places, and holds a gust at Newark."""
    gone = (pl.int_range(pl.len()) % 10 < 3) & pl.col("series_id").is_in(places)
    gale = (pl.col("series_id") == "EWR") & (pl.col("timestamp") == now - HOUR)
    rows = table(task, now).with_columns(
        pl.when(~gone).then(pl.col(task.target)).alias(task.target),
        pl.when(gale).then(468.66).otherwise("wind_speed_10m").alias("wind_speed_10m"),
    )
    return make_batch(task, [rows], now - 48 * HOUR, now, now, live, ["name"])


def collected(batch: Batch, at: datetime) -> Batch:
    """Return a live batch as it would have come at another time."""
    return replace(batch, collected_at=at, rows=batch.rows.with_columns(available_at=at, collected_at=at))


def refuse(task: Task, home: Path, batch: Batch) -> str:
    """Let the gate refuse a batch, and return its name in quarantine."""
    with pytest.raises(QualityGateFailed):
        admit(task, home, batch, batch.collected_at)
    return quarantined(home)[-1].name


def known(task: Task, home: Path, as_of: datetime | None = None) -> pl.DataFrame:
    return History(home / "history", (task.target, *task.covariates)).read(as_of=as_of)


def test_a_refused_batch_waits_with_its_task_time_rows_and_reason(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    (one,) = quarantined(tmp_path)
    assert (one.task, one.collected_at, one.rows, one.series, one.is_waiting) == (task.name, NOW, 147, (), True)
    assert one.checks == ("null-share",) and "null in temperature_2m" in one.reason
    assert find(tmp_path, name) == one and one.page.read_text().startswith("<!doctype html>")


def test_withheld_series_wait_alone_and_the_others_are_in_the_history(task, tmp_path):
    intake = admit(task, tmp_path, holed(task, places=("JFK",)), NOW)
    assert dict(intake.report.withheld) == {"JFK": ("null-share",)}
    assert sorted(known(task, tmp_path)["series_id"].unique()) == ["EWR", "LGA"]
    (one,) = quarantined(tmp_path)
    assert (one.rows, one.series) == (49, ("JFK",))
    assert load_batch(one.folder).rows["series_id"].unique().to_list() == ["JFK"]
    assert release(task, tmp_path, one.name, "ann", LATER).appended == Appended(49, 0, 0)
    assert sorted(known(task, tmp_path)["series_id"].unique()) == ["EWR", "JFK", "LGA"]


def test_a_release_brings_the_rows_in_with_masked_values_masked_and_says_who_when_and_why(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    intake = release(task, tmp_path, name, "ann", LATER, "the source has confirmed it")
    assert intake.appended == Appended(147, 0, 0)
    gust = known(task, tmp_path).filter(series_id="EWR", timestamp=NOW - HOUR)
    assert gust["wind_speed_10m"].to_list() == [None]
    one = find(tmp_path, name)
    assert not one.is_waiting and one.released is not None
    assert {**one.released} == {
        "by": "ann", "at": LATER, "because": "the source has confirmed it", "done": True, "new": 147, "revised": 0,
        "known": 0,
    }  # fmt: skip
    report = json.loads((one.folder / "released" / "quality.json").read_bytes())
    assert report["passed"] and (report["released"]["by"], report["released"]["at"]) == ("ann", "2013-02-12T13:00:00Z")
    page = (one.folder / "released" / "quality.html").read_text()
    assert "Released against the gate by ann, 2013-02-12T13:00:00Z: the source has confirmed it." in page
    assert not json.loads((one.folder / "quality.json").read_bytes())["passed"]


def test_a_release_twice_is_a_release_once(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    release(task, tmp_path, name, "ann", LATER)
    before = known(task, tmp_path)
    again = release(task, tmp_path, name, "bob", LATER + HOUR)
    assert again.appended == Appended(0, 0, 147)
    assert known(task, tmp_path).equals(before)
    released = find(tmp_path, name).released
    assert released is not None and released["by"] == "ann" and released["new"] == 147


def test_a_release_that_was_killed_before_the_history_still_waits_and_ends_as_it_began(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    note_release(find(tmp_path, name), "ann", LATER, "")  # and then the power went
    assert find(tmp_path, name).is_waiting and known(task, tmp_path).is_empty()
    release(task, tmp_path, name, "ann", LATER + 3 * HOUR)
    assert not find(tmp_path, name).is_waiting
    assert known(task, tmp_path)["available_at"].unique().to_list() == [LATER]


def test_a_release_that_was_killed_after_the_history_changes_nothing_when_done_again(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    one = find(tmp_path, name)
    note_release(one, "ann", LATER, "")
    admit(task, tmp_path, load_batch(one.folder), NOW, one.folder / "released")  # and then the power went
    before = known(task, tmp_path)
    assert before.height == 147 and find(tmp_path, name).is_waiting
    release(task, tmp_path, name, "ann", LATER + 3 * HOUR)
    assert known(task, tmp_path).equals(before) and not find(tmp_path, name).is_waiting


def test_what_was_released_passes_when_it_comes_again_and_what_turned_bad_since_does_not(task, tmp_path):
    batch = holed(task)
    release(task, tmp_path, refuse(task, tmp_path, batch), "ann", NOW + HOUR)
    again = collected(batch, NOW + 2 * HOUR)
    intake = admit(task, tmp_path, again, NOW + 2 * HOUR)
    assert intake.appended.new == 0 and known(task, tmp_path).height == 147 and intake.report.masked == 1
    assert intake.report.released is not None and intake.report.released["by"] == "ann"
    lost = pl.when(pl.col("timestamp").dt.hour() % 2 == 0).then(pl.col(task.target)).alias(task.target)
    with pytest.raises(QualityGateFailed, match="null-share"):
        admit(task, tmp_path, replace(again, rows=again.rows.with_columns(lost)), NOW + 2 * HOUR)


def test_a_release_counts_from_its_time_where_rows_were_collected_live(task, tmp_path):
    batch = holed(task)
    release(task, tmp_path, refuse(task, tmp_path, batch), "ann", LATER)
    with pytest.raises(QualityGateFailed, match="null-share"):
        admit(task, tmp_path, collected(batch, NOW + HOUR), NOW + HOUR)


def test_a_release_answers_for_no_row_that_is_not_there(task, tmp_path):
    batch = holed(task)
    release(task, tmp_path, refuse(task, tmp_path, batch), "ann", NOW + HOUR)
    day = 24 * HOUR
    with pytest.raises(QualityGateFailed, match="freshness"):
        admit(task, tmp_path, replace(batch, end=NOW + day, collected_at=NOW + day), NOW + day)


def test_what_was_released_was_not_known_before_unless_it_was_a_backfill(task, tmp_path):
    name = refuse(task, tmp_path / "live", holed(task))
    release(task, tmp_path / "live", name, "ann", LATER)
    assert known(task, tmp_path / "live", as_of=LATER - HOUR).is_empty()
    assert known(task, tmp_path / "live", as_of=LATER).height == 147
    name = refuse(task, tmp_path / "past", holed(task, live=False))
    release(task, tmp_path / "past", name, "ann", LATER)
    assert known(task, tmp_path / "past", as_of=NOW).height == 147


def test_a_newer_collection_counts_more_than_an_older_one_released_later(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    better = table(task).with_columns(pl.col(task.target) + 0.5)
    now = NOW + HOUR
    admit(task, tmp_path, make_batch(task, [better], NOW - 47 * HOUR, now, now, True, ["later"]), now)
    before = known(task, tmp_path).filter(pl.col("timestamp") >= NOW - 47 * HOUR)
    release(task, tmp_path, name, "ann", LATER)
    after = known(task, tmp_path).filter(pl.col("timestamp") >= NOW - 47 * HOUR)
    assert after.select("series_id", "timestamp", *task.columns).equals(
        before.select("series_id", "timestamp", *task.columns)
    )


def test_a_release_takes_nothing_from_what_equal_rows_collected_meanwhile_had_told(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    now = NOW + HOUR
    good = pl.concat([table(task), table(task, now)]).unique(["series_id", "timestamp"], maintain_order=True)
    admit(task, tmp_path, make_batch(task, [good], NOW - 47 * HOUR, now, now, True, ["later"]), now)
    moments = [now, now + HOUR, LATER - HOUR]
    values = ["series_id", "timestamp", *task.columns]
    before = [known(task, tmp_path, as_of).select(values) for as_of in moments]
    release(task, tmp_path, name, "ann", LATER)
    for as_of, was in zip(moments, before, strict=True):
        assert was.height == 147 and known(task, tmp_path, as_of).select(values).equals(was)


def test_series_that_had_passed_stay_known_since_then_when_the_gate_runs_again_after_a_release(task, tmp_path):
    batch = holed(task, places=("JFK",))
    admit(task, tmp_path, batch, NOW)
    (one,) = quarantined(tmp_path)
    release(task, tmp_path, one.name, "ann", LATER)
    before = known(task, tmp_path)
    assert admit(task, tmp_path, batch, NOW).appended == Appended(0, 0, 147)
    assert known(task, tmp_path).equals(before)
    assert sorted(known(task, tmp_path, as_of=NOW)["series_id"].unique()) == ["EWR", "LGA"]


def test_the_release_of_the_past_of_a_new_series_puts_it_in_service(task, tmp_path):
    batch = holed(task, live=False)
    roster.expect(tmp_path, "JFK", name_of(batch))
    name = refuse(task, tmp_path, batch)
    release(task, tmp_path, name, "ann", LATER)
    history = History(tmp_path / "history", (task.target, *task.covariates))
    assert "JFK" not in roster.missing(task, tmp_path, history, LATER)


def test_the_run_that_was_stopped_goes_on_with_the_released_batch(task, tmp_path):
    batch = holed(task)
    name = refuse(task, tmp_path, batch)
    release(task, tmp_path, name, "ann", LATER)
    again = admit(task, tmp_path, batch, NOW)
    assert again.report.passed and again.appended == Appended(0, 0, 147)
    assert not find(tmp_path, name).is_waiting


def test_what_the_history_cannot_hold_cannot_be_released(task, tmp_path):
    batch = holed(task)
    broken = Batch(batch.rows.drop("pressure_msl"), batch.start, batch.end, NOW, True, ("name",))
    name = refuse(task, tmp_path, broken)
    with pytest.raises(UserError, match="it failed schema.*can't be released"):
        release(task, tmp_path, name, "ann", LATER)
    assert find(tmp_path, name).is_waiting and find(tmp_path, name).released is None
    assert known(task, tmp_path).is_empty()


def test_a_name_that_is_none_is_answered_with_the_nearest(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        find(tmp_path, f"{name}x")
    with pytest.raises(UserError):
        find(tmp_path, f"../quarantine/{name}")


def test_a_batch_that_is_still_being_written_is_not_listed_and_a_torn_report_is_an_error(task, tmp_path):
    name = refuse(task, tmp_path, holed(task))
    save_batch(tmp_path / "elsewhere", holed(task))
    (tmp_path / "quarantine" / "20130212T090000Z-aaaaaaaa").mkdir()
    assert [one.name for one in quarantined(tmp_path)] == [name]
    (tmp_path / "quarantine" / name / "quality.json").write_text('{"task": ')
    with pytest.raises(StorageUnavailable, match="Restore that folder"):
        quarantined(tmp_path)
