"""The compose file, started for real: the API on PostgreSQL and S3, watched by Prometheus, with Alertmanager beside it.

Real are Compose, the API's image, and in images of their own PostgreSQL, Prometheus and Alertmanager of Debian's
packages and the program of SeaweedFS. The others cannot be had here (Grafana) or are large (Airflow, MLflow): they are
held by tests/consistency/test_compose.py alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.session import get_session

from forecastle.serving.server import listen

ROOT = Path(__file__).parents[3]
COMPOSE = Path(sys.executable).with_name("docker-compose")
STARTED = ("postgres", "s3", "api", "prometheus", "alertmanager")
NO_MLFLOW = {"FORECASTLE_MLFLOW_URI": "", "FORECASTLE_DVC_REMOTE": ""}
TASK = """
name = "small"
domain = "environmental"
frequency = "1h"
horizon = "3h"
target = "y"
source = { provider = "file", path = "small.csv" }
columns.y = {}
"""


class _Override(dict):  # type: ignore[type-arg]
    """A mapping that takes the place of the one it overrides."""


yaml.SafeDumper.add_representer(_Override, lambda dumper, data: dumper.represent_mapping("!override", data))


@dataclass
class System:
    """The system as compose started it."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int]

    def compose(self, *words: str) -> str:
        files = ("--file", "docker-compose.yml", "--file", "override.yml", "--profile", "full")
        done = subprocess.run(
            [COMPOSE, *files, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        command = [COMPOSE, "logs", "--tail", "30", "--no-color"]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        ).stdout

    def get(self, service: str, path: str) -> Any:
        key = (self.folder / "secrets" / "service_key").read_text().strip() if service == "api" else ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.ports[service]}{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)

    def s3(self) -> Any:
        """A client of the S3 store, by the key that make-secrets made."""
        return get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://127.0.0.1:{self.ports['s3']}",
            aws_access_key_id="forecastle",
            aws_secret_access_key=(self.folder / "secrets" / "forecastle_stores_secret").read_text().strip(),
        )

    def ask_postgres(self, question: str) -> str:
        words = ("exec", "--no-TTY", "postgres", "psql", "-h", "/tmp", "-U", "forecastle", "-Atc", question)
        return self.compose(*words).strip()


@pytest.fixture(scope="module")
def system(engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The API and what can be had of the rest, up and healthy."""
    base = "forecastle-base:bookworm"
    options = ["--network", "host", "--quiet", "--build-arg", f"PYTHON_IMAGE={base}"]
    services = tmp_path_factory.mktemp("images") / "services"
    shutil.copytree(Path(__file__).with_name("services"), services)
    shutil.copy2(COMPOSE.with_name("weed"), services)
    engine.docker("build", *options, "--tag", "services", str(services), seconds=900)
    engine.docker("build", *options, "--tag", "api", "--file", "docker/Dockerfile.api", ".", seconds=900)
    clone = tmp_path_factory.mktemp("clone")
    for name in ("docker", "tasks", "monitoring"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, clone / name, ignore=lambda _, names: {"secrets", ".env"} & set(names))
    (clone / "monitoring" / "prometheus").mkdir(parents=True, exist_ok=True)
    for task in (clone / "tasks").glob("*.toml"):
        if task.stem != "nyc-temperature":
            task.unlink()
    (clone / "tasks" / "small.toml").write_text(TASK, encoding="utf-8")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [f"a,{(now - hour * timedelta(hours=1)).isoformat()},{hour}" for hour in range(72)]
    (clone / "tasks" / "small.csv").write_text("\n".join(["series_id,timestamp,y", *rows]), encoding="utf-8")
    folder = clone / "docker"
    subprocess.run([folder / "make-secrets"], check=True, timeout=60)
    on_stores = _Override({name: {"condition": "service_healthy"} for name in ("postgres", "s3")})
    changed = {
        "postgres": {"entrypoint": ["start-postgres"]},
        "s3": {"entrypoint": ["weed"]},
        "api": {"depends_on": on_stores, "environment": NO_MLFLOW},
        "prometheus": {"entrypoint": ["prometheus"]},
        "alertmanager": {"entrypoint": ["alertmanager"]},
    }
    (folder / "override.yml").write_text(yaml.safe_dump({"services": changed}))
    ports = {}
    for service in STARTED:
        with listen("127.0.0.1", 0) as (_, address):
            ports[service] = int(address.rpartition(":")[2])
    images = {f"{name}_IMAGE": "services" for name in ("POSTGRES", "S3", "PROMETHEUS", "ALERTMANAGER")}
    told = {f"{name.upper()}_PORT": str(port) for name, port in ports.items()} | images | {"FORECASTLE_IMAGE": "api"}
    clean = {name: value for name, value in engine.environment.items() if not name.startswith(("COV", "COMPOSE"))}
    started = System(folder, clean | told, ports)
    try:
        started.compose("up", "--detach", "--wait", "--wait-timeout", "200", *STARTED)
        for bucket in ("mlflow", "forecastle"):  # as MLflow's container does before it starts
            started.s3().create_bucket(Bucket=bucket)
            started.s3().put_object(Bucket=bucket, Key="made", Body=b"")
        yield started
    finally:
        started.compose("down", "--volumes", "--timeout", "20")


def test_the_api_keeps_its_journal_in_postgresql_by_a_secret_from_a_file(system: System) -> None:
    assert system.get("api", "/health")["status"] == "ok"
    system.get("api", "/v1/tasks")
    assert {"forecasts", "incidents"} <= set(system.ask_postgres("select tablename from pg_tables").split())
    shown = system.compose("config")
    password = (system.folder / "secrets" / "postgres_password").read_text().strip()
    assert password not in shown and password not in system.logs()


def test_postgresql_has_a_database_for_each_who_needs_one(system: System) -> None:
    assert {"forecastle", "mlflow", "airflow"} <= set(system.ask_postgres("select datname from pg_database").split())


def test_archive_and_history_lie_in_the_s3_store_by_a_secret_from_a_file(system: System) -> None:
    secret = (system.folder / "secrets" / "forecastle_stores_secret").read_text().strip()
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:00:00Z}"
    for step in ("ingest", "quality-check"):
        words = ("--task", "/app/tasks/small.toml", "--flow", "live", "--now", now)
        system.compose("exec", "--no-TTY", "api", "forecastle", step, *words)
    kept = [one["Key"] for one in system.s3().list_objects_v2(Bucket="forecastle", Prefix="stores/small/")["Contents"]]
    assert any("/history/batch-" in name for name in kept), kept
    assert secret not in system.compose("config") and secret not in system.logs()


def test_prometheus_scrapes_the_api(system: System) -> None:
    deadline = time.monotonic() + 60
    while True:
        found = system.get("prometheus", "/api/v1/query?query=up%7Bjob%3D%22forecastle%22%7D")["data"]["result"]
        if found and found[0]["value"][1] == "1":
            break
        assert time.monotonic() < deadline, found
        time.sleep(1)
    assert system.get("prometheus", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert system.get("alertmanager", "/api/v2/status")["config"]["original"]


def test_down_and_up_again_keeps_the_data(system: System) -> None:
    system.ask_postgres("create table kept as select 7 as seven")
    system.compose("down", "--timeout", "20")
    system.compose("up", "--detach", "--wait", "--wait-timeout", "200", "postgres", "api")
    assert system.ask_postgres("select seven from kept") == "7"
    assert os.stat(system.folder / "secrets").st_mode & 0o077 == 0
