"""The Kubernetes base is what the API server accepts, by its own schema, and hangs together by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from forecastle.settings import PREFIX, Settings
from forecastle.task import load_task

VERSIONS = ("1.31", "1.34")


@pytest.fixture(scope="module")
def base(root: Path) -> dict[str, Any]:
    """What the kustomization says."""
    read: dict[str, Any] = yaml.safe_load((root / "deploy" / "kubernetes" / "kustomization.yaml").read_text())
    return read


@pytest.fixture(scope="module")
def objects(root: Path, base: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object of the base's resources."""
    folder = root / "deploy" / "kubernetes"
    return [one for name in base["resources"] for one in yaml.safe_load_all((folder / name).read_text())]


def test_every_object_is_valid_by_kubernetes_own_schema(objects) -> None:
    for one in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)
    kinds = {one["kind"] for one in objects}
    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "CronJob"} <= kinds


def test_kustomize_builds_the_base_and_what_it_builds_is_valid_and_of_one_namespace(root: Path, objects, base) -> None:
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [kubectl, "kustomize", root / "deploy" / "kubernetes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(objects) + len(base["configMapGenerator"])
    for one in built:
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    assert {one["metadata"].get("namespace") for one in built if one["kind"] != "Namespace"} == {base["namespace"]}
    tag = base["images"][0]["newTag"]
    assert set(re.findall(r"image: (\S+)", done.stdout)) == {f"forecastle-api:{tag}", f"forecastle-jobs:{tag}"}


def test_every_file_of_the_base_is_used_and_every_file_it_uses_is_there(root: Path, base) -> None:
    folder = root / "deploy" / "kubernetes"
    named = {
        *base["resources"],
        *(one.partition("=")[2] for entry in base["configMapGenerator"] for one in entry.get("files", ())),
    }
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - named == {"kustomization.yaml"} and named <= there


def test_its_settings_and_its_task_are_those_of_the_code(root: Path, base) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    told = {one.partition("=")[0] for entry in base["configMapGenerator"] for one in entry.get("literals", ())}
    assert told <= known
    copy = root / "deploy" / "kubernetes" / "tasks" / "nyc-temperature.toml"
    assert load_task(copy).digest == load_task(root / "tasks" / "nyc-temperature.toml").digest


def test_every_pod_is_locked_down_and_uses_what_exists(objects, base) -> None:
    generated = {entry["name"] for entry in base["configMapGenerator"]}
    images = {one["name"] for one in base["images"]}
    claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]
    pods += [one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for one in objects if one["kind"] == "CronJob"]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        assert volumes["home"]["persistentVolumeClaim"]["claimName"] in claims
        assert volumes["tasks"]["configMap"]["name"] in generated
        for container in pod["containers"]:
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"] and locked["capabilities"] == {"drop": ["ALL"]}
            assert not locked["allowPrivilegeEscalation"]
            assert container["image"] in images and {one["name"] for one in container["volumeMounts"]} <= set(volumes)
            assert {one["configMapRef"]["name"] for one in container["envFrom"]} <= generated


def test_flows_run_in_the_image_that_holds_all_they_need(objects) -> None:
    flows = [one for one in objects if one["kind"] == "CronJob"]
    pods = [one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for one in flows]
    assert [pod["containers"][0]["image"] for pod in pods] == ["forecastle-jobs"] * 2


def test_selectors_select_what_is_labelled_so(objects) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in objects if one["kind"] == "Deployment"]
    labels += [
        one["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "CronJob"
    ]
    chosen = [
        one["spec"]["selector"].get("matchLabels", one["spec"]["selector"])
        for one in objects
        if "selector" in one.get("spec", {})
    ]
    chosen += [one["spec"]["podSelector"].get("matchLabels", {}) for one in objects if one["kind"] == "NetworkPolicy"]
    assert [one for one in chosen if not any(one.items() <= known.items() for known in labels)] == []


def test_what_may_heal_is_tried_again_and_nothing_else(objects) -> None:
    for one in (one["spec"]["jobTemplate"]["spec"] for one in objects if one["kind"] == "CronJob"):
        (rule,) = one["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2, 3])
        assert rule["onExitCodes"]["containerName"] == one["template"]["spec"]["containers"][0]["name"]


def test_its_images_are_of_this_version(root: Path, base) -> None:
    version = re.search(r'^version = "(.*)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and {one["newTag"] for one in base["images"]} == {f"v{version[1]}"}
