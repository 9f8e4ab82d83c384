"""Told to leave, the program is gone at once, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

LEAVING = "from forecastle.leaving import leave_on_signals; leave_on_signals(); print('ready', flush=True)"
BUSY = {
    "in Python": "while True: pass",
    "behind a clause that swallows everything": """
while True:
    try:
        while True: pass
    except BaseException: pass""",
    "in a lock that nobody gives back": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "outside Python": "import ctypes; ctypes.CDLL(None).sleep(60); ctypes.CDLL(None).sleep(60)",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("doing", BUSY)
def test_it_leaves_with_130_and_says_how_to_go_on(doing: str, number: signal.Signals) -> None:
    process = _start(BUSY[doing])
    process.send_signal(number)
    said, complaints = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said == "" and complaints.count("may be run again") == 1 and "Traceback" not in complaints


def test_a_server_that_takes_the_signals_ends_in_its_own_way() -> None:
    process = _start(
        "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: (print('served'), sys.exit(0)));"
        "print('serving', flush=True); time.sleep(60)"
    )
    assert process.stdout is not None and process.stdout.readline() == "serving\n"
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=10)
    assert (process.returncode, said, complaints) == (0, "served\n", "")


def _start(doing: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", f"{LEAVING}\n{doing}"], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process
