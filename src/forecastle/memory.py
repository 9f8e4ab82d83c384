"""What a process takes for much work, and gives back after it: a live loop trains in the process that goes on serving
passes.

Large tables are a matter of GNU's C library; where there is another, or none, it does as it does.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

ARENAS, FROM_THE_SYSTEM = -8, -3  # as malloc.h numbers M_ARENA_MAX and M_MMAP_THRESHOLD
MOST_ARENAS, LARGE = 2, 4 * 2**20  # bytes
RARELY = (50_000, 20, 100)  # Python's own: (700, 10, 10)


def look_rarely() -> None:
    """Let the garbage collector look for what may go after fifty thousand new objects rather than seven hundred.

    Of what libraries make when they are imported almost everything stays: looking through it again and again takes up
    to a third of the time that importing takes, and some of every live pass.
    """
    gc.set_threshold(*RARELY)


def take_sparingly() -> None:
    """Let large tables be taken from the system and go back to it as soon as they are free, and threads share what is
    kept for small ones.

    Else every thread keeps what it ever freed, and a training takes half as much memory again. It is for the beginning
    of a process: what was taken before stays as it is. What is computed is the same, and it takes no longer.
    """
    set_option = _of_c("mallopt")
    set_option(ARENAS, MOST_ARENAS)
    set_option(FROM_THE_SYSTEM, LARGE)


def hand_back() -> None:
    """Let go of what is over, and stop looking through what will stay.

    What training leaves behind, hundreds of thousands of objects of its libraries above all, lives as long as the
    process: the garbage collector looks through it no more, which takes it a third of a second each time.
    """
    gc.unfreeze()  # what was left before is looked through once more
    gc.collect()
    gc.freeze()
    _of_c("malloc_trim")(0)


def _of_c(name: str) -> Callable[..., object]:
    """Return a function of the C library; one that does nothing where it has none of that name."""
    import ctypes  # here, for help is shown without

    own = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(own, name, _nothing)


def _nothing(*_: int) -> None:
    pass
