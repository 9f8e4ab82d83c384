"""The demo as a newcomer runs it: every chapter does what it says, within its time and memory, and leaves no trace."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.alone

SECONDS = 90.0
PACE = 0.0035  # processor seconds a core of the machine that the bar is meant for takes for ``_work``
MOST_MEMORY = int(1.5 * 2**30)
FIGURES = ["rmse", "mae", "r2", "skill", "coverage"]
CHAPTERS = 7


@dataclass(frozen=True)
class Told:
    """A demo that has ended: its exit code, what it printed, its summary, its cost, the clone before and after, and
    how many processors others filled while it ran, and how long a core took meanwhile for a known piece of work."""

    code: int
    text: str
    summary: dict[str, Any]
    wall: float
    processor: float
    memory: int
    clone: tuple[str, str]
    others: float
    pace: float


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Told:
    """The demo, run once in a folder of its own by a process of its own."""
    folder, log = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("log") / "out.txt"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTLE_")}
    words = ["demo", "--plain", "--folder", str(folder / "demo")]
    before, busy, began = _status(root), _busy_seconds(), time.perf_counter()
    with log.open("w") as out:
        program = [sys.executable, "-m", "forecastle.cli", *words]
        process = subprocess.Popen(program, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT)
        paces: list[float] = []
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:  # the process and every one it waited for
            paces.append(_work())
            time.sleep(0.25)
    _, status, used = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    wall, processor = time.perf_counter() - began, used.ru_utime + used.ru_stime
    text = log.read_text(encoding="utf-8")
    assert (folder / "demo" / "summary.json").exists(), text
    summary = json.loads((folder / "demo" / "summary.json").read_bytes())
    memory = used.ru_maxrss * 1024
    others = (_busy_seconds() - busy - processor) / wall
    clone = (before, _status(root))
    return Told(process.returncode, text, summary, wall, processor, memory, clone, others, statistics.median(paces))


def _work() -> float:
    """Return the processor seconds that a fixed piece of work takes now: a shared machine's pace changes."""
    began, total = time.thread_time(), 0
    for number in range(50_000):
        total += number * number
    return time.thread_time() - began


def _busy_seconds() -> float:
    """Return how long all processors together have worked since the machine started."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def test_every_chapter_does_what_it_says(told: Told) -> None:
    assert [chapter["name"] for chapter in told.summary["chapters"] if not chapter["ok"]] == [], told.text
    assert len(told.summary["chapters"]) == CHAPTERS
    assert told.code == 0, told.text
    assert "✗" not in told.text and "Traceback" not in told.text


def test_the_summary_has_the_shape_other_programs_rely_on(told: Told) -> None:
    summary = told.summary
    assert list(summary) == ["seconds", "chapters", "backtest", "live", "latency_ms", "drift_ratio"]
    for chapter in summary["chapters"]:
        assert list(chapter) == ["name", "ok", "seconds"]
    for name in ("backtest", "live"):
        scores = summary[name]
        assert list(scores) == [*FIGURES, "n", "horizons"]
        assert [one["horizon"] for one in scores["horizons"]] == [1, 2, 3, 4, 5, 6]
        for one in scores["horizons"]:
            assert list(one) == ["horizon", *FIGURES]
        numbers = [scores[name] for name in FIGURES]
        numbers += [one[name] for one in scores["horizons"] for name in FIGURES]
        assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)
    assert list(summary["latency_ms"]) == ["p50", "p99"]
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert 0 <= summary["drift_ratio"] <= 1


def test_the_forecasts_beat_persistence_as_promised(told: Told) -> None:
    assert told.summary["backtest"]["skill"] >= 0.20
    assert told.summary["live"]["skill"] > 0
    assert told.summary["live"]["n"] >= 0.95 * 14 * 24 * 3 * 6


def test_the_intervals_hold_about_what_they_promise(told: Told) -> None:
    assert 0.85 <= told.summary["backtest"]["coverage"] <= 0.95
    assert 0.80 <= told.summary["live"]["coverage"] <= 0.97


def test_it_takes_less_than_ninety_seconds(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine as the bar is meant for; where a core takes longer for a known piece of work, that much longer."""
    slower = max(told.pace / PACE, 1.0)
    said = (
        f"the demo took {told.wall:.0f} s by the clock and {told.processor:.0f} s of the processors, of which others "
        f"filled {told.others:.1f} meanwhile, on a machine {slower:.2f} times slower than the bar is meant for: "
        f"{told.wall / slower:.0f} s of the {SECONDS:.0f} s there"
    )
    with capsys.disabled():
        print(f"\n{said}")
    assert told.wall / slower <= SECONDS, said


def test_it_takes_less_memory_than_a_small_machine_has(told: Told) -> None:
    assert told.memory < MOST_MEMORY, f"{told.memory / 2**20:.0f} MiB"


def test_the_clone_is_left_as_it_was(told: Told) -> None:
    before, after = told.clone
    assert after == before


def _status(root: Path) -> str:
    words = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(words, cwd=root, check=True, capture_output=True, text=True).stdout
