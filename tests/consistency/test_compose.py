"""The compose file is what Compose accepts, asks for what its example names, and leaves nothing open or unlocked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecastle import __version__
from forecastle.settings import PREFIX, Settings

BIN = Path(sys.executable).parent
SERVICES = {
    "core": {"api", "live", "postgres", "s3", "mlflow", "prometheus", "grafana"},
    "full": {"api", "airflow", "postgres", "s3", "mlflow", "prometheus", "grafana", "alertmanager"},
}


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    """The compose file as YAML reads it."""
    read: dict[str, Any] = yaml.safe_load((root / "docker" / "docker-compose.yml").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def secrets(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets that make-secrets makes, in a copy of docker/."""
    folder = tmp_path_factory.mktemp("copy") / "docker"
    shutil.copytree(root / "docker", folder, ignore=lambda _, names: {"secrets", ".env"} & set(names))
    subprocess.run([folder / "make-secrets"], check=True, timeout=60)
    return folder / "secrets"


@pytest.mark.parametrize("profile", ["core", "full"])
def test_compose_accepts_it_with_either_profile(profile: str, secrets: Path) -> None:
    command = [BIN / "docker-compose", "--profile", profile, "config", "--format", "json"]
    done = subprocess.run(command, cwd=secrets.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == SERVICES[profile]


def test_the_example_names_every_variable_with_its_default(root: Path, compose) -> None:
    text = (root / "docker" / "docker-compose.yml").read_text(encoding="utf-8")
    asked = dict(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):-([^}]*)\}", text))
    assert len(asked) == len(set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text)))  # each has one
    example = (root / "docker" / ".env.example").read_text(encoding="utf-8")
    told = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    assert told.pop("COMPOSE_PROFILES") == "core" and told == asked


def test_the_example_of_settings_names_every_setting(root: Path) -> None:
    text = (root / ".env.example").read_text(encoding="utf-8")
    told = re.findall(rf"^#({PREFIX}\w+)=", text, re.MULTILINE)
    assert told == [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]


def test_every_setting_the_containers_are_given_exists(compose) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {
        name
        for service in ("api", "live", "airflow")
        for name in compose["services"][service]["environment"]
        if name.startswith(PREFIX)
    }
    assert given <= known


def test_every_service_is_checked_and_its_start_waits_for_what_it_needs(compose) -> None:
    for name, service in compose["services"].items():
        own_check = {"api"}  # its image has one
        assert "healthcheck" in service or name in own_check, name
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, (name, needed)


def test_ports_are_of_this_machine_alone(compose) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 8 and [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_images_are_pinned_or_built_here(compose) -> None:
    for name, service in compose["services"].items():
        default = re.fullmatch(r"\$\{[A-Z0-9_]+:-(.+)\}", service["image"])
        assert default is not None and ("build" in service) == (":" not in default[1]), name
        assert not default[1].endswith(":latest")


def test_ours_run_read_only_and_without_capabilities(compose) -> None:
    writing = {"postgres", "s3"}  # images that change their own files or user
    for name, service in compose["services"].items():
        assert name in writing or (service["read_only"] and service["cap_drop"] == ["ALL"]), name


def test_no_containers_log_fills_the_disk(compose) -> None:
    for name, service in compose["services"].items():
        assert service["logging"]["options"]["max-size"] == "10m", name


def test_data_is_kept_in_named_volumes_and_secrets_come_from_files(compose, secrets: Path) -> None:
    named = {one.partition(":")[0] for service in compose["services"].values() for one in service.get("volumes", ())}
    assert set(compose["volumes"]) == {one for one in named if not one.startswith(".")}
    files = {Path(one["file"]).name for one in compose["secrets"].values()}
    assert files == {path.name for path in secrets.iterdir()}
    given = [one for service in compose["services"].values() for one in service.get("secrets", ())]
    assert {one if isinstance(one, str) else one["source"] for one in given} <= set(compose["secrets"])
    text = json.dumps(compose)
    assert [name for name in files if (value := (secrets / name).read_text().strip()) and value in text] == []


def test_an_alarm_of_the_live_flow_can_ask_airflow_for_a_training(compose) -> None:
    airflow = compose["services"]["airflow"]
    assert airflow["environment"]["FORECASTLE_AIRFLOW_URL"] == "http://127.0.0.1:8080"
    assert {"source": "airflow_password", "target": "forecastle_airflow_password"} in airflow["secrets"]


def test_the_s3_store_sets_no_disk_aside_and_has_room_for_both_buckets(compose) -> None:
    told = dict(re.fullmatch(r"-([\w.]+)=?(.*)", word).groups() for word in compose["services"]["s3"]["command"][1:])
    assert told["master.volumePreallocate"] == "false"
    assert int(told["volume.max"]) >= 2 * 7  # a bucket takes seven; 0 counts them from the free disk


def test_secrets_are_made_once_and_shown_to_nobody_else(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    subprocess.run([secrets.parent / "make-secrets"], check=True, timeout=60)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert before["postgres_password"].strip() in before["forecastle_journal"]
    json.loads(before["s3_identities"])


def test_dockerfiles_pass_hadolint(root: Path) -> None:
    files = sorted((root / "docker").glob("Dockerfile.*"))
    done = subprocess.run([BIN / "hadolint", *files], capture_output=True, text=True, timeout=60)
    assert len(files) == 2 and done.returncode == 0, done.stdout


def test_what_reaches_the_builder_is_named_one_by_one(root: Path) -> None:
    lines = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and {"docker/secrets", "docker/.env"} <= set(lines)
    copied = {
        one
        for path in (root / "docker").glob("Dockerfile.*")
        for one in re.findall(r"^COPY (?!--from)(?:--chmod=\d+ )?([\w./-]+) ", path.read_text(), re.MULTILINE)
    }
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert [
        one for one in copied if not any(Path(one).match(let) or Path(one).is_relative_to(let) for let in let_in)
    ] == []


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("promtool", ("check", "config", "--syntax-only", "docker/config/prometheus.yml")),
        ("amtool", ("check-config", "docker/config/alertmanager.yml")),
    ],
)
def test_prometheus_and_alertmanager_accept_their_files(
    program: str, arguments: tuple[str, ...], root: Path, missing_component
) -> None:
    if shutil.which(program) is None:
        missing_component(f"no {program} on this machine: tools/container-engine installs it")
    done = subprocess.run([program, *arguments], cwd=root, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_of_an_image_is_the_command(root: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(root / "docker" / "forecastle"), "--version"], check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == __version__
