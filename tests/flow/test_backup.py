"""A backup taken beside live runs, restored into an empty home: forecasts, scores, models and the next run come out."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from obstore.store import MemoryStore

from forecastle.data import formats, store
from forecastle.data.archive import Archive
from forecastle.data.budget import open_ledger
from forecastle.data.store import Bucket, open_store, task_stores
from forecastle.errors import FormatError, StorageUnavailable, UserError
from forecastle.models import bundle, pointer, registry
from forecastle.operations import backup as backups
from forecastle.operations import buckets
from forecastle.operations.backup import back_up
from forecastle.operations.buckets import put_in
from forecastle.operations.restoring import restore
from forecastle.serving.app import create_app
from forecastle.settings import Settings

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(site, home: Path):
    """Return the site with another home."""
    return replace(site, settings=site.settings.model_copy(update={"home": home}))


def answers(site) -> list[object]:
    """Return what the service says of the site's forecasts and scores."""
    client = TestClient(create_app(site.settings, [site.task], lambda: site.now), base_url="http://127.0.0.1")
    paths = ("", "/forecasts", "/scores")
    return [client.get(f"/v1/tasks/{site.task.name}{path}").json() for path in paths]


@pytest.fixture(params=["copy", "copy.tar.gz"])
def name(request) -> str:
    return str(request.param)


def test_what_comes_out_of_a_restore_is_what_went_in(site, tmp_path: Path, name: str) -> None:
    site.pass_hours(6)
    made = back_up(site.settings, tmp_path / "backups" / name, WHEN)
    assert made.files > 20 and made.elsewhere == {}
    back = at(site, tmp_path / "elsewhere" / "home")
    said = restore(back.settings, made.path, WHEN)
    assert (said.files, said.bytes, said.made_at, said.aside) == (made.files, made.bytes, WHEN, None)
    assert back.state() == site.state()
    assert answers(back) == answers(site)
    first, second = (pointer.published(one.settings, one.task) for one in (site, back))
    assert (second.version, second.digest) == (first.version, first.digest)
    (known,) = registry.versions(back.settings, back.task)
    shutil.rmtree(site.settings.home)  # nothing restored may lean on where it came from
    assert bundle.load(registry.download(back.settings, known, tmp_path / "model"))
    archive = Archive(back.folder / "archive")
    assert all(archive.read(one.name) for one in archive.notes())
    after = back.pass_hours(2)
    assert after["score"]["scored"] > 0 and after["forecast"]["new"] > 0
    assert str(site.settings.home) not in str(sqlite_text(back.settings.home / "mlflow.db"))


