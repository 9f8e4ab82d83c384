"""The tutorial, followed to the letter: its file is written, its commands are run in order, each in a process."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

STAYS = ("replay", "serve")  # commands that go on until they are stopped
PATIENCE = 120


@dataclass
class Reader:
    """Someone who follows the page in a folder of their own; a command that stays takes the place of one before."""

    folder: Path
    environment: dict[str, str]
    staying: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)

    def run(self, line: str) -> None:
        program, command, *words = shlex.split(line)
        assert program == "forecastle", line
        call = [sys.executable, "-m", "forecastle", command, *words]
        if command in STAYS:
            self.stop(command)
            self.staying[command] = subprocess.Popen(call, cwd=self.folder, env=self.environment)
            _wait_for({"replay": "http://127.0.0.1:8010/", "serve": "http://127.0.0.1:8000/ready"}[command])
            return
        done = subprocess.run(call, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        self.said.append((line, done.stdout))

    def stop(self, command: str) -> None:
        process = self.staying.pop(command, None)
        if process is not None:
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTLE_")}
    someone = Reader(tmp_path, environment | {"COVERAGE_FILE": os.environ.get("COVERAGE_FILE", "")})
    if not someone.environment["COVERAGE_FILE"]:
        del someone.environment["COVERAGE_FILE"]
    yield someone
    for command in STAYS:
        someone.stop(command)


def test_who_follows_the_tutorial_sees_what_it_says(root: Path, reader: Reader) -> None:
    page = (root / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if kind == "toml":
            (reader.folder / "my-airports.toml").write_text(block, encoding="utf-8")
        elif kind == "bash":
            (reader.folder / ".env").write_text(block, encoding="utf-8")
        else:
            for line in block.splitlines():
                reader.run(line)
    said = dict(reader.said)
    trained = next(text for line, text in said.items() if " run train " in line)
    assert "promoted yes" in trained
    first, second = (text for line, text in said.items() if " run live " in line)
    assert re.search(r"score +due 0", first) and re.search(r"scored [1-9]", second)
    assert "my-airports" in _read("http://127.0.0.1:8000/")
    assert re.search(r"archive", said["forecastle lineage champion --task my-airports.toml"])


def _wait_for(address: str) -> None:
    """Wait until something answers there, with whatever status."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _read(address)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing answers at {address}"
            time.sleep(0.2)


def _read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())
