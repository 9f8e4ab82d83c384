"""How the program leaves when told to (Ctrl-C, SIGTERM): at once, from whatever it is doing.

Whatever forecastle writes is whole at any moment and a command may be run again, so nothing is gained by unwinding:
an exception thrown between two lines of a library may be swallowed by a callback, or leave a lock held that the way
out then waits for. See docs/decisions/0014-leaving.md.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

from forecastle.errors import INTERRUPTED_EXIT

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAREWELL = "forecastle: Stopped. What was written is whole; the same command may be run again.\n"
SHOW_CURSOR = "\x1b[?25h"
MOMENT = 0.2  # seconds for which whoever is told second waits for the first to have ended the process

_leaving = threading.Lock()


def leave_on_signals() -> None:
    """From now on let SIGINT and SIGTERM end this process at once, exit 130; for a process's main thread.

    A server that sets handlers of its own has them obeyed instead for as long as it runs. The signal is read by a
    thread, so that it is heard even while the main thread computes outside Python.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in SIGNALS:
        signal.signal(number, _leave)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader,), name="leaving", daemon=True).start()


def _listen(reader: int) -> None:
    while heard := os.read(reader, 1):
        if signal.getsignal(heard[0]) is _leave:
            _leave()


def _leave(*_: object) -> NoReturn:
    # never released; but the first may be this very thread, or one that the interpreter's own end has stopped
    if _leaving.acquire(timeout=MOMENT):
        said = (SHOW_CURSOR if sys.stderr.isatty() else "") + FAREWELL
        os.write(2, said.encode())
    os._exit(INTERRUPTED_EXIT)
