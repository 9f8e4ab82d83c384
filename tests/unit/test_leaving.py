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
    code, said, complaints = _ended(process)
    assert code == 130
    assert said == "" and complaints.count("may be run again") == 1 and "Traceback" not in complaints


def test_told_twice_it_leaves_though_the_first_time_it_did_not_come_to_its_end() -> None:
    process = _start("""
import os, signal, threading
from forecastle import leaving
write = leaving.os.write
def tell_again(where, what):
    leaving.os.write = write
    os.kill(os.getpid(), signal.SIGTERM)  # heard before the next line
    return write(where, what)
leaving.os.write = tell_again
signal.set_wakeup_fd(-1)  # so that both are heard by the main thread
while True: pass""")
    process.send_signal(signal.SIGINT)
    assert _ended(process)[0] == 130


def test_a_thread_that_ended_while_it_left_holds_up_nobody() -> None:
    process = _start("""
import threading
from forecastle import leaving
thread = threading.Thread(target=leaving._leaving.acquire)  # as the interpreter's end stops a thread at any line
thread.start(); thread.join()
while True: pass""")
    process.send_signal(signal.SIGINT)
    assert _ended(process)[0] == 130


def test_a_server_that_takes_the_signals_ends_in_its_own_way() -> None:
    process = _start(
        "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: (print('served'), sys.exit(0)));"
        "print('serving', flush=True); time.sleep(60)"
    )
    assert process.stdout is not None and process.stdout.readline() == "serving\n"
    process.send_signal(signal.SIGINT)
    assert _ended(process) == (0, "served\n", "")


def _start(doing: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", f"{LEAVING}\n{doing}"], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


def _ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return how a process ended and what it said; one that does not end is not left behind."""
    try:
        said, complaints = process.communicate(timeout=10)
    finally:
        process.kill()
    return process.returncode, said, complaints
