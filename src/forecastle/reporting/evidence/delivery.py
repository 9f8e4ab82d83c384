"""How the code is delivered: branches and their protection, workflows, containers, all read from the repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene, read_json

CLONE = "run it in a clone of the repository"
BRANCHES = ("dev", "test", "master")
PROTECTIONS = {
    "deletion": "cannot be deleted",
    "non_fast_forward": "history cannot be rewritten",
    "pull_request": "changes come by pull request",
    "required_status_checks": "checks must pass",
}


def workflow(scene: Scene) -> Found:
    """Find how work flows to production, what protects each branch, and what each workflow runs."""
    root = scene.repository
    rules = [(name, read_json(root / ".github" / "rulesets" / f"{name}.json") if root else None) for name in BRANCHES]
    rows = [_protection(name, said) for name, said in rules if said]
    yield "git.protection", Fact(rows or None, ".github/rulesets/", CLONE)
    files = sorted((root / ".github" / "workflows").glob("*.yml")) if root else []
    yield "git.workflows", Fact([_workflow(path) for path in files] or None, ".github/workflows/", CLONE)
    yield "git.commit", Fact(git(root, "rev-parse", "--short=12", "HEAD"), "git rev-parse HEAD", CLONE)
    count = git(root, "rev-list", "--count", "HEAD")
    yield "git.commits", Fact(int(count) if count else None, "git rev-list --count HEAD", CLONE)
    newest = scene.run_with("train", "decision.json")
    said = read_json(newest / "decision.json") if newest else None
    measure = f"forecastle compare --task {scene.file}"
    source = f"{newest.name}/decision.json" if newest else "a training's decision"
    yield "compare.reasons", Fact(said["reasons"] if said else None, source, measure)
    yield "compare.promote", Fact(said["promote"] if said else None, source, measure)


def containers(scene: Scene) -> Found:
    """Find the images, and the services Compose starts, each with how its health is asked."""
    root = scene.repository
    files = sorted((root / "docker").glob("Dockerfile.*")) if root else []
    yield "containers.images", Fact([_dockerfile(path) for path in files] or None, "the Dockerfiles in docker/", CLONE)
    compose = root / "docker" / "docker-compose.yml" if root else None
    text = compose.read_text(encoding="utf-8") if compose and compose.is_file() else ""
    services = re.findall(r"^  ([a-z0-9-]+):$", text.partition("\nservices:")[2].partition("\nvolumes:")[0], re.M)
    yield "containers.services", Fact(services or None, "docker/docker-compose.yml", CLONE)
    joined = files[0].read_text(encoding="utf-8").replace("\\\n", " ") if files else ""
    checked = re.search(r"^HEALTHCHECK (.+)$", joined, re.M)
    told = " ".join(checked[1].split()) if checked else None
    yield "containers.healthcheck", Fact(told, "docker/Dockerfile.api", CLONE)


def git(root: Path | None, *words: str) -> str | None:
    """Return what git says in a clone; None where it says nothing, or is not there."""
    if root is None:
        return None
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def tree(root: Path, folders: Sequence[str]) -> list[str]:
    """Return the files git knows in some folders and at the top, by folder with their number."""
    listed = (git(root, "ls-files") or "").splitlines()
    names: dict[str, int] = {}
    for one in listed:
        top = one.split("/")
        key = "/".join(top[:-1][:3]) + "/" if len(top) > 1 else one
        names[key] = names.get(key, 0) + 1
    return [f"{name} ({count})" if name.endswith("/") else name for name, count in sorted(names.items())]


def _protection(name: str, said: dict[str, Any]) -> dict[str, Any]:
    rules = {one["type"]: one.get("parameters", {}) for one in said["rules"]}
    checks = [one["context"] for one in rules.get("required_status_checks", {}).get("required_status_checks", ())]
    return {
        "branch": name,
        "protected by": "; ".join(PROTECTIONS.get(kind, kind.replace("_", " ")) for kind in rules),
        "reviews": rules.get("pull_request", {}).get("required_approving_review_count", 0),
        "checks": ", ".join(checks) or "–",
    }


def _workflow(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    event = re.search(r"^on:\n  (\w+):\n    branches: \[(.*)\]", text, re.M)
    steps = re.findall(r"^        run: (.+)$", text, re.M)
    return {
        "workflow": path.stem,
        "runs on": f"{event[1].replace('_', ' ')} to {event[2]}" if event else "–",
        "steps": ", ".join(steps),
        "about": text.splitlines()[0].lstrip("# "),
    }


def _dockerfile(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    user = re.findall(r"^USER (\S+)", text, re.M)
    return {
        "file": f"docker/{path.name}",
        "base": bases[-1],
        "stages": len(bases),
        "user": user[-1] if user else "root",
    }
