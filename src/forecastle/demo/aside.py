"""Work beside the story, each in a process of its own as in production: the service, and another task's training.

They share the story's clock, and end when the story does, however that comes about.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from forecastle.errors import ForecastleError, StorageUnavailable
from forecastle.memory import look_rarely, take_sparingly

Given = TypeVar("Given")
PATIENT = 5  # by how much a process is made nicer that has time
_PROCESSES = multiprocessing.get_context("spawn")  # a copy of this one would hold its locks without their threads


class Clock:
    """A simulated clock that stands still until it is set; a call tells its time. Processes started with it share it."""

    def __init__(self, now: datetime) -> None:
        self._seconds = _PROCESSES.RawValue("d", now.timestamp())

    def __call__(self) -> datetime:
        """Return the simulated now, in UTC."""
        return datetime.fromtimestamp(self._seconds.value, UTC)

    def set(self, now: datetime) -> None:
        """Let it be another time, for whoever asks from here on."""
        self._seconds.value = now.timestamp()


class Aside(Generic[Given]):
    """A context manager that is entered in a process of its own, at a lower priority if it is ``patient``."""

    def __init__(
        self, work: Callable[..., AbstractContextManager[Given]], *arguments: object, patient: bool = False
    ) -> None:
        self._ours, theirs = _PROCESSES.Pipe()
        self._given: Given | None = None
        self._process = _PROCESSES.Process(target=_run, args=(theirs, work, arguments, patient), daemon=True)
        self._process.start()
        theirs.close()

    def given(self) -> Given:
        """Wait until it is entered and return what it gives; raises the error that ended it there.

        StorageUnavailable where its process ended otherwise.
        """
        if self._given is None:
            try:
                given, error = self._ours.recv()
            except EOFError:
                self._process.join()
                raise StorageUnavailable(
                    f"the process of {self._process.name} to do its work",
                    f"it ended with {self._process.exitcode}",
                    "See what it wrote above, then try again.",
                ) from None
            if error is not None:
                raise error
            self._given = given
        assert self._given is not None, "what is entered gives something"
        return self._given

    def close(self) -> None:
        """End its process."""
        self._ours.close()
        self._process.join()


def _run(pipe: Connection, work: Callable[..., AbstractContextManager[Any]], arguments: Any, patient: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the story, which this process goes with
    threading.Thread(target=_leave_with, args=(pipe,), name="leaving", daemon=True).start()
    if patient:
        os.nice(PATIENT)
    look_rarely()
    take_sparingly()
    try:
        with work(*arguments) as given:
            pipe.send((given, None))
            threading.Event().wait()
    except ForecastleError as error:
        pipe.send((None, error))


def _leave_with(pipe: Connection) -> None:
    """End this process once the other end of the pipe is closed, by the story or because its process is no more."""
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(0)
