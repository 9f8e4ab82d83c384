"""DagsHub as it answers from outside: git, DVC storage and a real MLflow with passwords behind one address.

The front stands in for the host alone: what lies behind it is MLflow's own server with its basic authentication, git's
own protocol and a store for DVC's own client. An old front refuses what DagsHub's tracking server refuses.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import polars as pl
import pytest

from forecastle.data.versioning import version_table
from forecastle.frame import write_table
from forecastle.models import registry
from forecastle.settings import Settings, load_settings

TOKEN = "t0ken-that-nobody-may-see"
LOGIN = "Basic " + base64.b64encode(f"alice:{TOKEN}".encode()).decode()
OLD_REFUSES = re.compile(r"/(registered-models|model-versions|logged-models)/|^/version")
PASSED_ON = ("authorization", "content-type")


@dataclass
class Front:
    """One address for a repository's git, DVC store and MLflow; ``old`` and ``reading`` make it refuse."""

    git: str
    mlflow: str
    old: bool = False
    reading: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, str, bytes]:
        if headers["authorization"] != LOGIN:
            return 401, "text/plain", b"who are you?"
        place = re.match(r"/alice/weather\.(git|dvc|mlflow)(/.*)", path)
        if place is None:
            return 404, "text/plain", b"404 page not found"
        kind, rest = place.groups()
        if kind == "git":
            if self.reading and "git-receive-pack" in rest:
                return 403, "text/plain", b"you may only read"
            return _forward(method, self.git + rest, headers, body)
        if kind == "mlflow":
            if self.old and OLD_REFUSES.search(rest):
                return 404, "text/html", b"<!doctype html><title>404 Not Found</title>"
            return _forward(method, self.mlflow + rest, headers, body)
        if method in ("POST", "PUT"):
            if self.reading:
                return 403, "text/plain", b"you may only read"
            self.objects[rest] = body
            return 200, "text/plain", b""
        return (200, "text/plain", self.objects[rest]) if rest in self.objects else (404, "text/plain", b"")

    def start(self) -> None:
        front = self

        class Handler(BaseHTTPRequestHandler):
            def serve(self) -> None:
                status, kind, body = front.answer(self.command, self.path, self.headers, self.sent())
                self.send_response(status)
                if status == 401:
                    self.send_header("www-authenticate", "Basic")
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = serve

            def sent(self) -> bytes:
                if self.headers["transfer-encoding"] != "chunked":
                    return self.rfile.read(int(self.headers["content-length"] or 0))
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


def _forward(method: str, url: str, headers: Any, body: bytes) -> tuple[int, str, bytes]:
    passed = {name: headers[name] for name in PASSED_ON if headers[name]}
    sent = body if method not in ("GET", "HEAD") else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, sent, passed, method=method), timeout=60) as found:
            return found.status, found.headers["content-type"] or "", found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"] or "", error.read()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server, which asks for name and password itself where flask-wtf is there, as that needs it; where it
    is not, the front alone does."""
    folder = tmp_path_factory.mktemp("mlflow")
    port, database = _free_port(), f"sqlite:///{folder / 'mlflow.db'}"
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = alice\n"
        f"admin_password = {TOKEN}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--app-name", "basic-auth"] if find_spec("flask_wtf") else []
    command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", database, "--serve-artifacts"]
    told = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "output.log").open("wb") as output:
        server = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder / "artifacts")],
            env={**os.environ, **told},
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health", server)
        yield address
    finally:
        os.killpg(server.pid, 9)
        server.wait()


@pytest.fixture(scope="session")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty repository behind git's own protocol over HTTP."""
    from dulwich.repo import Repo
    from dulwich.server import DictBackend
    from dulwich.web import make_wsgi_chain

    bare = Repo.init_bare(str(tmp_path_factory.mktemp("bare.git")))
    with make_server("127.0.0.1", 0, make_wsgi_chain(DictBackend({"/": bare}))) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def hub(mlflow_server: str, git_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """The front, a working folder of its own, and the token in the environment; nothing else is set."""
    front = Front(git_server, mlflow_server)
    front.start()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("FORECASTLE_DAGSHUB_URL", front.address)
    monkeypatch.setenv("FORECASTLE_DAGSHUB_TOKEN", TOKEN)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "nobody")  # set anew by whatever asks MLflow, restored after the test
    yield front
    assert front.server is not None
    front.server.shutdown()
    front.server.server_close()


def connect(*more: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Run the command as a user does; return its code, everything it said, and its findings by what they are of."""
    command = [sys.executable, "-m", "forecastle", "connect", "dagshub", "alice/weather", "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    findings = {one["what"]: one for one in map(json.loads, done.stdout.splitlines())}
    return done.returncode, done.stdout + done.stderr, findings


def holding(folder: Path, *secrets: str) -> list[str]:
    """Return the files below a folder that hold one of the secrets."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    sought = [secret.encode() for secret in secrets]
    return [str(path.relative_to(folder)) for path in files if any(one in path.read_bytes() for one in sought)]


def trained(settings: Settings, task: Any, folder: Path) -> registry.ModelVersion:
    """Register something as a model: another for each folder, as MLflow's client remembers a run's address."""
    bundle = folder / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "model.json").write_text(json.dumps({"weights": [1], "of": str(folder)}))
    return registry.register(settings, task, bundle, {"alpha": 1}, {"rmse": 2.0})


