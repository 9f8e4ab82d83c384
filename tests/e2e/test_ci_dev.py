"""A pull request to dev: the steps of ci-dev, read from their YAML and run in order on some of the everyday tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

SOME = "tests/unit/test_console.py"
OURS = ("COV_", "COVERAGE_", "PYTEST_", "FORECASTLE_", "MAKE", "MFLAGS")  # what this test itself runs under


@pytest.fixture(scope="module")
def steps(root: Path) -> list[str]:
    read = yaml.safe_load((root / ".github" / "workflows" / "ci-dev.yml").read_text(encoding="utf-8"))
    return [step["run"] for step in read["jobs"]["check"]["steps"] if "run" in step]


def test_its_steps_pass_one_after_the_other_and_tell_what_was_covered(steps, root: Path, tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    summary = tmp_path / "summary.md"
    told = {
        "EVERYDAY": SOME,
        "WORKERS": "1",
        "COVERAGE_FILE": str(tmp_path / "covered"),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    said = {}
    for step in steps:
        done = subprocess.run(step.split(), cwd=root, env=own | told, capture_output=True, text=True)
        said[step] = done.stdout + done.stderr
        assert done.returncode == 0, said[step]
    assert list(said) == ["make setup", "make style", "make types", "make layers", "make unit", "make coverage"]
    assert "no issues found" in said["make types"] and "0 broken" in said["make layers"]
    assert " passed" in said["make unit"]
    assert "src/forecastle/pipeline.py" in summary.read_text(encoding="utf-8")
