"""What tests have done aside: a process of its own imports it, so it stands in a file of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forecastle.demo.aside import Clock
from forecastle.errors import DataTooOld


@contextmanager
def telling() -> Iterator[tuple[int, int]]:
    """Give this process's number and niceness."""
    yield os.getpid(), os.nice(0)


@contextmanager
def following(clock: Clock, note: Path) -> Iterator[bool]:
    """Give True once the clock has been set to another time than it showed here at first, and write that down."""
    first = clock()
    note.write_text(first.isoformat())
    while clock() == first:
        time.sleep(0.005)
    note.write_text(clock().isoformat())
    yield True


@contextmanager
def failing() -> Iterator[None]:
    """Say what a source might."""
    raise DataTooOld("a newer value", "an old one", "Wait.", 60)
    yield


@contextmanager
def ending() -> Iterator[None]:
    """End without a word."""
    os._exit(3)
    yield


@contextmanager
def faulty() -> Iterator[None]:
    """Have a fault."""
    raise KeyError("nobody thought of it")
    yield
