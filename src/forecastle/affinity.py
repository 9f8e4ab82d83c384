"""Where threads run: many small queries are answered sooner by threads that share a processor.

A live pass asks Polars some hundred small questions. Each is handed to a thread of its pool and waited for, and where
that thread sleeps on another processor, waking it takes several times as long as its answer: idle processors doze, in a
virtual machine above all. Only Linux lets a process say where its threads run; elsewhere nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock, get_native_id
from time import monotonic

import polars as pl

FEW = 200  # series whose questions take less time than waking who answers them, whatever processors there are
THREADS = Path("/proc/self/task")
POOL = re.compile(r"polars-\d+")  # what the pool's threads are called
PATIENCE = 1.0  # seconds that the pool may take to start
_TAKEN = Lock()


@contextmanager
def one_processor(series: int) -> Iterator[None]:
    """Keep the calling thread and those of Polars' pool on one processor, the one the caller is on, while this lasts.

    ``series`` is how many the work is about; for more than FEW, or where that is not known (0), every processor is of
    use and nothing is changed. Neither is it for a caller that comes while another has it, or where a system does not
    let threads be placed. What comes of the work is the same to the last bit. Threads that are started inside are let
    go everywhere at the end too.
    """
    if not 0 < series <= FEW or sys.platform != "linux" or not _TAKEN.acquire(blocking=False):
        yield
        return
    try:
        everywhere, ours = os.sched_getaffinity(0), {get_native_id(), *_pool(os.getpid())}
        others = _threads() - ours  # which are where they are told to be, and stay there
        _place(ours, {_processor()} & everywhere or everywhere)
        try:
            yield
        finally:
            _place(_threads() - others, everywhere)
    finally:
        _TAKEN.release()


def _place(threads: Iterable[int], processors: set[int]) -> None:
    """Let threads run on these processors only; one that has ended meanwhile, or that the system keeps, is left out."""
    for thread in threads:
        with suppress(OSError):
            os.sched_setaffinity(thread, processors)


def _processor() -> int:
    """Return the number of the processor the caller runs on; -1 where the C library does not tell."""
    ask = getattr(ctypes.CDLL(None), "sched_getcpu", None)
    return -1 if ask is None else int(ask())


def _threads() -> set[int]:
    return {int(one) for one in os.listdir(THREADS)}


@cache
def _pool(_process: int) -> frozenset[int]:
    """Return the numbers of the threads of Polars' pool, which live as long as the process."""
    pl.DataFrame({"started": [True]}).filter("started")
    named: set[int] = set()
    until = monotonic() + PATIENCE
    while len(named) < pl.thread_pool_size() and monotonic() < until:  # a thread names itself once it runs
        for thread in _threads():
            with suppress(OSError):  # some other one has ended meanwhile
                if POOL.fullmatch((THREADS / str(thread) / "comm").read_text(encoding="utf-8").strip()):
                    named.add(thread)
    return frozenset(named)
