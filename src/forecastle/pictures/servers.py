"""What is started to be photographed, on free ports of this machine alone, each stopped by its own process id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from forecastle.errors import StorageUnavailable
from forecastle.reporting.scene import Scene
from forecastle.serving.server import running
from forecastle.settings import environment

PATIENCE = 120.0  # seconds a server may take to come up on a busy machine
NOTE = "The clock of this service stands still: it shows what was served at the moment the report stands for."


class Stage:
    """What the pictures show: started when it is first asked for, and all of it stopped at the end.

    ``late`` is how much later than the report's moment the service's clock stands, which is how an alarm is staged:
    a source that has been silent for so long.
    """

    def __init__(self, scene: Scene, scratch: Path) -> None:
        self.scene, self.scratch = scene, scratch
        self.late = timedelta(0)
        self.received: list[dict[str, Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def now(self) -> datetime:
        """Return the moment the service stands for."""
        return self.scene.now + self.late

    @property
    def folder(self) -> Path:
        """Where commands are run: the clone, or where this process runs."""
        return self.scene.repository or Path.cwd()

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of commands that may write: a home of their own, plain output."""
        own = {"FORECASTLE_HOME": str(self.scratch / "home"), "FORECASTLE_PROFILE": "plain", "NO_COLOR": "1"}
        path = f"{Path(sys.executable).parent}:{environment({}).get('PATH', '')}"
        return environment({**own, "PATH": path, "COLUMNS": "118"})

    @cached_property
    def reading(self) -> dict[str, str]:
        """The environment of commands that only read: the home the report is about."""
        return {**self.environment, "FORECASTLE_HOME": str(self.scene.settings.home.resolve())}

    @cached_property
    def hide(self) -> dict[str, str]:
        """Places of this machine, and what is shown of them."""
        home = self.scene.settings.home
        hidden = {str(self.scratch / "home"): "data", str(home.resolve()): "data", str(self.scratch): "scratch"}
        hidden |= {str(home): "data"} if len(str(home)) > len("data") else {}
        if self.scene.repository:
            hidden[f"{self.scene.repository}/"] = ""
            hidden[str(self.scene.repository)] = "."
        return hidden

    def told(self, rule: str) -> dict[str, Any] | None:
        """Return the first notification about a rule that the receiver was sent."""
        return next(
            (one for one in self.received if any(alert["labels"].get("rule") == rule for alert in one["alerts"])), None
        )

    @cached_property
    def service(self) -> str:
        """The address of the service, by a clock that stands at the report's moment."""
        settings = self.scene.settings.model_copy(update={"host": "127.0.0.1", "port": 0})
        return self._stack.enter_context(running(settings, [self.scene.task], self.now, NOTE, beats=False))

    @cached_property
    def mlflow(self) -> str:
        """The address of MLflow's pages: the server of the settings, or one started on their database."""
        uri = self.scene.settings.tracking_uri
        if uri.startswith("http"):
            return uri
        port = free_port()
        quiet = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", uri]
        return self._start("mlflow", command, f"http://127.0.0.1:{port}", "/health", quiet)

    @cached_property
    def alertmanager(self) -> str:
        """The address of an Alertmanager that tells a receiver of ours alone."""
        program = _program("prometheus-alertmanager", "alertmanager")
        port, receiver = free_port(), self._stack.enter_context(receiving(self.received))
        config = self.scratch / "alertmanager.yml"
        config.write_text(ALERTMANAGER.format(receiver=receiver), encoding="utf-8")
        own = ["--web.listen-address", f"127.0.0.1:{port}", "--cluster.listen-address="]
        address = f"http://127.0.0.1:{port}"
        own += ["--log.level=warn", "--web.external-url", address]
        command = [program, f"--config.file={config}", f"--storage.path={self.scratch / 'alertmanager'}", *own]
        return self._start("alertmanager", command, address, "/-/ready")

    @cached_property
    def prometheus(self) -> str:
        """The address of a Prometheus that scrapes the service every second, by the task's own rules."""
        from forecastle.monitoring import rendering

        program = _program("prometheus", "prometheus")
        port, target = free_port(), self.service.removeprefix("http://")
        (self.scratch / "rules.yml").write_text(rendering.render([self.scene.task])["prometheus/rules.yml"], "utf-8")
        alerts = self.alertmanager.removeprefix("http://")
        config = PROMETHEUS.format(alertmanager=alerts, target=target)
        (self.scratch / "prometheus.yml").write_text(config, encoding="utf-8")
        address = f"http://127.0.0.1:{port}"
        own = [f"--web.listen-address=127.0.0.1:{port}", f"--web.external-url={address}/", "--storage.tsdb.path=tsdb"]
        command = [program, "--config.file=prometheus.yml", *own, "--log.level=warn"]
        return self._start("prometheus", command, address, "/-/ready")

    def _start(
        self, name: str, command: Sequence[str], address: str, probe: str, more: Mapping[str, str] | None = None
    ) -> str:
        ends_with_us = (
            ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        )  # told to leave, we do at once
        log = self.scratch / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*ends_with_us, *command],
                stdout=output,
                stderr=output,
                cwd=self.scratch,
                env=environment(more or {}),
                start_new_session=True,
            )
        self._stack.callback(_stop, process)
        if not until(lambda: process.poll() is not None or answers(f"{address}{probe}")) or process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise StorageUnavailable(f"{name} to come up", said[-1], "Start it by hand to see why.")
        return address


@contextmanager
def receiving(received: list[dict[str, Any]]) -> Iterator[str]:
    """Listen for webhooks and keep what they bring; give the address."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            received.append(json.loads(self.rfile.read(length) or b"{}"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Wait until something is so; tell whether it came to be."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def answers(address: str) -> bool:
    """Tell whether somebody answers there, and not that he is not ready yet."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise StorageUnavailable(f"the program {names[0]}", "it is not installed", f"apt-get install {names[0]}")
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


PROMETHEUS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["rules.yml"]
alerting: {{ alertmanagers: [ {{ static_configs: [ {{ targets: ["{alertmanager}"] }} ] }} ] }}
scrape_configs: [ {{ job_name: forecastle, static_configs: [ {{ targets: ["{target}"] }} ] }} ]
"""
ALERTMANAGER = """
route: {{ receiver: people, group_by: [alertname, task], group_wait: 0s, group_interval: 1s, repeat_interval: 1h }}
receivers: [ {{ name: people, webhook_configs: [ {{ url: "{receiver}", send_resolved: true }} ] }} ]
"""
