"""A race: the same work by several sides, each run in a process of its own, one after the other, again and again.

A module that holds races has ``RACES``, and three functions that each run in a process of their own:

    prepare(folder, size)      write the data all sides read
    check(folder, size)        raise AssertionError where the sides' answers differ
    SIDES[name](folder, size)  load the data and whatever is loaded once, and return the work to be timed

What is timed is the work alone: neither imports nor loading count, nor what a library does the first time it is used
(each side does its work once on a few rows before). Memory is the greatest resident size of the whole process while it
works, so the data, the interpreter and imported libraries count.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Work = Callable[[], object]
Side = Callable[[Path, int], Work]
OWN = "forecastle"
ROOT = Path(__file__).parent.parent
CHECKED = 100_000  # rows on which the sides are compared before they are timed
LIMIT = 1800  # seconds a process may take


@dataclass(frozen=True)
class Bar:
    """What a race has to show: a figure, or its ratio to another side's, of at most so much."""

    figure: str  # "seconds" or "mib"
    most: float
    against: str | None = None
    side: str = OWN

    def measured(self, runs: Mapping[str, list[dict[str, float]]]) -> float:
        """Return the figure, or the ratio, of the medians of all runs."""
        own = statistics.median(run[self.figure] for run in runs[self.side])
        return own if self.against is None else own / statistics.median(run[self.figure] for run in runs[self.against])

    def told(self) -> str:
        """Return the bar in words."""
        unit = {"seconds": "s", "mib": "MiB"}[self.figure]
        if self.against is None:
            return f"{self.side}: ≤ {self.most:g} {unit}"
        return f"{self.side}: ≤ {self.most:g} × the {'time' if unit == 's' else 'memory'} of {self.against}"


@dataclass(frozen=True)
class Race:
    """Work of one size, who does it, and the bars."""

    name: str
    title: str
    module: str
    size: int
    quick: int  # the size in a quick run, which only shows that it works and that the answers agree; 0: not in it
    sides: tuple[str, ...]
    bars: tuple[Bar, ...]
    repeats: int = 5
    gib: float = 2.0  # free memory it needs


def run(race: Race, folder: Path, quick: bool, repeats: int | None = None) -> dict[str, list[dict[str, float]]]:
    """Prepare a race in a folder, check that its sides agree, and return each side's runs."""
    size = race.quick if quick else race.size
    _process(race, "prepare", folder, size)
    _process(race, "check", folder, size if quick else min(size, CHECKED))
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in race.sides}
    for again in range(1 if quick else repeats or race.repeats):
        turn = again % len(race.sides)
        for side in race.sides[turn:] + race.sides[:turn]:
            runs[side].append(json.loads(_process(race, side, folder, size)))
    return runs


def _process(race: Race, part: str, folder: Path, size: int) -> str:
    """Run one part of a race in a process of its own and return the last line it printed."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.race", race.module, part, str(folder), str(size)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT)
    if answer.returncode:
        raise SystemExit(f"{race.name}, {part}: exit {answer.returncode}\n{answer.stderr.strip()}")
    return answer.stdout.strip().rpartition("\n")[2]


def _measured(work: Work) -> dict[str, float]:
    """Do the work once and return its seconds, those of its processor time, and the most memory meanwhile (MiB)."""
    gc.collect()
    before = _peak(reset=True)
    start, spent = time.perf_counter(), time.process_time()
    result = work()
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    peak = _peak()
    del result
    return {"seconds": seconds, "cpu_seconds": spent, "mib": peak, "mib_before": before}


def _peak(reset: bool = False) -> float:
    """Return the greatest resident size so far (MiB); after a reset, where the system can, it counts from now on."""
    status = Path("/proc/self/status")
    if status.exists():
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def _main(module: str, part: str, folder: Path, size: int) -> None:
    own: Any = import_module(f"benchmarks.{module}")
    if part in ("prepare", "check"):
        getattr(own, part)(folder, size)
    else:
        print(json.dumps(_measured(own.SIDES[part](folder, size))))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
