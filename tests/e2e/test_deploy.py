"""A deployment by webhook is believed by what the service then says of itself.

Stood in for are Docker's answer about the image (a program that prints it), the service (a server that says what the
host runs) and whoever the webhook reaches; the whole way, with real containers, is in ``containers/test_delivery.py``.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Host:
    """A host that keeps what its webhook is sent, and a service that says a commit, after that perhaps another."""

    folder: Path
    commit: str | None = "old"
    then: str | None = None
    sent: list[str] = field(default_factory=list)
    url: str = ""

    def serve(self) -> ThreadingHTTPServer:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({"commit": host.commit, "tasks": [{"task": "small", "model_version": "1"}]})

            def do_POST(self) -> None:
                host.sent.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["image"])
                host.commit = host.then or host.commit
                self.answer({})

            def answer(self, told: dict[str, Any]) -> None:
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def deploy(self, *environment: str) -> tuple[int, str]:
        """Deploy weather:new, an image with this environment, with no patience at all."""
        config = json.dumps({"Env": ["PATH=/usr/bin", *environment], "Labels": {"forecastle.model-version": "1"}})
        docker = self.folder / "docker"
        docker.write_text(f"#!/bin/sh\necho '{config}'\n")
        docker.chmod(0o755)
        told = {"IMAGE": "weather", "COMMIT": "new", "TASK": "tasks/small.toml", "VERIFY_SECONDS": "0"}
        told |= {"DOCKER": str(docker), "DEPLOY_PREVIOUS": "weather:old 1", "PATH": "/usr/bin:/bin:/usr/local/bin"}
        told |= {"STAGING_URL": self.url, "DEPLOY_WEBHOOK": f"{self.url}/secret"}
        done = subprocess.run([ROOT / "tools" / "deploy"], env=told, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    server = made.serve()
    yield made
    server.shutdown()


@pytest.mark.parametrize("environment", [[], ["FORECASTLE_COMMIT=unknown"]])
def test_an_image_that_names_no_commit_is_not_sent_to_a_webhook(host: Host, environment: list[str]) -> None:
    code, said = host.deploy(*environment)
    assert code == 2 and host.sent == [], said
    assert "weather:new names no commit" in said and "make image" in said and "nothing was touched" in said


def test_an_image_of_another_commit_than_its_tag_is_not_deployed(host: Host) -> None:
    code, said = host.deploy("FORECASTLE_COMMIT=older")
    assert code == 2 and host.sent == [] and "weather:new is of commit older" in said, said


@pytest.mark.parametrize("commit", [None, "unknown", "old"])
def test_a_service_that_does_not_say_the_new_commit_is_not_the_new_one(host: Host, commit: str | None) -> None:
    host.commit = commit
    code, said = host.deploy("FORECASTLE_COMMIT=new")
    assert code == 1 and host.sent == ["weather:new", "weather:old"], said
    assert f"is not weather:new (it tells {commit or 'no commit'})" in said and "Deployed" not in said


def test_a_service_that_still_says_the_new_commit_was_not_rolled_back(host: Host) -> None:
    host.commit, host.then = None, "new"
    code, said = host.deploy("FORECASTLE_COMMIT=new")
    assert code == 1 and host.sent == ["weather:new", "weather:old"], said
    assert "is not weather:old (it tells new)" in said and "NOT rolled back to weather:old" in said
