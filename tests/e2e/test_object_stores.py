"""Archive and history on a real S3 server and a real Azure emulator: as on a folder, whoever writes, dies or errs."""

from __future__ import annotations

import os
import random
import runpy
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle import pipeline
from forecastle.data import segments, store
from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.replay import load_nyc_weather, replay_app
from forecastle.data.store import Bucket, open_store, task_stores
from forecastle.errors import StorageUnavailable, UserError
from forecastle.http import Answer, asgi_transport
from forecastle.models import audit
from forecastle.models.audit import Event
from forecastle.models.pointer import ModelVersion, folder_digest, publish, published, withdraw
from forecastle.monitoring.journal import Journal
from forecastle.operations.backup import back_up
from forecastle.operations.restoring import restore
from forecastle.operations.retention import prune
from forecastle.settings import Settings
from forecastle.task import Task, load_task

BESIDE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("test_interruptions.py"))))
HOUR = timedelta(hours=1)
START: datetime = BESIDE.START
COLUMNS = ("y", "x")
FILE_TASK = """
name = "file"
domain = "environmental"
frequency = "1h"
horizon = "3h"
target = "y"
source = { provider = "file", path = "table.csv" }
columns.y = {}
"""


@pytest.fixture(scope="module", params=["s3_server", "azure_server"])
def server(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def weather() -> pl.DataFrame:
    return load_nyc_weather()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "small.toml").write_text(BESIDE.TASK, encoding="utf-8")
    return load_task(tmp_path / "small.toml")


def test_a_task_on_an_object_store_ends_as_it_does_on_a_folder(server, task, weather, tmp_path) -> None:
    on_folder = _live(task, _settings(tmp_path / "plain"), weather)
    settings = _settings(tmp_path / "with-store", server, server.uri(server.bucket(), "deep/er"))
    on_store = _live(task, settings, weather)
    assert on_store == on_folder
    assert len(on_store["forecasts"]) == 12 and len(on_store["outcomes"]) == 6
    assert {path.name for path in settings.task_folder(task.name).iterdir()}.isdisjoint({"history", "archive"})
    there = task_stores(settings, task.name).list()
    assert sum(name.endswith(".parquet") for name in there) >= 4 and any("archive/bodies/" in name for name in there)


def test_a_backup_of_a_bucket_comes_back_in_another_bucket_and_prunes_there(server, task, weather, tmp_path) -> None:
    settings = _settings(tmp_path / "home", server, server.uri(server.bucket(), "deep/er"))
    _live(task, settings, weather)
    refused = Answer("http://source", 200, {}, b"<html>")
    Archive(task_stores(settings, task.name) / "archive").save(refused, START + HOUR / 2)  # brought nothing
    made = back_up(settings, tmp_path / "copy.tar.gz", START)
    assert made.elsewhere == {}
    back = _settings(tmp_path / "home-2", server, server.uri(server.bucket(), "p"))
    restore(back, made.path, START)
    assert _stored(task, back) == _stored(task, settings)
    with pytest.raises(UserError, match="nothing at"):
        restore(_settings(tmp_path / "home-3", server, back.stores), made.path, START)
    hasty = back.model_copy(update={"keep_archive": 1, "keep_runs": 0})
    (archive,) = prune(hasty, [task], START + 100 * 24 * HOUR)
    assert archive.items == 1 and archive.needed > 0  # what the history's rows came in stays
    assert _stored(task, back)["versions"] == _stored(task, settings)["versions"]


def test_a_model_that_is_published_to_an_object_store_is_served_by_another_machine(server, task, tmp_path) -> None:
    uri = server.uri(server.bucket(), "models")
    trainer, other = (_settings(tmp_path / name, server, uri) for name in ("trainer", "other"))
    folder = tmp_path / "bundle"
    (folder / "trees").mkdir(parents=True)
    assert published(other, task) is None
    for number in ("1", "2"):
        (folder / "model.json").write_text(number)
        (folder / "trees" / "spread.txt").write_text(f"tree {number}")
        here = publish(trainer, task, ModelVersion(task.name, number, f"run-{number}", "abc"), folder, START)
        there = published(other, task)
        assert there is not None and (there.version, there.digest) == (number, here.digest)
        assert folder_digest(there.folder) == folder_digest(folder)
        assert published(other, task) == there
        audit.record(trainer, task, Event(START, "ann", "promote", number, "", "Better."))
    assert [one.version for one in audit.events(other, task)] == ["1", "2"]
    withdraw(trainer, task, "1")
    left = {name.partition("/")[0] for name in (task_stores(trainer, task.name) / "models").list()}
    assert len(left) == 3 and {"champion.json", "audit"} < left


