"""Versioned tables on the stores people have: plain DVC gets the same bytes back, and a push that fails says so."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecastle.data.versioning import record, version_table
from forecastle.errors import StorageUnavailable
from forecastle.frame import write_table
from forecastle.settings import Settings

TOKEN = "t0ken-that-nobody-may-see"


@dataclass
class HttpStore:
    """An HTTP store that asks for name and password, as DagsHub's DVC remote does."""

    objects: dict[str, bytes] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}"

    def start(self) -> None:
        expected = "Basic " + base64.b64encode(f"alice:{TOKEN}".encode()).decode()
        objects = self.objects

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def serve(self) -> None:
                sent = self.body() if self.command in ("POST", "PUT") else None
                if self.headers["authorization"] != expected:
                    self.answer(401)
                elif sent is not None:
                    objects[self.path] = sent
                    self.answer(200)
                elif self.path in objects:
                    self.answer(200, objects[self.path])
                else:
                    self.answer(404)

            do_HEAD = do_GET = do_POST = do_PUT = serve

            def body(self) -> bytes:
                if self.headers["transfer-encoding"] != "chunked":
                    return self.rfile.read(int(self.headers["content-length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


@dataclass
class Place:
    """Where to push: the settings that say so, the setting that is secret, and what whoever pulls tells DVC."""

    settings: dict[str, Any]
    secret: str
    pull: dict[str, str]


@pytest.fixture
def http_store() -> Iterator[HttpStore]:
    store = HttpStore()
    store.start()
    yield store
    store.stop()


@pytest.fixture(params=["s3", "azure", "http", "dagshub"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        where = {"dvc_remote": f"s3://{server.bucket()}/tables", "dvc_endpoint": server.endpoint}
        login = {"access_key_id": server.key, "secret_access_key": server.secret}
        return Place(where | {"dvc_user": server.key, "dvc_secret": server.secret}, "dvc_secret", login)
    if request.param == "azure":
        server = request.getfixturevalue("azure_server")
        where = {"dvc_remote": server.uri(server.bucket(), "tables"), "dvc_secret": server.connection_string}
        return Place(where, "dvc_secret", {"connection_string": server.connection_string})
    address = request.getfixturevalue("http_store").address
    login = {"user": "alice", "password": TOKEN}
    if request.param == "http":
        where = {"dvc_remote": f"{address}/store", "dvc_user": "alice", "dvc_secret": TOKEN}
        return Place(where, "dvc_secret", login)
    where = {"dagshub": "alice/weather", "dagshub_url": address, "dagshub_token": TOKEN}
    return Place(where, "dagshub_token", login)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.parquet", pl.DataFrame({"x": range(50_000)}))


def dvc(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plain_dvc_pull_in_a_fresh_clone_gives_the_same_bytes(task, tmp_path, table, place):
    settings = Settings(home=tmp_path / "home", **place.settings)
    snapshot = version_table(settings, task, table, "run-1")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(settings.versions), str(clone)], check=True)
    for option, value in place.pull.items():
        dvc(clone, "remote", "modify", "--local", "store", option, value)
    dvc(clone, "pull", "-q")
    assert (clone / task.name / "training.parquet").read_bytes() == table.read_bytes()
    assert version_table(settings, task, table, "run-2") == snapshot


def test_no_file_of_the_workspace_holds_the_secret(task, tmp_path, table, place):
    settings = Settings(home=tmp_path / "home", **place.settings)
    version_table(settings, task, table, "run-1")
    secret = place.settings[place.secret].encode()
    files = [path for path in settings.home.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if secret in path.read_bytes()] == []
    tree = subprocess.run(["git", "-C", str(settings.versions), "log", "-p"], check=True, capture_output=True).stdout
    assert b"training.parquet" in tree and secret not in tree


def test_a_wrong_secret_fails_the_push_and_is_not_shown_and_nothing_is_recorded(task, tmp_path, table, place, capfd):
    right = place.settings[place.secret]
    swapped = right.replace("AccountKey=", "AccountKey=abcd") if "AccountKey" in right else "wr0ng-secret"
    wrong = Settings(home=tmp_path / "home", **place.settings | {place.secret: swapped})
    with pytest.raises(StorageUnavailable, match="training table to be pushed") as failed:
        version_table(wrong, task, table, "run-1")
    assert swapped not in str(failed.value) and right not in str(failed.value)
    assert capfd.readouterr() == ("", "")
    assert re.search("forbidden|unauthori[sz]ed|authenticat|40[13]", failed.value.found, re.IGNORECASE)
    assert list(wrong.versions.glob("*/versions/*")) == []
    settings = Settings(home=tmp_path / "home", **place.settings)
    assert version_table(settings, task, table, "run-2").rows == 50_000
    assert subprocess.run(
        ["git", "-C", str(settings.versions), "log", "--format=%s", "-1"], check=True, capture_output=True, text=True
    ).stdout.endswith("rows of run run-2\n")


@pytest.mark.parametrize("kind", ["s3", "http"])  # Azure's client tries for 80 seconds before it says the same
def test_a_server_that_is_gone_fails_the_push_soon_and_says_so(task, tmp_path, table, kind, free_address):
    host = free_address.removeprefix("http://")
    where = {
        "s3": {"dvc_remote": "s3://bucket/x", "dvc_endpoint": free_address, "dvc_user": "a", "dvc_secret": "secret"},
        "http": {"dvc_remote": f"{free_address}/x", "dvc_user": "a", "dvc_secret": "secret"},
    }[kind]
    settings = Settings(home=tmp_path / "home", **where)
    with pytest.raises(StorageUnavailable, match="training table to be pushed") as failed:
        version_table(settings, task, table, "run-1")
    assert host.partition(":")[2] in failed.value.found or "onnect" in failed.value.found
    assert list(settings.versions.glob("*/versions/*")) == []


def test_a_server_that_comes_back_takes_the_next_push(task, tmp_path, table, http_store):
    settings = Settings(
        home=tmp_path / "home", dagshub="alice/weather", dagshub_url=http_store.address, dagshub_token=TOKEN
    )
    http_store.stop()
    with pytest.raises(StorageUnavailable):
        version_table(settings, task, table, "run-1")
    http_store.start()
    again = settings.model_copy(update={"dagshub_url": http_store.address})
    snapshot = version_table(again, task, table, "run-1")
    assert record(again, task, snapshot.version).remote == f"{http_store.address}/alice/weather.dvc"
    assert [name for name in http_store.objects if name.endswith(snapshot.version[2:])] != []


def test_without_git_plain_dvc_pull_still_gives_the_bytes(task, tmp_path, table, place):
    settings = Settings(home=tmp_path / "home", git=False, **place.settings)
    version_table(settings, task, table, "run-1")
    copy = tmp_path / "copy"
    for name in (".dvc/config", f"{task.name}/training.parquet.dvc"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((settings.versions / name).read_bytes())
    for option, value in place.pull.items():
        dvc(copy, "remote", "modify", "--local", "store", option, value)
    dvc(copy, "pull", "-q")
    assert (copy / task.name / "training.parquet").read_bytes() == table.read_bytes()


@pytest.fixture
def free_address() -> Iterator[str]:
    """An address at which nobody listens, held so that nobody else will."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
