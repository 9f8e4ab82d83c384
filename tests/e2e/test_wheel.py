"""The wheel, in an environment of its own outside of the clone: what it needs is in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def forecastle(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run the command that the wheel installs; the packages it needs are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([root / "tools" / "dist", folder / "dist"], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv, work = folder / "venv", folder / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    call = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", venv / "bin" / "python", wheel]
    subprocess.run([sys.executable, "-m", *call], check=True)
    site = subprocess.run(
        [venv / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # a path file within such a folder is not read, so the clone itself stays out of sight
    Path(site, "borrowed.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
    known = {name: value for name, value in os.environ.items() if not name.startswith(("FORECASTLE_", "COV"))}

    def run(*words: str, program: str = "forecastle") -> str:
        done = subprocess.run([venv / "bin" / program, *words], cwd=work, capture_output=True, text=True, env=known)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_is_what_runs_and_of_the_version_of_the_project(forecastle, root: Path) -> None:
    place = forecastle("-c", "import forecastle; print(forecastle.__file__)", program="python").strip()
    assert not Path(place).is_relative_to(root) and "site-packages" in place
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert forecastle("--version").strip() == project["version"]


def test_the_demo_finds_its_tasks_and_its_recorded_weather(forecastle) -> None:
    assert "--keep" in forecastle("demo", "--help")
    said = forecastle(
        "-c",
        "from forecastle.data.replay import load_nyc_weather; from forecastle.demo.stage import shipped_task; "
        "print(load_nyc_weather().height > 20_000, shipped_task('nyc-temperature').name)",
        program="python",
    )
    assert said.split() == ["True", "nyc-temperature"]


def test_templates_migrations_and_declarations_are_in_it(forecastle) -> None:
    forecastle("init", "mine")
    assert "rules.yml" in forecastle("alerts", "render", "--tasks", "mine.toml")
    assert forecastle("schema").startswith('{"$schema"')
    assert forecastle("incidents", "list", "--json").strip() == "[]"
    page = "from forecastle.serving.page import board, page; print(page(board([], None)))"
    assert "<!doctype html>" in forecastle("-c", page, program="python")
    static = "from importlib.resources import files as f; print(*(f('forecastle.serving') / 'static').iterdir())"
    names = {Path(one).name for one in forecastle("-c", static, program="python").split()}
    assert {"icon.svg", "page.css", "page.js"} <= names
    budgets = "from forecastle.data.budget import shipped; print(*shipped())"
    assert "binance" in forecastle("-c", budgets, program="python")
