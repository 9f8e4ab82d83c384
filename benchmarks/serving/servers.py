"""The servers under test: each in a process group of its own, one worker, on a free port of loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

START_SECONDS = 180.0
HELLO = """
import sys
import uvicorn
from fastapi import FastAPI

app = FastAPI()

@app.get("/")
async def hello():
    return {"message": "Hello World"}

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""
SERVE = """
import gc
gc.disable()  # as the command does
import sys
from forecastle.serving.server import serve_forever
from forecastle.settings import Settings
from benchmarks.serving.stage import task

home, port, *names = sys.argv[1:]
serve_forever(Settings(home=home, port=int(port), _env_file=None), [task(name) for name in names], print)
"""


@dataclass(frozen=True)
class Server:
    """A server that answers, its process, and how many seconds it took to its first 200, of them computing."""

    address: str
    process: psutil.Process
    started_in: float
    computed: float = 0.0

    def cpu_seconds(self) -> float:
        """Return what the server and its children have cost the processor so far."""
        total = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
        return total

    def own_mib(self) -> float:
        """Return the memory that is the server's alone, whoever else on the machine maps the same libraries."""
        infos = [one.memory_info() for one in (self.process, *self.process.children(recursive=True))]
        return sum(info.rss - info.shared for info in infos) / 2**20

    def mib(self) -> float:
        """Return the resident memory of the server and its children, shared pages counted once (PSS)."""
        every = (self.process, *self.process.children(recursive=True))
        return sum(one.memory_full_info().pss for one in every) / 2**20


@contextmanager
def hello() -> Iterator[Server]:
    """Serve FastAPI's hello world."""
    with _running(lambda port: [sys.executable, "-c", HELLO, str(port)], "/") as server:
        yield server


@contextmanager
def forecastle(home: Path, *names: str) -> Iterator[Server]:
    """Serve forecastle's tasks."""
    with _running(lambda port: [sys.executable, "-c", SERVE, str(home), str(port), *names], "/ready") as server:
        yield server


@contextmanager
def mlflow(model: Path) -> Iterator[Server]:
    """Serve MLflow's model."""
    program = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "--env-manager", "local"]
    with _running(
        lambda port: [
            *program,
            "--workers",
            "1",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--model-uri",
            str(model),
        ],
        "/ping",
    ) as server:
        yield server


@contextmanager
def _running(command: Callable[[int], list[str]], path: str) -> Iterator[Server]:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    address, began = f"http://127.0.0.1:{port}", time.monotonic()
    beside = str(Path(sys.executable).parent)  # mlflow starts uvicorn by its name
    said = tempfile.TemporaryFile()  # not a pipe: nobody reads it, and a server that logs much would wait for ever
    process = subprocess.Popen(
        command(port),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=said,
        env={**os.environ, "PATH": os.pathsep.join([beside, os.environ.get("PATH", "")])},
    )
    try:
        while not _answers(address + path):
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                process.kill()
                said.seek(0)
                raise RuntimeError(f"the server did not come up: {said.read().decode(errors='replace')[-2000:]}")
            time.sleep(0.01)
        found = Server(address, psutil.Process(process.pid), time.monotonic() - began)
        yield replace(found, computed=found.cpu_seconds())
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
