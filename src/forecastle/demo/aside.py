"""Work beside the story, each in a process of its own as in production: the service, and another task's training.

They share the story's clock, and end when the story does, however that comes about.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Generic, NoReturn, TypeVar

from forecastle.errors import ForecastleError, StorageUnavailable
from forecastle.memory import look_rarely, take_sparingly

Given = TypeVar("Given")
PATIENT = 19  # by how much a process is made nicer that has time: it gets what others leave
_PROCESSES = multiprocessing.get_context("spawn")  # a copy of this one would hold its locks without their threads


class Clock:
    """A simulated clock that stands still until it is set; a call tells its time. Processes started with it share
    it."""

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
        self._said: tuple[Given | None, ForecastleError | None] | None = None
        self._process = _PROCESSES.Process(
            target=_run, args=(theirs, work, arguments, patient), name=work.__name__, daemon=True
        )
        with _deaf_to_ctrl_c():  # which is for the story: this process goes with it, and says nothing
            self._process.start()
        theirs.close()

    def given(self) -> Given:
        """Wait until it is entered and return what it gives; raises the error that ended it there, each time.

        StorageUnavailable where its process was ended by something else; RuntimeError where it has a fault, which is
        written above.
        """
        if self._said is None:
            try:
                self._said = self._ours.recv()
            except EOFError:
                raise self._ended() from None
        given, error = self._said
        if error is not None:
            raise error
        assert given is not None, "what is entered gives something"
        return given

    def stay(self) -> NoReturn:
        """Wait for as long as its process runs, and raise what ``given`` does of one that has ended."""
        self._process.join()
        raise self._ended()

    def close(self) -> None:
        """End its process."""
        self._ours.close()
        self._process.join()

    def _ended(self) -> Exception:
        self._process.join()
        if self._process.exitcode == 1:
            return RuntimeError(f"a fault of {self._process.name}, in a process of its own: see above")
        return StorageUnavailable(
            f"the process of {self._process.name} to do its work",
            f"it ended with {self._process.exitcode}",
            "See what it wrote above, and whether the system had memory left; then try again.",
        )


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let a process that is started in the block never hear of Ctrl-C, from its first moment on."""
    resource_tracker.ensure_running()  # it would be started with the process, and makes it hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(pipe: Connection, work: Callable[..., AbstractContextManager[Any]], arguments: Any, patient: bool) -> None:
    threading.Thread(target=_leave_with, args=(pipe,), name="leaving", daemon=True).start()
    if patient:
        os.nice(PATIENT)
    look_rarely()
    take_sparingly()
    try:
        with work(*arguments) as given:
            _tell(pipe, given, None)
            threading.Event().wait()
    except ForecastleError as error:
        _tell(pipe, None, error)


def _tell(pipe: Connection, given: object, error: ForecastleError | None) -> None:
    with suppress(OSError):  # the story is over, and this process with it
        pipe.send((given, error))


def _leave_with(pipe: Connection) -> None:
    """End this process once the other end of the pipe is closed, by the story or because its process is no more."""
    with suppress(EOFError, OSError):
        pipe.recv()
    os._exit(0)
