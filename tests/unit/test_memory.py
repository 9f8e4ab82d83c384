"""A process that has trained gives back what it took, and what it leaves lying it looks through no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forecastle import memory

PROGRAM = """
import gc
from pathlib import Path
from threading import Thread

import numpy as np

from forecastle.memory import hand_back, take_sparingly


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmRSS" in line) // 1024


def work():
    for _ in range(3):  # tables of 8 MB among small ones that stay a little longer
        kept.append([np.ones(1_000_000) for _ in range(12)])


take_sparingly()
kept, before = [], resident()
threads = [Thread(target=work) for _ in range(4)]
[one.start() for one in threads]
[one.join() for one in threads]
most = resident()
kept.clear()
freed = resident()
hand_back()
print(most - before, freed - before, gc.get_freeze_count())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_tables_go_back_to_the_system_as_soon_as_they_are_free() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    most, freed, frozen = map(int, told.split())
    assert most > 1000, "4 threads x 36 tables of 8 MB"
    assert freed < 100
    assert frozen > 10_000


def test_where_the_library_of_c_has_no_such_function_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory._of_c("forecastle_has_no_such_function")(1, 2) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._of_c("mallopt")(-8, 2) is None


def test_the_garbage_collector_looks_rarely_and_still_does() -> None:
    program = (
        "import gc\n"
        "from forecastle.memory import look_rarely\n"
        "looked = []\n"
        "gc.callbacks.append(lambda when, told: looked.append(told['generation']))\n"
        "def litter(count):\n"
        "    for _ in range(count): one = []; one.append(one)\n"
        "litter(20_000); often = len(looked)\n"
        "look_rarely(); looked.clear(); litter(20_000); rarely = len(looked); litter(200_000)\n"
        "print(often, rarely, len(looked))"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    often, rarely, later = map(int, told.split())
    assert often > 20 and rarely <= 2 and later >= 6
