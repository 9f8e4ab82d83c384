"""The servers of these tests: one that does not come up is made once more, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


def test_a_server_whose_process_ended_is_made_once_more_and_one_that_never_comes_up_is_a_failure() -> None:
    own: Any = sys.modules[next(name for name in sys.modules if name.endswith("e2e.conftest"))]
    made: list[Path] = []

    class Server:
        failures = 1

        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def make(self) -> None:
            made.append(self.folder)
            program = ["sh", "-c", "exit 1"] if len(made) <= self.failures else ["sleep", "60"]
            self.first = own.Daemon(["sleep", "60"], self.folder)
            self.first.start(lambda: True)
            self.second = own.Daemon(program, self.folder)
            self.second.start(lambda: program[0] == "sleep")

        def kill(self) -> None:
            self.second.kill()
            self.first.kill()

    with pytest.warns(UserWarning, match="made once more"):
        server = own.running(Server)
        there = next(server)
    assert there.second.process.poll() is None and len(made) == 2
    processes = [there.first.process, there.second.process]
    server.close()
    assert [one.poll() for one in processes] == [-9, -9] and not any(folder.exists() for folder in made)
    Server.failures = 9
    with pytest.warns(UserWarning), pytest.raises(pytest.fail.Exception, match="did not come up"):
        next(own.running(Server))
    assert len(made) == 4 and not any(folder.exists() for folder in made)
