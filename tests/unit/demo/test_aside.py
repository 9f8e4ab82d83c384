"""What goes on beside the story: it shares the clock, tells what it made or what went wrong, and goes with the
story."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle.demo.aside import PATIENT, Aside, Clock
from forecastle.errors import DataTooOld, StorageUnavailable
from forecastle.leaving import FAREWELL

NOW = datetime(2013, 12, 1, 0, 5, tzinfo=UTC)


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is done aside, from where a process of its own finds it too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("works_aside")


def test_it_is_a_process_of_its_own_and_ends_when_it_is_closed(works: Any) -> None:
    with closing(Aside(works.telling, patient=True)) as beside:
        number, nice = beside.given()
        assert beside.given() == (number, nice), "it is entered once"
        assert number != os.getpid() and _is_there(number)
        assert nice == os.nice(0) + PATIENT
    assert not _is_there(number)


def test_it_sees_the_clock_set(works: Any, tmp_path: Path) -> None:
    clock, note = Clock(NOW), tmp_path / "note"
    with closing(Aside(works.following, clock, note)) as beside:
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        clock.set(NOW + timedelta(hours=1))
        assert beside.given()
    assert note.read_text() == (NOW + timedelta(hours=1)).isoformat()
    assert clock() == NOW + timedelta(hours=1)


def test_what_went_wrong_there_is_raised_here_with_all_it_says(works: Any) -> None:
    with closing(Aside(works.failing)) as beside:
        with pytest.raises(DataTooOld, match="found an old one") as raised:
            beside.given()
        with pytest.raises(DataTooOld, match="found an old one"):
            beside.given()
    assert (raised.value.action, raised.value.retry_after) == ("Wait.", 60)


def test_one_that_ends_without_a_word_is_named(works: Any) -> None:
    with closing(Aside(works.ending)) as beside, pytest.raises(StorageUnavailable, match="it ended with 3"):
        beside.given()


def test_a_fault_there_is_none_of_a_store(works: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Aside(works.faulty)) as beside, pytest.raises(RuntimeError, match="a fault of faulty"):
        beside.given()
    assert "nobody thought of it" in capfd.readouterr().err


def test_ctrl_c_while_it_starts_is_for_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    from forecastle.leaving import leave_on_signals; leave_on_signals()\n"
        "    from forecastle.demo.aside import Aside; from works_aside import telling\n"
        "    beside = Aside(telling); print('started', flush=True)\n"
        "    print(beside.given()[0], flush=True); time.sleep(60)\n"
    )
    script = tmp_path / "told.py"
    script.write_text(program)
    for wait in (0.0, 0.1, 0.3, 3.0):
        process = subprocess.Popen(
            [sys.executable, str(script), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all that it runs
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (130, FAREWELL)


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    from forecastle.demo.aside import Aside; from works_aside import telling\n"
        "    print(Aside(telling).given()[0], flush=True); os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(program)
    words = [sys.executable, str(script), str(Path(__file__).parent)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    number, until = int(ended.stdout), time.monotonic() + 10
    assert ended.returncode == -9
    while _is_there(number) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _is_there(number)


def _is_there(number: int) -> bool:
    """Tell whether a process runs: one that has ended may still wait to be asked how."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
