"""Pruning: what is over goes by the days the settings say, and nothing that a live model rests on goes with it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from obstore.store import MemoryStore

from forecastle.data import store
from forecastle.data.archive import GRACE, Archive
from forecastle.data.store import Bucket, Folder, task_stores
from forecastle.http import Answer
from forecastle.lineage import trace
from forecastle.models import bundle, pointer, publishing, registry
from forecastle.operations.buckets import put_in
from forecastle.operations.retention import Pruned, needs, prune

DAY = timedelta(days=1)


def kept_for(site, **days: int):
    """Return the site with these days of retention, and everything else kept for ever."""
    wanted = {f"keep_{name}": 0 for name in ("archive", "quarantine", "journal", "models", "runs")}
    return replace(site, settings=site.settings.model_copy(update=wanted | {f"keep_{k}": v for k, v in days.items()}))


def pruned(site, dry_run: bool = False) -> dict[str, Pruned]:
    return {one.store: one for one in prune(site.settings, [site.task], site.now, dry_run)}


def age(folder: Path) -> None:
    """Let every body seem to have been written before the grace of a prune."""
    for body in folder.glob("archive/bodies/*/*"):
        before = body.stat().st_mtime - 2 * GRACE.total_seconds()
        os.utime(body, (before, before))


def test_by_default_only_what_runs_leave_behind_goes_after_a_generous_time(site) -> None:
    site.pass_hours(2)
    site.now += timedelta(days=200)
    before = site.state()
    assert {one.store: one.items for one in prune(site.settings, [site.task], site.now)} == {"runs": 1, "reports": 0}
    assert site.state() == before
    left = sorted(path.name for path in (site.folder / "runs").iterdir())
    assert [name.partition("-")[0] for name in left] == ["live", "train"]  # the newest of each


def test_a_dry_run_says_what_would_go_and_leaves_every_byte(site) -> None:
    site.pass_hours(6)
    site.now += timedelta(days=400)
    age(site.folder)
    hasty = kept_for(site, archive=1, quarantine=1, journal=1, models=1, runs=1)
    files = {path: path.stat().st_size for path in site.folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    said = pruned(hasty, dry_run=True)
    assert said["runs"].items == 5 and said["runs"].bytes > 0
    assert files == {
        path: path.stat().st_size for path in site.folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }
    done = pruned(hasty)
    assert {name: (one.items, one.bytes) for name, one in done.items()} == {
        name: (one.items, one.bytes) for name, one in said.items()
    }
    assert {name: one.items for name, one in pruned(hasty).items()} == dict.fromkeys(said, 0)


def test_the_answers_a_live_model_was_trained_on_stay_and_those_that_brought_nothing_go(site) -> None:
    site.source.fault = "html"
    site.now += timedelta(hours=1)
    site.fail()
    site.source.fault = None
    trained_on = {name for name, _ in [(one.name, one) for one in Archive(site.folder / "archive").notes()]}
    refused = max(trained_on)
    site.now += timedelta(days=30)
    age(site.folder)
    said = pruned(kept_for(site, archive=7))["archive"]
    assert (said.items, said.needed) == (1, len(trained_on) - 1)
    archive = Archive(site.folder / "archive")
    left = {one.name for one in archive.notes()}
    assert left == trained_on - {refused}
    assert all(archive.read(name) for name in left)
    assert not any(b"maintenance" in body for body in site.bodies())


def test_answers_after_the_training_stay_for_the_next_one_where_they_brought_rows_and_else_go(site) -> None:
    site.pass_hours(5)
    site.now += timedelta(minutes=1)
    site.must_run("live")  # nothing new in it
    before, known = {one.name for one in Archive(site.folder / "archive").notes()}, site.history.versions()
    site.now += timedelta(days=30)
    age(site.folder)
    assert pruned(kept_for(site, archive=7))["archive"].items == 1
    left = {one.name for one in Archive(site.folder / "archive").notes()}
    assert before - left == {max(before)}
    assert site.history.versions().equals(known)
    site.must_run("train")
    with site.journal() as journal:
        found = trace(site.settings, site.task, journal, "2")
    assert found.missing == () and left <= set(found.answers) and max(before) not in found.answers


def test_what_a_joining_tasks_model_rests_on_stays_though_the_joined_one_is_pruned_alone(site, joining_site) -> None:
    site.pass_hours(3)
    joining_site.now = site.now
    joining_site.must_run("train")
    site.now += timedelta(days=60)
    age(site.folder)
    pruned(kept_for(site, archive=7))
    with site.journal() as journal:
        found = trace(site.settings, joining_site.task, journal, "champion")
        stays = needs(site.settings, joining_site.task, journal)
        alone = needs(site.settings, site.task, journal, [joining_site.task])
    theirs = [name for name in found.answers if name.startswith(f"{site.task.name}: ")]
    assert theirs and found.missing == () and stays.answers >= set(theirs)
    assert alone.answers >= {name.partition(": ")[2] for name in theirs}


def test_what_a_task_that_joins_another_needs_is_found(joining_site) -> None:
    joining_site.must_run("train")
    with joining_site.journal() as journal:
        found = needs(joining_site.settings, joining_site.task, journal)
    assert {one.name for one in Archive(joining_site.folder / "archive").notes()} <= found.answers


def test_a_body_that_another_note_names_stays(tmp_path: Path, site) -> None:
    archive = Archive(tmp_path / "archive")
    one = archive.save(Answer("https://x/", 200, {}, b"same"), site.now)
    two = archive.save(Answer("https://x/", 200, {}, b"same"), site.now + DAY)
    age(tmp_path)
    archive.forget({one})
    assert archive.read(two) == b"same"
    age(tmp_path)
    archive.forget({two})
    assert not [path for path in (tmp_path / "archive" / "bodies").rglob("*") if path.is_file()]


def test_a_body_just_saved_whose_note_has_not_come_yet_stays(tmp_path: Path, site) -> None:
    archive = Archive(tmp_path / "archive")
    archive.save(Answer("https://x/", 200, {}, b"one"), site.now)
    (note,) = [one.name for one in archive.notes()]
    (tmp_path / "archive" / note).unlink()  # as a crash between body and note would leave it
    archive.forget(set())
    assert [path.read_bytes() for path in (tmp_path / "archive" / "bodies").rglob("*") if path.is_file()] == [b"one"]


def test_outcomes_of_the_champion_current_and_waiting_forecasts_stay(site) -> None:
    site.pass_hours(30)
    with site.journal() as journal:
        forecasts, outcomes = journal.forecasts(site.task.name), journal.outcomes(site.task.name)
    site.now += timedelta(days=100)
    assert pruned(kept_for(site, journal=1))["journal"].items == 0
    with site.journal() as journal:
        assert journal.outcomes(site.task.name).equals(outcomes)
        gone = journal.forget(site.task.name, site.now, kept=())
        left = journal.forecasts(site.task.name)
        waiting, current = journal.counts(site.task.name)["waiting"], journal.latest(site.task.name)
    assert gone["outcomes"] == outcomes.height and waiting > 0
    assert left.height == forecasts.height - gone["forecasts"]
    assert set(current["origin"]) == {forecasts["origin"].max()}


def test_what_a_former_model_forecast_goes_but_not_within_what_live_scores_look_back_on(site) -> None:
    site.pass_hours(8)
    with site.journal() as journal:
        outcomes = journal.outcomes(site.task.name)
        renamed = journal.forecasts(site.task.name).filter(pl.col("timestamp") <= site.now)
        old = renamed.with_columns(model_version=pl.lit("0"), origin=pl.col("origin"))
        journal.record(old)
        due = journal.due(site.task.name, site.now)
        journal.score(due.with_columns(actual=pl.lit(1.0), scored_at=pl.lit(site.now)))
        assert journal.outcomes(site.task.name).height > outcomes.height
    eager = kept_for(site, journal=1)
    eager.now += timedelta(days=20)
    assert pruned(eager)["journal"].items == 0
    eager.now += timedelta(days=20)
    assert pruned(eager)["journal"].items > 0
    with site.journal() as journal:
        assert journal.outcomes(site.task.name).equals(outcomes)


def _another_version(site, tmp_path: Path, made: int) -> pointer.ModelVersion:
    """Register one more model, as if it had been trained so many days later."""
    current = pointer.published(site.settings, site.task)
    one = replace(bundle.load(current.folder), version="", created_at=site.now + made * DAY)
    folder = bundle.save(one, tmp_path / f"bundle-{made}")
    return registry.log_training(site.settings, site.task, one, folder)


def test_superseded_models_go_and_champion_challenger_and_the_one_to_go_back_to_stay(site, tmp_path: Path) -> None:
    settings, task = site.settings, site.task
    extra = [_another_version(site, tmp_path, made) for made in range(1, 6)]  # versions 2 … 6
    publishing.promote(
        settings, task, extra[1], tmp_path / "bundle-2", site.now + 2 * DAY, "Better.", "ann"
    )  # version 3
    publishing.promote(
        settings, task, extra[2], tmp_path / "bundle-3", site.now + 3 * DAY, "Better.", "ann"
    )  # version 4
    registry.set_alias(settings, task, "challenger", extra[3])  # version 5
    site.now += timedelta(days=100)
    lasting = kept_for(site, models=30)
    assert pruned(lasting, dry_run=True)["models"].items == 2
    assert pruned(lasting)["models"].items == 2
    assert sorted(one.version for one in registry.versions(settings, task)) == ["3", "4", "5", "6"]
    left = {path.name.partition("-")[0] for path in (site.folder / "models").iterdir() if path.is_dir()}
    assert left == {"3", "4", "audit"}
    for one in extra[1:]:
        assert bundle.load(registry.download(settings, one, tmp_path / f"back-{one.version}"))
    assert pruned(lasting)["models"].items == 0
    assert bundle.load(pointer.published(settings, task).folder)


def test_two_prunes_at_once_end_as_one(site) -> None:
    site.pass_hours(4)
    site.now += timedelta(days=100)
    age(site.folder)
    hasty = kept_for(site, archive=1, runs=1, journal=1)
    expected = sum(one.items for one in pruned(hasty, dry_run=True).values())
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(sum(one.items for one in pruned(hasty).values())))
        for _ in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(found) == [0, 0, expected]


def test_quarantined_batches_go_by_age_and_keep_their_answers_until_then(site) -> None:
    site.pass_hours(1)
    site.source.fault = "nulls"
    site.now += timedelta(hours=1)
    site.fail()
    site.source.fault = None
    (batch,) = (site.folder / "quarantine").iterdir()
    (answer,) = json.loads((batch / "batch.json").read_bytes())["archived"]
    site.now += timedelta(days=50)
    age(site.folder)
    pruned(kept_for(site, archive=10, quarantine=100))
    assert batch.exists() and Archive(site.folder / "archive").read(answer)
    pruned(kept_for(site, archive=10, quarantine=20))
    assert not batch.exists()
    assert answer not in {one.name for one in Archive(site.folder / "archive").notes()}


def test_the_archive_in_a_bucket_is_pruned_as_one_in_a_folder_is(site, tmp_path: Path, monkeypatch) -> None:
    site.source.fault = "html"
    site.now += timedelta(hours=1)
    site.fail()  # refused answers bring nothing and may go
    site.source.fault = None
    site.pass_hours(1)
    site.now += timedelta(days=100)
    there = MemoryStore()
    monkeypatch.setitem(store._LIBRARY, "s3", lambda *_: there)
    hasty = kept_for(site, archive=1)
    apart = replace(hasty, settings=hasty.settings.model_copy(update={"stores": "s3://bucket/p"}))
    for kind in ("history", "archive"):
        put_in(task_stores(apart.settings, site.task.name) / kind, site.folder / kind)
    monkeypatch.setattr(Bucket, "clock", lambda self: Folder(tmp_path).clock() + 2 * GRACE.total_seconds())
    age(site.folder)
    on_folder, in_bucket = (pruned(one)["archive"] for one in (hasty, apart))
    assert in_bucket == on_folder and in_bucket.items > 0 and in_bucket.needed > 0
    assert apart.archived() == hasty.archived()


@pytest.mark.parametrize("name", ["runs", "quarantine"])
def test_a_folder_half_gone_after_a_crash_is_out_of_sight_and_goes_with_the_next_prune(site, name: str) -> None:
    left = site.folder / name / ".pruned-0"
    left.mkdir(parents=True)
    (left / "batch.json").write_text("{", encoding="utf-8")
    site.pass_hours(1)
    pruned(kept_for(site, runs=30, archive=30))
    assert not left.exists()
