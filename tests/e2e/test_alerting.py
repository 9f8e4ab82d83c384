"""Alarms with the real Prometheus and Alertmanager, by the files of this repository: what is pushed over its limit is
told to Slack, by e-mail and to the service, stands in the alert log, and is taken back when its cause has gone.

Of the files only what is local is changed: addresses, where secrets lie, and times, from minutes to seconds.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiosmtpd.controller import Controller

from forecastle.data import budget, profiling
from forecastle.data.derivation import open_history
from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel
from forecastle.http import Request
from forecastle.models import bundle, pointer
from forecastle.monitoring import alert_log, incidents, rendering
from forecastle.monitoring.dashboard import dashboard
from forecastle.monitoring.journal import OUTCOME, Journal
from forecastle.serving.server import running
from forecastle.serving.workbench import Workbench
from forecastle.settings import Settings
from forecastle.task import Task, load_tasks

ROOT = Path(__file__).parents[2]
MADE_UP = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "unit" / "serving" / "made_up.py")))
PROGRAMS = ("prometheus", "prometheus-alertmanager")
PATIENCE = 120  # seconds; the machine may be busy
HOUR = timedelta(hours=1)


@dataclass
class Scene:
    """The service, Prometheus, Alertmanager, and who is told."""

    settings: Settings
    task: Task
    service: str = ""
    prometheus: str = ""
    slack: list[dict[str, Any]] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    slow: float = 0.0

    def now(self) -> datetime:
        return MADE_UP.NOW + timedelta(seconds=time.monotonic() - self.begun)

    def predict(self, offset: float = 0.0) -> None:
        """Ask for forecasts of every series, from the made-up truth and so many degrees more."""
        last = MADE_UP.NOW.replace(minute=0)
        times = [last - (29 - number) * HOUR for number in range(30)]
        series = [
            {
                "series_id": name,
                "timestamps": [at.isoformat() for at in times],
                "values": {self.task.target: [MADE_UP.truth(name, at) + offset for at in times]},
            }
            for name in self.task.series_ids
        ]
        body = json.dumps({"series": series}).encode()
        address = f"{self.service}/v1/tasks/{self.task.name}/predict"
        headers = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as answer:
            assert answer.status == 200

    def query(self, expression: str) -> list[float]:
        """Return the finite values that Prometheus has for an expression now."""
        address = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        return [value for value in (float(one["value"][1]) for one in found) if math.isfinite(value)]

    def incidents(self, kind: str) -> list[dict[str, Any]]:
        with Journal(self.settings.journal_url) as journal:
            return [one for one in incidents.listing(journal) if one["kind"] == kind]

    def logged(self, kind: str) -> list[str]:
        path = alert_log.place(self.settings)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [one["event"] for one in map(json.loads, lines) if one["kind"] == kind]

    def told(self, kind: str, status: str) -> bool:
        """Tell whether Slack and the mailbox were told of a rule in this state."""
        slack = any(status in str(one).lower() and kind in str(one) for one in self.slack)
        return slack and any(f"[{status.upper()}" in mail and kind in mail for mail in self.mails)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if lacking := [name for name in PROGRAMS if shutil.which(name) is None]:
        reason = f"no {', '.join(lacking)}: tools/debian-package NAME NAME installs each from Debian's packages"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("alerting")
    (task,) = [one for one in load_tasks([ROOT / "tasks"]) if one.name == "nyc-temperature"]
    made = Scene(Settings(home=folder / "home", port=0, _env_file=None), task)  # type: ignore[call-arg]
    _fill(made)
    with pytest.MonkeyPatch.context() as patch:
        quick = Workbench.shortly

        def shortly(self: Workbench, *arguments: Any) -> Any:
            time.sleep(made.slow)
            return quick(self, *arguments)

        patch.setattr(Workbench, "shortly", shortly)
        with _slack(made) as slack, _mailbox(made) as smtp, running(made.settings, [task], made.now) as made.service:
            ports = _free_port(), _free_port()
            _configure(folder, made, slack, smtp, ports)
            with _program(
                folder, ports[1], "prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=am",
                f"--web.listen-address=127.0.0.1:{ports[1]}", "--cluster.listen-address=", "--log.level=warn",
            ), _program(
                folder, ports[0], "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
                f"--web.listen-address=127.0.0.1:{ports[0]}", "--log.level=warn",
            ):  # fmt: skip
                made.prometheus = f"http://127.0.0.1:{ports[0]}"
                yield made


def test_every_panel_and_every_rule_finds_data_while_the_service_is_at_work(scene: Scene) -> None:
    queries = {one.rule.name: one.number.replace("3h", "5s") for one in rendering.rendered([scene.task])}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            queries[f"{panel['title']} {target['refId']}"] = target["expr"].replace("$__rate_interval", "30s")
    (annotation,) = dashboard()["annotations"]["list"]
    queries["incidents"] = annotation["expr"]
    until = time.monotonic() + PATIENCE
    while queries and time.monotonic() < until:
        scene.predict()
        queries = {name: asked for name, asked in queries.items() if not scene.query(asked)}
        time.sleep(0.5)
    assert queries == {}


def test_drift_over_its_limit_is_told_to_everybody_and_taken_back_when_it_has_gone(scene: Scene) -> None:
    """Of the newest 500 predictions 60 are not as in training; then 510 are again."""
    for _ in range(20):
        scene.predict(offset=30.0)
    until(lambda: scene.told("data-drift", "firing") and scene.logged("data-drift") == ["opened"])
    (known,) = scene.incidents("data-drift")
    assert (known["task"], known["closed_at"]) == (scene.task.name, None)
    for _ in range(170):
        scene.predict()
    until(lambda: scene.told("data-drift", "resolved") and scene.logged("data-drift") == ["opened", "closed"])
    assert scene.incidents("data-drift")[0]["closed_at"] is not None


def test_slow_predictions_are_told_to_everybody_and_taken_back_when_they_are_quick_again(scene: Scene) -> None:
    scene.slow = 0.7
    until(
        lambda: scene.told("inference-slow", "firing") and scene.logged("inference-slow") == ["opened"], scene.predict
    )
    scene.slow = 0.0
    until(
        lambda: scene.told("inference-slow", "resolved") and scene.logged("inference-slow") == ["opened", "closed"],
        scene.predict,
    )


def until(done: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "it did not come in time"
        meanwhile()
        time.sleep(0.3)


def _fill(scene: Scene) -> None:
    """Leave what live passes, trainings and collections leave, and a champion that knows what it was trained on."""
    settings, task, now = scene.settings, scene.task, MADE_UP.NOW
    origin = now.replace(minute=0)
    start = origin - timedelta(days=4)
    MADE_UP.append(settings, task, MADE_UP.observations(task, start, origin))
    MADE_UP.publish_champion(settings, task)
    known = pointer.published(settings, task)
    assert known is not None
    champion = bundle.load(known.folder)
    panel = build_panel(
        open_history(task, settings.task_folder(task.name) / "history").versions(), task, None, champion.recipe.columns
    )
    examples = make_examples(champion.recipe, panel, np.arange(panel.size))
    reference = profiling.reference(examples.origin_names, examples.origin).to_dict()
    version = pointer.ModelVersion(task.name, "4", "run-4", MADE_UP.DATA_VERSION)
    folder = bundle.save(replace(champion, version="4", reference=reference), settings.home / "made")
    pointer.publish(settings, task, version, folder, now)
    with Journal(settings.journal_url) as journal:
        journal.record(MADE_UP.forecasts(task, start, origin, "4"))
        due = journal.due(task.name, now)
        actual = [MADE_UP.truth(*key) for key in due.select("series_id", "timestamp").iter_rows()]
        scored = due.with_columns(actual=np.array(actual), scored_at=now).cast({"scored_at": OUTCOME["scored_at"]})
        journal.score(scored.select(list(OUTCOME)))
        for work in ("gate:pass", "trained:promoted", "state:concept-drift", "watch"):
            journal.beat(task.name, work, now)
        journal.beat(task.name, "state:stored", now, json.dumps({"archive": 1, "history": 2}))
        journal.open_incident(task.name, "series-withheld", "An open one.", now)
    guard = budget.BudgetGuard.of(task, settings, lambda: now)
    asked = {"hourly": task.target, "latitude": "40.6", "past_days": "2", "forecast_days": "1"}
    guard.charge(Request(f"{settings.open_meteo_url}/v1/forecast", asked))


def _configure(folder: Path, scene: Scene, slack: str, smtp: int, ports: tuple[int, int]) -> None:
    """Write the repository's files with local addresses, and seconds for minutes."""
    (folder / "slack_url").write_text(slack, encoding="utf-8")
    given = ROOT / "monitoring" / "prometheus"
    service = urllib.parse.urlsplit(scene.service).netloc
    changes = {
        "localhost:8000": service,
        "localhost:9093": f"127.0.0.1:{ports[1]}",
        "localhost:25": f"127.0.0.1:{smtp}",
        "/etc/alertmanager/secrets/slack_url": str(folder / "slack_url"),
        "interval: 15s": "interval: 1s",
        "group_wait: 10s": "group_wait: 0s",
        "group_interval: 1m": "group_interval: 1s",
        "for: 5m": "for: 1s",
        "[5m]": "[8s]",
    }
    for name in ("prometheus.yml", "rules.yml", "alertmanager.yml"):
        text = (given / name).read_text(encoding="utf-8")
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")


class _slack:
    """A Slack-format web hook on loopback; gives its address."""

    def __init__(self, scene: Scene) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                scene.slack.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/services/T/B/X"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _mailbox:
    """A real SMTP server on loopback; gives its port."""

    def __init__(self, scene: Scene) -> None:
        class Box:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                scene.mails.append(envelope.content.decode("utf-8", "replace"))
                return "250 OK"

        self.controller = Controller(Box(), hostname="127.0.0.1", port=_free_port())

    def __enter__(self) -> int:
        self.controller.start()
        return int(self.controller.port)

    def __exit__(self, *_: object) -> None:
        self.controller.stop()


class _program:
    """A program in a process group of its own, ready when it says so."""

    def __init__(self, folder: Path, port: int, *call: str) -> None:
        self.folder, self.port, self.call = folder, port, call

    def __enter__(self) -> None:
        log = (self.folder / f"{self.call[0]}.log").open("w")
        self.process = subprocess.Popen(self.call, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        until(self._is_ready)

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / f"{self.call[0]}.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