def test_git_storage_and_tracking_are_written_down_and_work_and_the_token_is_nowhere(hub, task, tmp_path):
    code, said, found = connect()
    assert code == 0, said
    assert list(found) == ["git", "dvc", "mlflow", "files", "registry", "logged models"]
    assert all(one["works"] and not one["lacks"] for one in found.values())
    written = Path(".env").read_text()
    assert "FORECASTLE_DAGSHUB='alice/weather'" in written or "FORECASTLE_DAGSHUB=alice/weather" in written
    settings = load_settings()
    assert settings.tracking_uri == settings.registry_uri == f"{hub.address}/alice/weather.mlflow"
    version = trained(settings, task, tmp_path)
    assert registry.find(settings, task, version.version).run_id == version.run_id
    table = write_table(tmp_path / "table.parquet", pl.DataFrame({"x": range(1000)}))
    snapshot = version_table(settings, task, table, "run-1")
    assert any(snapshot.version[2:] in name for name in hub.objects)

    root = settings.versions
    push = ["git", "-C", str(root), "-c", f"http.extraHeader=Authorization: {LOGIN}", "push", "-q", "dagshub", "main"]
    subprocess.run(push, check=True, capture_output=True)
    (root / task.name / "training.parquet").unlink()
    shutil.rmtree(root / ".dvc" / "cache")
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=root, check=True, capture_output=True)
    assert (root / task.name / "training.parquet").read_bytes() == table.read_bytes(), "plain DVC logs in by itself"

    local = root / ".dvc" / "config.local"
    assert local.stat().st_mode & 0o777 == 0o600
    secrets = (TOKEN, LOGIN.removeprefix("Basic "))
    assert holding(tmp_path, *secrets) == [str(local.relative_to(tmp_path))]
    assert not any(secret in said for secret in secrets)
    ignored = subprocess.run(["git", "-C", str(root), "check-ignore", str(local)], capture_output=True)
    assert ignored.returncode == 0
    history = subprocess.run(["git", "-C", str(root), "log", "--all", "-p"], capture_output=True, check=True).stdout
    assert b"training.parquet" in history and not any(secret.encode() in history for secret in secrets)


def test_an_old_server_is_recognised_loudly_and_serves_runs_and_files_while_versions_are_kept_here(hub, task, tmp_path):
    hub.old = True
    code, said, found = connect()
    assert code == 0, said
    assert found["mlflow"]["works"] and found["files"]["works"] and not found["files"]["lacks"]
    assert found["registry"]["lacks"] and "NO MODEL REGISTRY" in found["registry"]["said"]
    assert found["logged models"]["lacks"] and "NO LOGGED MODELS" in found["logged models"]["said"]
    settings = load_settings()
    assert settings.registry_uri == settings.own_registry != settings.tracking_uri
    version = trained(settings, task, tmp_path)
    registry.set_alias(settings, task, "champion", version)
    assert registry.alias(settings, task, "champion").version == version.version
    got = registry.download(settings, version, tmp_path / "got")
    assert (got / "model.json").read_bytes() == (tmp_path / "bundle" / "model.json").read_bytes()
    assert (
        _forward(
            "GET",
            f"{hub.mlflow}/api/2.0/mlflow/runs/get?run_id={version.run_id}",
            {**_NONE, "authorization": LOGIN},
            b"",
        )[0]
        == 200
    )


def test_an_old_server_that_nobody_connected_is_named_with_what_to_do(hub, task, tmp_path):
    hub.old = True
    with pytest.raises(registry.RegistryUnavailable, match="FORECASTLE_MLFLOW_REGISTRY=sqlite") as refused:
        trained(Settings(home=tmp_path / "home", dagshub="alice/weather"), task, tmp_path)
    assert TOKEN not in str(refused.value)


def test_tables_may_lie_in_s3_while_git_and_tracking_are_at_dagshub(hub, s3_server, monkeypatch):
    for name, value in {
        "REMOTE": f"s3://{s3_server.bucket()}/tables",
        "ENDPOINT": s3_server.endpoint,
        "USER": s3_server.key,
        "SECRET": s3_server.secret,
    }.items():
        monkeypatch.setenv(f"FORECASTLE_DVC_{name}", value)
    code, said, found = connect()
    assert code == 0, said
    assert found["dvc"]["works"] and found["dvc"]["address"].startswith("s3://")
    assert hub.objects == {}
    secret = s3_server.secret
    assert secret not in said
    assert [Path(name).name for name in holding(Path.cwd(), secret, TOKEN)] == ["config.local"]


def test_a_token_that_may_only_read_is_told_so_of_each(hub):
    hub.reading = True
    code, said, found = connect()
    assert code == 2, said
    assert not found["git"]["works"] and not found["dvc"]["works"] and found["mlflow"]["works"]
    assert "403" in found["git"]["said"] and "403" in found["dvc"]["said"]
    assert TOKEN not in said


@pytest.mark.parametrize(("change", "expected"), [("token", "a token in"), ("address", "a repository at")])
def test_a_wrong_token_or_repository_is_told_and_nothing_is_written(hub, change, expected, monkeypatch):
    if change == "token":
        monkeypatch.setenv("FORECASTLE_DAGSHUB_TOKEN", "wr0ng-token")
    else:
        monkeypatch.setenv("FORECASTLE_DAGSHUB_URL", f"{hub.address}/elsewhere")
    code, said, found = connect()
    assert code == 2 and found == {} and expected in said
    assert TOKEN not in said and "wr0ng-token" not in said
    assert list(Path.cwd().iterdir()) == []


_NONE = dict.fromkeys(PASSED_ON)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    started = datetime.now(UTC)
    while (datetime.now(UTC) - started).total_seconds() < 120 and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            threading.Event().wait(0.5)
    pytest.fail("MLflow's server did not come up")
