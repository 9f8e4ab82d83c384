"""At a terminal and beside it: completion by the shell, JSON for programs, colour only where somebody looks."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from forecastle.cli import app, main
from forecastle.cli.options import flows
from forecastle.pipeline import FLOWS

PROGRAM = str(Path(sys.executable).with_name("forecastle"))
NOT_DATA = {"demo", "serve", "replay", "schema"}  # a story, two that stay, and one that is JSON anyhow
ESCAPE = "\x1b["


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing says anything about colours."""
    known = {name: value for name, value in os.environ.items() if "COLOR" not in name and name != "GITHUB_ACTIONS"}
    return known | {"FORECASTLE_HOME": str(tmp_path / "data"), "TERM": "xterm-256color"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(tmp_path: Path, environment: dict[str, str]) -> None:
    script = tmp_path / "complete.sh"
    script.write_text(
        subprocess.run(
            [PROGRAM], capture_output=True, text=True, env=environment | {"_FORECASTLE_COMPLETE": "source_bash"}
        ).stdout,
        encoding="utf-8",
    )

    def completed(*words: str) -> list[str]:
        line = f'source {script}; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
        line += f'_forecastle_completion {PROGRAM}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=True)
        return done.stdout.split()

    assert completed("forecastle", "reg") == ["registry"]
    assert set(completed("forecastle", "registry", "r")) == {"reject", "rollback"}
    assert "--online" in completed("forecastle", "doctor", "--o")
    assert completed("forecastle", "run", "t") == ["train"]


def test_the_flows_a_shell_completes_are_those_there_are() -> None:
    assert set(flows()) == set(FLOWS)


def test_every_command_that_answers_with_data_takes_json() -> None:
    without = []

    def walk(words: str, command) -> None:
        children = getattr(command, "commands", {})
        if not children and not any("--json" in one.opts for one in command.params):
            without.append(words)
        for name, child in children.items():
            walk(f"{words} {name}".strip(), child)

    walk("", get_command(app))
    assert set(without) == NOT_DATA


@pytest.mark.parametrize(
    "words",
    [
        ["doctor"],
        ["flows", "tasks/nyc-temperature.toml"],
        ["new-key", "dashboard", "--scope", "read"],
        ["incidents", "list"],
        ["alerts", "test"],
        ["migrate"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_json_is_whole_lines_of_strict_json(words, root, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(root / word) if word.startswith("tasks/") else word for word in words]
    assert main([*words, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(json.loads(line, parse_constant=pytest.fail) is not None for line in lines)


@pytest.mark.parametrize("words", [["--help"], ["doctor"]], ids=" ".join)
def test_colours_are_off_where_nobody_looks_and_on_at_a_terminal(
    words: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    piped = subprocess.run([PROGRAM, *words], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert piped.returncode == 0 and piped.stdout and ESCAPE not in piped.stdout + piped.stderr
    assert ESCAPE in _at_a_terminal(words, tmp_path, environment)


def test_no_color_is_heard_at_a_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    said = _at_a_terminal(["doctor"], tmp_path, environment | {"NO_COLOR": "1"})
    assert "forecastle" in said and "\x1b[32m" not in said and "\x1b[31m" not in said


def _at_a_terminal(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Return what a command says at a pseudo-terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([PROGRAM, *words], stdout=theirs, stderr=theirs, env=environment, cwd=folder)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return said.decode()