def sqlite_text(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def test_training_goes_on_from_a_restored_home(site, tmp_path: Path) -> None:
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    back = at(site, tmp_path / "home-2")
    restore(back.settings, made.path, WHEN)
    shutil.rmtree(site.settings.home)
    config = (back.settings.versions / ".dvc" / "config").read_text(encoding="utf-8")
    assert f"url = {back.settings.remote}" in config
    back.now += timedelta(days=2)
    assert back.must_run("train")["train"]["model_version"] == "2"
    log = subprocess.run(
        [sys.executable, "-m", "dulwich", "log"], cwd=back.settings.versions, capture_output=True, text=True
    )
    assert log.stdout.count("rows of run train-") == 2


def test_a_backup_beside_live_runs_restores_to_whole_stores(site, tmp_path: Path) -> None:
    site.pass_hours(2)
    stop, passes = threading.Event(), []

    def go_on() -> None:
        while not stop.is_set():
            passes.append(site.pass_hours(1))

    running = threading.Thread(target=go_on)
    running.start()
    try:
        copies = []
        while len(copies) < 4 or len(passes) < 2:
            copies.append(back_up(site.settings, tmp_path / f"copy-{len(copies)}", WHEN))
    finally:
        stop.set()
        running.join()
    for number, made in enumerate(copies):
        back = at(site, tmp_path / f"home-{number}")
        restore(back.settings, made.path, WHEN)
        with back.journal() as journal:
            forecasts = journal.forecasts(back.task.name)
        versions = back.history.versions()
        assert forecasts["origin"].max() <= versions["timestamp"].max()  # what refers is never ahead
        archive = Archive(back.folder / "archive")
        collected = {note.collected_at for note in archive.notes() if archive.read(note.name)}
        assert set(versions["collected_at"]) <= collected
        back.now = site.now + timedelta(hours=1)
        back.must_run("live")
        with back.journal() as journal:
            assert journal.outcomes(back.task.name)["forecast_id"].is_unique().all()


def test_a_home_that_holds_something_is_left_alone_unless_forced_and_then_moved_aside(site, tmp_path: Path) -> None:
    site.pass_hours(1)
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    site.pass_hours(1)
    later = site.state()
    with pytest.raises(UserError, match="--force") as caught:
        restore(site.settings, made.path, WHEN)
    assert caught.value.exit_code == 2 and site.state() == later
    said = restore(site.settings, made.path, WHEN, force=True)
    assert said.aside is not None
    assert site.state() != later
    assert at(site, said.aside).state() == later


@pytest.mark.parametrize("harm", ["change", "drop", "manifest"])
def test_a_backup_that_is_not_whole_is_refused_before_anything_is_touched(site, tmp_path: Path, harm: str) -> None:
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    victim = next(path for path in sorted((made.path / "home").rglob("*.parquet")))
    if harm == "change":
        victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    elif harm == "drop":
        victim.unlink()
    else:
        (made.path / "backup.json").unlink()
    back = at(site, tmp_path / "home-2")
    with pytest.raises(UserError, match="whole backup|missing or differs"):
        restore(back.settings, made.path, WHEN)
    assert not any(back.settings.home.rglob("*")) if back.settings.home.exists() else True


def test_a_half_backup_is_never_taken_for_one(site, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "write_json", full)
    with pytest.raises(Exception, match="no space left on device"):
        back_up(site.settings, tmp_path / "backups" / "copy", WHEN)
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_restore_that_was_cut_short_is_not_used(site, tmp_path: Path) -> None:
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    back = at(site, tmp_path / "home-2")
    restore(back.settings, made.path, WHEN)
    (back.settings.home / "restoring.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FormatError, match="being restored"):
        back.run("live")
    with pytest.raises(UserError, match="--force"):
        restore(back.settings, made.path, WHEN)
    restore(back.settings, made.path, WHEN, force=True)
    assert back.pass_hours(1)["watch"]


def test_a_backup_of_a_newer_forecastle_is_refused(site, tmp_path: Path) -> None:
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    note = made.path / "backup.json"
    manifest = json.loads(note.read_text(encoding="utf-8"))
    note.write_text(json.dumps(manifest | {"format": 99, "forecastle": "7.0"}), encoding="utf-8")
    with pytest.raises(FormatError, match=r"Use forecastle 7\.0 or newer"):
        restore(at(site, tmp_path / "home-2").settings, made.path, WHEN)


def test_a_file_name_that_leads_out_of_the_home_is_refused(site, tmp_path: Path) -> None:
    made = back_up(site.settings, tmp_path / "copy", WHEN)
    note = made.path / "backup.json"
    manifest = json.loads(note.read_text(encoding="utf-8"))
    manifest["files"]["home/../../evil"] = {"bytes": 0, "sha256": ""}
    note.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UserError, match="evil"):
        restore(at(site, tmp_path / "home-2").settings, made.path, WHEN)


def test_backups_go_where_they_do_not_lie_beside_what_they_save(site, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside the home"):
        back_up(site.settings, site.settings.home / "copy", WHEN)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="already|does not exist|yet"):
        back_up(site.settings, tmp_path / "there", WHEN)


def test_stores_on_other_machines_are_named_with_what_to_do(site, tmp_path: Path) -> None:
    outside = site.settings.model_copy(
        update={"journal": "postgresql+psycopg://u:secret@db/journal", "dvc_remote": "s3://bucket/tables"}
    )
    made = back_up(outside, tmp_path / "copy", WHEN)
    assert "pg_dump" in made.elsewhere["journal.db"] and "dvc-remote" in made.elsewhere
    assert "secret" not in (made.path / "backup.json").read_text(encoding="utf-8")
    assert not (made.path / "journal.db").exists() and (made.path / "mlflow.db").exists()


def test_a_journal_and_a_remote_outside_the_home_are_backed_up_and_restored_to_where_the_settings_say(
    site, tmp_path: Path
) -> None:
    site.pass_hours(3)
    apart, home = tmp_path / "apart", site.settings.home
    apart.mkdir()
    shutil.move(home / "journal.db", apart / "j.db")
    shutil.move(home / "dvc-remote", apart / "remote")
    update = {"journal": f"sqlite:///{apart / 'j.db'}", "dvc_remote": str(apart / "remote")}
    site = replace(site, settings=site.settings.model_copy(update=update))
    made = back_up(site.settings, tmp_path / "copy.tar", WHEN)
    other = {"home": tmp_path / "h", "journal": f"sqlite:///{tmp_path / 'k.db'}", "dvc_remote": str(tmp_path / "r")}
    back = replace(site, settings=site.settings.model_copy(update=other))
    restore(back.settings, made.path, WHEN)
    assert back.state() == site.state()
    assert sorted(path.name for path in (tmp_path / "r").rglob("*")) == sorted(
        path.name for path in (apart / "remote").rglob("*")
    )


def with_stores(site, to: str):
    return replace(site, settings=site.settings.model_copy(update={"stores": to}))


@pytest.mark.parametrize("where", ["other", "home/apart"])
def test_history_and_archive_in_another_folder_are_backed_up_and_restored_to_where_the_settings_say(
    site, tmp_path: Path, where: str
) -> None:
    site.pass_hours(2)
    expected, before = site.state(), tmp_path / where
    for name in ("history", "archive"):
        (before / site.task.name).mkdir(parents=True, exist_ok=True)
        shutil.move(site.folder / name, before / site.task.name / name)
    apart = with_stores(site, str(before))
    made = back_up(apart.settings, tmp_path / "copy.tar", WHEN)
    assert made.elsewhere == {}
    back = with_stores(at(site, tmp_path / "home-2"), str(tmp_path / "stores-2"))
    (tmp_path / "stores-2").mkdir()  # as a mounted disk is there
    with pytest.raises(UserError, match="FORECASTLE_STORES to be a folder"):
        restore(at(site, tmp_path / "home-3").settings, made.path, WHEN)
    restore(back.settings, made.path, WHEN)
    assert sorted(one.name for one in back.folder.iterdir() if one.name in ("history", "archive")) == []
    for name in ("history", "archive"):
        shutil.copytree(tmp_path / "stores-2" / site.task.name / name, back.folder / name)
    assert back.state() == expected
    back.pass_hours(1)


@pytest.fixture
def in_bucket(site, monkeypatch: pytest.MonkeyPatch):
    """The site with history and archive in a bucket, two hours on; every other bucket is there too, and empty."""
    there: dict[str, MemoryStore] = {}
    monkeypatch.setitem(store._LIBRARY, "s3", lambda name, _: there.setdefault(name, MemoryStore()))
    apart = with_stores(site, "s3://first/deep/er")
    place = task_stores(apart.settings, site.task.name)
    for kind in ("history", "archive"):
        put_in(place / kind, site.folder / kind)
        shutil.rmtree(site.folder / kind)
    open_store("s3://first", apart.settings).put("deep/er/of-others.txt", b"")
    apart.pass_hours(2)
    return apart


@pytest.mark.parametrize(
    ("name", "to"), [("copy.tar", "s3://second/p"), ("copy", "s3://first/deep/er"), ("copy", "folder")]
)
def test_history_and_archive_in_a_bucket_are_backed_up_and_restored_to_a_bucket_or_folder(
    in_bucket, tmp_path: Path, name: str, to: str
) -> None:
    expected = in_bucket.state()
    made = back_up(in_bucket.settings, tmp_path / name, WHEN)
    assert made.elsewhere == {}
    shutil.rmtree(in_bucket.settings.home)
    for one in buckets.names(open_store("s3://first/deep/er", in_bucket.settings)):
        open_store("s3://first/deep/er", in_bucket.settings).delete(one)  # nothing restored may lean on the first
    back = with_stores(at(in_bucket, tmp_path / "home-2"), str(tmp_path / "stores-2") if to == "folder" else to)
    restore(back.settings, made.path, WHEN)
    assert back.state() == expected and expected["archive"]
    assert back.pass_hours(1)["score"]["scored"] > 0


def test_a_bucket_that_holds_something_is_left_alone_unless_forced_and_then_moved_aside(in_bucket, tmp_path) -> None:
    made = back_up(in_bucket.settings, tmp_path / "copy", WHEN)
    before = in_bucket.state()
    in_bucket.pass_hours(1)
    bucket = open_store("s3://first/deep/er", in_bucket.settings)
    later = {one: bucket.get([one]) for one in buckets.names(bucket)}
    back = at(in_bucket, tmp_path / "home-2")
    with pytest.raises(UserError, match="nothing at s3://first/deep/er yet"):
        restore(back.settings, made.path, WHEN)
    assert {one: bucket.get([one]) for one in buckets.names(bucket)} == later
    restore(back.settings, made.path, WHEN, force=True)
    assert back.state() == before
    aside = bucket / ".before-restore-20260102T030405Z"
    assert {one: aside.get([one]) for one in aside.list()} == later
    assert bucket.exists("of-others.txt")


def test_objects_that_a_merge_takes_away_while_they_are_copied_are_in_the_one_it_wrote(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Merging(Bucket):
        """Merges what it holds when it was listed for the first time."""

        def get(self, names):
            if self.exists("t/history/month"):
                return super().get(names)
            self.put("t/history/month", b"12")
            self.delete("t/history/batch-2")
            return super().get(names)

    bucket = Merging("memory://b", MemoryStore())
    for one in ("1", "2"):
        bucket.put(f"t/history/batch-{one}", one.encode())
    assert buckets.copy_out(bucket, "history", tmp_path) == ["t/history/batch-1", "t/history/month"]
    assert (tmp_path / "t" / "history" / "month").read_bytes() == b"12"


def test_a_bucket_that_does_not_answer_leaves_no_backup(in_bucket, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise StorageUnavailable("an answer from s3://first", "Connection refused", "Check that the server runs.")

    monkeypatch.setattr(Bucket, "get", refuse)
    with pytest.raises(StorageUnavailable, match="Connection refused"):
        back_up(in_bucket.settings, tmp_path / "backups" / "copy", WHEN)
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_home_without_any_store_is_no_backup(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(UserError, match="stores in .*home"):
        back_up(Settings(home=home, _env_file=None), tmp_path / "copy", WHEN)
    formats.open_home(home)
    with pytest.raises(UserError, match="stores in .*home"):
        back_up(Settings(home=home, _env_file=None), tmp_path / "copy", WHEN)
    assert not (tmp_path / "copy").exists()


def test_the_order_of_copying_leaves_no_claim_without_its_rows_and_no_row_without_its_admission(
    site, tmp_path: Path
) -> None:
    order: list[str] = []
    back_up(site.settings, tmp_path / "copy", WHEN, lambda store, _: order.append(store))
    wanted = ["collecting", *(f"{site.task.name}/{name}" for name in ("history", "admitted", "archive"))]
    assert [store for store in order if store in wanted] == wanted


def test_the_ledger_of_collecting_is_copied_with_what_its_journal_holds(site, tmp_path: Path) -> None:
    ledger = open_ledger(site.settings)
    with sqlite3.connect(site.settings.home / "collecting.db") as held:
        held.execute("PRAGMA journal_mode=WAL")
        held.execute("SELECT count(*) FROM sqlite_master").fetchone()  # an open reader keeps the journal
        ledger.cover(site.task.name, "all", WHEN - timedelta(days=1), WHEN)
        made = back_up(site.settings, tmp_path / "copy", WHEN)
    back = at(site, tmp_path / "home-2")
    restore(back.settings, made.path, WHEN)
    assert open_ledger(back.settings).stretches(site.task.name, "all") == ledger.stretches(site.task.name, "all")
    assert ledger.stretches(site.task.name, "all")
