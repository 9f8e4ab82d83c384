"""The locks pin everything by hash and name no place it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

LOCKS = ("bootstrap.txt", "dev.txt", "airflow.txt", "api.txt", "pipeline.txt", "mlflow.txt", "axe.txt")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_address(lock: str, root: Path) -> None:
    text = (root / "requirements" / lock).read_text(encoding="utf-8")
    assert re.findall(r"^.*(?:://|^-|index-url|find-links| @ ).*$", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_package_by_hash(lock: str, root: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", (root / "requirements" / lock).read_text(encoding="utf-8"))
    assert [entry.split()[0] for entry in entries if not PIN.match(entry) or "--hash=sha256:" not in entry] == []


def test_every_requirement_of_the_project_is_in_the_lock(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for group in project["optional-dependencies"].values() for name in group),
    ]
    names = {re.split(r"[\[<>=!~; ]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names - set(_pins(root, "dev.txt")) == set()


def test_what_installs_is_what_the_lock_holds(root: Path) -> None:
    locked = _pins(root, "dev.txt")
    assert {name: locked.get(name) for name in _pins(root, "bootstrap.txt")} == _pins(root, "bootstrap.txt")


def _pins(root: Path, lock: str) -> dict[str, str]:
    return dict(PIN.findall((root / "requirements" / lock).read_text(encoding="utf-8")))


@pytest.mark.parametrize("lock", ["api.txt", "pipeline.txt", "mlflow.txt"])
def test_what_an_image_installs_was_tested(lock: str, root: Path) -> None:
    tested = set(PIN.findall((root / "requirements" / "dev.txt").read_text(encoding="utf-8")))
    servers_alone = {"boto3", "s3transfer"}  # MLflow's server speaks to S3 with them; nothing of ours imports them
    pins = PIN.findall((root / "requirements" / lock).read_text(encoding="utf-8"))
    assert [pin for pin in pins if pin not in tested and pin[0] not in servers_alone] == []


def test_the_image_that_serves_holds_nothing_to_train_with(root: Path) -> None:
    training = {"dvc", "matplotlib", "mlflow", "optuna", "pandas", "pyarrow", "scikit-learn", "scipy"}
    assert training & set(_pins(root, "api.txt")) == set()