def test_two_collectors_at_once_leave_what_one_leaves(server, task, weather, tmp_path) -> None:
    uri = server.uri(server.bucket(), "shared")
    homes = [_settings(tmp_path / name, server, uri) for name in ("one", "two")]
    alone = _settings(tmp_path / "alone")
    _collect(task, alone, weather, START)
    faults: list[BaseException] = []

    def collect(settings: Settings) -> None:
        try:
            _collect(task, settings, weather, START)
        except BaseException as fault:  # raised again below
            faults.append(fault)

    threads = [threading.Thread(target=collect, args=(settings,)) for settings in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert _stored(task, homes[0]) == _stored(task, alone)


def test_writers_in_processes_of_their_own_lose_nothing_while_they_merge(server, tmp_path) -> None:
    uri = server.uri(server.bucket(), "race")
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_object_stores_rows import COLUMNS, History, open_store, rows, segments, settings_from_environment\n"
        "segments.MOST_BATCHES = 2\n"
        "history = History(open_store(sys.argv[1], settings_from_environment()), COLUMNS)\n"
        "for number in range(12): history.append(rows(10, seed=number, shift=12 * int(sys.argv[3])))\n"
    )
    (tmp_path / "test_object_stores_rows.py").write_text(
        f"import runpy\nglobals().update(runpy.run_path({str(Path(__file__))!r}))\n", encoding="utf-8"
    )
    environment = os.environ | _variables(server)
    started = [
        subprocess.Popen([sys.executable, "-c", program, uri, str(tmp_path), str(number)], env=environment)
        for number in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    expected = History(tmp_path / "expected", COLUMNS)
    for number in range(12):
        for shift in (0, 12):
            expected.append(rows(10, seed=number, shift=shift))
    there = History(open_store(uri, _settings(tmp_path, server)), COLUMNS)
    assert there.versions().equals(expected.versions())
    for hour in range(0, 40, 7):
        moment = T0 + hour * HOUR
        assert there.read(as_of=moment).equals(expected.read(as_of=moment))


def test_a_wrong_secret_and_a_missing_bucket_are_said_plainly_and_without_the_secret(server, task, tmp_path) -> None:
    uri = server.uri(server.bucket(), "p")
    wrong = "c2VjcmV0" * 8
    for there, secret, said in (
        (uri, wrong, "FORECASTLE_STORES_SECRET"),
        (server.uri("no-such-bucket", "p"), server.secret, "Create the bucket"),
    ):
        place = open_store(there, _settings(tmp_path, server, there, stores_secret=secret))
        answer = Answer("http://source", 200, {}, b"1")
        for action in (place.list, lambda p=place: p.put("a", b"1"), lambda p=place: Archive(p).save(answer, START)):
            with pytest.raises(StorageUnavailable, match=said) as caught:
                action()
            assert secret not in str(caught.value) and there.split("/p")[0] in str(caught.value)


def test_a_run_that_may_not_write_exits_with_4_and_tells_no_secret(server, tmp_path) -> None:
    wrong = "c2VjcmV0" * 8
    (tmp_path / "table.csv").write_text("series_id,timestamp,y\na,2024-01-01T00:00:00Z,1\n", encoding="utf-8")
    (tmp_path / "file.toml").write_text(FILE_TASK, encoding="utf-8")
    variables = _variables(server) | {
        "FORECASTLE_STORES": server.uri(server.bucket(), "p"),
        "FORECASTLE_STORES_SECRET": wrong,
    }
    program = [sys.executable, "-m", "forecastle", "ingest", "--task", str(tmp_path / "file.toml")]
    done = subprocess.run(
        program, env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "FORECASTLE_STORES_SECRET" in done.stderr and wrong not in done.stdout + done.stderr


def test_a_server_that_dies_in_the_middle_of_a_write_is_healed_by_the_next_append(
    server, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store.RETRY, "max_retries", 1)
    monkeypatch.setattr(segments, "MOST_BATCHES", 2)
    place = open_store(server.uri(server.bucket(), "dying"), _settings(tmp_path, server))
    there, undisturbed = History(place, COLUMNS), History(tmp_path / "undisturbed", COLUMNS)
    archive, moments = Archive(place / "archive"), random.Random(3)
    interrupted = 0
    for number in range(3):
        batch = rows(60_000, seed=number)  # several parts of an upload
        answer = Answer(f"http://source/{number}", 200, {}, random.Random(number).randbytes(12_000_000))
        undisturbed.append(batch)
        server.settle()
        began, real = threading.Event(), Bucket.put

        def put(self, name, content, began=began, real=real):
            began.set()
            real(self, name, content)

        def write(answer=answer, batch=batch) -> None:
            nonlocal interrupted
            try:
                archive.save(answer, T0)
                there.append(batch)
            except StorageUnavailable:
                interrupted += 1

        monkeypatch.setattr(Bucket, "put", put)
        writer = threading.Thread(target=write)
        writer.start()
        assert began.wait(30)
        time.sleep(moments.uniform(0, 0.05))
        server.kill()
        writer.join()
        monkeypatch.setattr(Bucket, "put", real)
        server.start()
        assert archive.read(archive.save(answer, T0)) == answer.body
        there.append(batch)
        assert there.versions().equals(undisturbed.versions())
    assert interrupted >= 2


T0 = datetime(2013, 1, 31, 12, tzinfo=UTC)


def rows(count: int, seed: int, shift: int = 0) -> pl.DataFrame:
    """Versions of the hours around a month's end; those of two seeds repeat, revise and overtake each other."""
    rng = np.random.default_rng(seed + shift)
    at = rng.integers(0, 24, count)
    collected = T0 + (seed + int(rng.integers(0, 8))) * HOUR
    table = pl.DataFrame({"series_id": rng.choice(["a", "b"], count) if count < 100 else _names(count), "hour": at})
    times = {"timestamp": pl.lit(T0) + pl.duration(hours="hour"), "available_at": pl.lit(collected)}
    values = {"y": pl.Series(rng.integers(0, 2, count) * 1.0), "x": pl.Series(rng.normal(size=count))}
    if count < 100:
        values["x"] = pl.Series(np.zeros(count))
    made = table.with_columns(**times, **values).with_columns(collected_at="available_at").drop("hour")
    return made.unique(["series_id", "timestamp"], keep="first", maintain_order=True)


def settings_from_environment() -> Settings:
    return Settings(_env_file=None)  # type: ignore[call-arg]


def _names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


def _settings(home: Path, server: Any = None, stores: str = "", **fields: Any) -> Settings:
    names = {"endpoint": "stores_endpoint", "key": "stores_key_id", "secret": "stores_secret"}
    given = {} if server is None else {setting: getattr(server, name) for name, setting in names.items()}
    region = getattr(server, "region", "")
    chosen = {"home": home, "stores": stores, "stores_region": region, "stores_allow_http": True, **given, **fields}
    return Settings(_env_file=None, **chosen)  # type: ignore[call-arg]


def _variables(server: Any) -> dict[str, str]:
    return {
        "FORECASTLE_STORES_ENDPOINT": server.endpoint,
        "FORECASTLE_STORES_KEY_ID": server.key,
        "FORECASTLE_STORES_SECRET": server.secret,
        "FORECASTLE_STORES_REGION": getattr(server, "region", ""),
        "FORECASTLE_STORES_ALLOW_HTTP": "true",
    }


def _collect(task: Task, settings: Settings, weather: pl.DataFrame, now: datetime) -> Path:
    """Run a training up to its profile; return the run's folder."""
    transport = asgi_transport(replay_app(weather, lambda: now))
    with pipeline.open_run(task, settings, "train", now, transport) as run:
        for step in pipeline.TRAIN[:4]:
            outcome = pipeline.run_step(run, step)
            assert outcome.error is None, outcome.error
        return run.folder


def _live(task: Task, settings: Settings, weather: pl.DataFrame) -> dict[str, Any]:
    """Collect, publish a champion, run three live hours; return what is there for good and what was known when."""
    folder = _collect(task, settings, weather, START)
    BESIDE._publish_persistence(SimpleNamespace(task=task, settings=settings), folder)
    for hour in range(1, 4):
        now = START + hour * HOUR
        with pipeline.open_run(task, settings, "live", now, asgi_transport(replay_app(weather, lambda: now))) as run:
            assert [one.error for one in pipeline.run_flow(run) if one.error] == []
    with Journal(settings.journal_url) as journal:
        told = {
            "forecasts": set(journal.forecasts(task.name).rows()),
            "outcomes": set(journal.outcomes(task.name).rows()),
        }
    return told | _stored(task, settings)


def _stored(task: Task, settings: Settings) -> dict[str, Any]:
    place = task_stores(settings, task.name)
    history = History(place / "history", tuple(task.columns))
    moments = [START + hour * HOUR for hour in range(-48, 4, 5)]
    names = [name for name in (place / "archive").list() if name.endswith(".json")]
    return {
        "versions": history.versions().rows(),
        "as_of": [history.read(as_of=moment).rows() for moment in moments],
        "answers": {name: Archive(place / "archive").read(name) for name in names},
    }
