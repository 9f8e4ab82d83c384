"""The workflows are sound by the tools that judge them, and each step is a line that the tests run too."""

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

BIN = Path(sys.executable).parent
NAMES = ("ci-dev", "ci-test", "cd-master")
BRANCHES = {"ci-dev": ["dev", "test", "master"], "ci-test": ["test"], "cd-master": ["master"]}


@pytest.fixture(params=NAMES)
def workflow(request: pytest.FixtureRequest, root: Path) -> dict[str, Any]:
    """One workflow as YAML reads it; its triggers under "on"."""
    text = (root / ".github" / "workflows" / f"{request.param}.yml").read_text(encoding="utf-8")
    read: dict[Any, Any] = yaml.safe_load(text)
    return {"text": text, "on": read.pop(True)} | read


def test_there_are_these_workflows_and_no_other(root: Path) -> None:
    assert sorted(path.stem for path in (root / ".github" / "workflows").iterdir()) == sorted(NAMES)


def test_zizmor_finds_nothing(root: Path) -> None:
    command = [BIN / "zizmor", "--offline", "--strict-collection", root / ".github" / "workflows"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing_in_them_and_something_in_a_broken_one(root: Path, tmp_path: Path) -> None:
    files = sorted((root / ".github" / "workflows").glob("*.yml"))
    done = subprocess.run([BIN / "actionlint", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(files[0].read_text(encoding="utf-8").replace("github.sha", "github.sah"), encoding="utf-8")
    done = subprocess.run([BIN / "actionlint", broken], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "sah" in done.stdout


def test_act_reads_every_workflow_as_valid(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / ".github", tmp_path / ".github")
    command = [BIN / "act", "--validate", "--strict", "--container-daemon-socket", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "rror" not in done.stderr, done.stdout + done.stderr


def test_a_workflow_runs_for_its_branch_with_the_least_permissions_one_at_a_time(workflow) -> None:
    trigger = next(iter(workflow["on"].values()))
    assert trigger["branches"] == BRANCHES[workflow["name"]]
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is (workflow["name"] != "cd-master")
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert job.get("permissions", {}).items() <= {"contents": "read", "pull-requests": "write"}.items()


def test_every_action_is_githubs_own_and_pinned_by_commit(workflow) -> None:
    used = re.findall(r"uses: (\S+) # v[\d.]+$", workflow["text"], re.MULTILINE)
    assert len(used) == workflow["text"].count("uses:") > 0
    assert [one for one in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", one)] == []


def test_every_step_is_one_call_of_a_make_target_that_exists(workflow, root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert [
        step for step in steps if not (found := re.fullmatch(r"make ([a-z]+)", step)) or found[1] not in targets
    ] == []


def test_no_step_may_fail_unseen_and_no_secret_stands_in_a_command(workflow) -> None:
    assert re.findall(r"continue-on-error|\|\| *true", workflow["text"]) == []
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


@pytest.mark.parametrize(
    ("way", "may"),
    [
        ("feature/x → dev", True),
        ("dev → test", True),
        ("test → master", True),
        ("test → dev", True),
        ("feature/x → test", False),
        ("master → test", False),
        ("dev → master", False),
        ("feature/x → master", False),
        ("a fork's dev → test", False),
        ("$(touch pwned);test → master", False),
    ],
)
def test_a_pull_request_that_leaves_out_a_branch_of_the_way_fails(root: Path, way: str, may: bool) -> None:
    read = yaml.safe_load((root / ".github" / "workflows" / "ci-dev.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in read["jobs"]["order"]["steps"] if "run" in step]
    head, base = way.removeprefix("a fork's ").split(" → ")
    given = {
        "${{ github.base_ref }}": base,
        "${{ github.head_ref }}": head,
        "${{ github.repository }}": "alice/weather",
        "${{ github.event.pull_request.head.repo.full_name }}": "mallory/weather" if "fork" in way else "alice/weather",
    }
    told = {name: given[text] for name, text in step["env"].items()}
    done = subprocess.run(step["run"].split(), cwd=root, env=os.environ | told, capture_output=True, text=True)
    assert (done.returncode == 0) == may, done.stdout + done.stderr
    assert not (root / "pwned").exists()


def test_a_pull_request_that_is_to_another_branch_now_is_checked_again(root: Path) -> None:
    read = yaml.safe_load((root / ".github" / "workflows" / "ci-dev.yml").read_text(encoding="utf-8"))
    assert "edited" in read[True]["pull_request"]["types"]


def test_of_a_pull_request_s_steps_only_the_one_that_fetches_the_champion_knows_production_s_registry(
    root: Path,
) -> None:
    production = ("secrets.FORECASTLE_MLFLOW_URI", "FORECASTLE_DAGSHUB", "FORECASTLE_STORES", "FORECASTLE_DVC")
    for name in ("ci-dev", "ci-test"):
        text = (root / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
        read = yaml.safe_load(text)
        places = [read, *read["jobs"].values(), *(step for job in read["jobs"].values() for step in job["steps"])]
        knowing = [one for one in places if any(word in str(one.get("env", {})) for word in production)]
        assert [one.get("run") for one in knowing] == (["make champion"] if name == "ci-test" else [])
    assert "promote" not in (root / "tools" / "retrain").read_text(encoding="utf-8").partition('"""\n\n')[2]


def test_the_checks_that_the_branches_require_exist(root: Path) -> None:
    jobs: dict[str, set[str]] = {}
    for name in NAMES:
        read = yaml.safe_load((root / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
        for branch in BRANCHES[name] if "pull_request" in read[True] else ():
            jobs.setdefault(branch, set()).update(job["name"] for job in read["jobs"].values())
    for path in sorted((root / ".github" / "rulesets").glob("*.json")):
        ruleset = json.loads(path.read_text(encoding="utf-8"))
        rules = {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}
        assert ruleset["conditions"]["ref_name"]["include"] == [f"refs/heads/{path.stem}"]
        assert {"deletion", "non_fast_forward", "pull_request", "required_status_checks"} <= set(rules)
        approvals = rules["pull_request"]["required_approving_review_count"]
        assert approvals == (0 if path.stem == "dev" else 1)
        required = {one["context"] for one in rules["required_status_checks"]["required_status_checks"]}
        assert required == jobs[path.stem]  # one that never runs there would block the branch for ever
