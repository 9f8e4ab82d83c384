"""Every error a user can meet, as one tree.

    ForecastleError
    ├─ UserError       exit 2, never retried: the user can mend it
    │  ├─ TaskError         a task file that cannot be (every bad field at once)
    │  ├─ SettingsError     an environment variable that cannot be
    │  ├─ RequestError      a request to the service that cannot be
    │  └─ FormatError       a store that another version of forecastle wrote
    ├─ GateError       exit 3, never retried: the data must not go on
    │  ├─ QualityGateFailed the mandatory gate said no
    │  ├─ NotEnoughHistory  too little to train or to forecast on
    │  └─ AnswerChanged     the source answered something else than agreed
    └─ OutsideError    exit 4, retried: somebody else's machine
       ├─ SourceUnavailable   no answer, an empty one, 429, 5xx
       │  ├─ DataTooOld          what is known is too old to forecast from
       │  └─ NothingThere        an answer without a row of what was asked
       ├─ StorageUnavailable  a folder, bucket or database that does not answer
       └─ RegistryUnavailable the model registry does not answer

A message has three parts: what was expected, what was found, what to do. Doors (command line, HTTP, DAG)
translate an error once, by its ``exit_code`` and ``retried``; nothing below a door prints or exits.
"""

from __future__ import annotations

import re
from json import JSONDecodeError
from typing import Any

UNEXPECTED_EXIT = 1
WORSE_CHALLENGER_EXIT = 5
INTERRUPTED_EXIT = 130

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class ForecastleError(Exception):
    """Say what was expected, what was found (series, column, time) and what to do about it."""

    exit_code = UNEXPECTED_EXIT
    retried = False

    def __init__(self, expected: str, found: str, action: str) -> None:
        expected, found, action = (printable(part) for part in (expected, found, action))
        self.expected = expected
        self.found = found
        self.action = action
        stop = "" if found.endswith(("?", "\n")) else "."
        super().__init__(f"Expected {expected}; found {found.rstrip('.')}{stop} {action}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process makes it of again: not its parts, for what they are differs from kind to kind."""
        return _again, (type(self), self.args, dict(self.__dict__))


class UserError(ForecastleError):
    """Name a mistake the user can mend."""

    exit_code = 2


class TaskError(UserError):
    """Name every mistake of a task file at once."""


class SettingsError(UserError):
    """Name a setting that cannot be."""


class RequestError(UserError):
    """Name what is wrong with the body or a parameter of a request."""


class FormatError(UserError):
    """Name a store whose format this version does not read, and the version that does."""


class GateError(ForecastleError):
    """Stop data, or a lack of it, from going on."""

    exit_code = 3


class QualityGateFailed(GateError):
    """Say which checks failed and where the batch lies in quarantine."""


class NotEnoughHistory(GateError):
    """Say how much history there is and when it will be enough."""


class AnswerChanged(GateError):
    """Say how a source's answer differs from what was agreed."""


class OutsideError(ForecastleError):
    """Name a fault outside forecastle that may heal by itself."""

    exit_code = 4
    retried = True


class SourceUnavailable(OutsideError):
    """Say which source did not answer, or answered with nothing."""


class DataTooOld(SourceUnavailable):
    """Say how old the newest value is, and how old it may be; ``retry_after`` is when to ask again, in seconds."""

    def __init__(self, expected: str, found: str, action: str, retry_after: int) -> None:
        super().__init__(expected, found, action)
        self.retry_after = retry_after


class NothingThere(SourceUnavailable):
    """Say that a source has answered, and has no row of what was asked."""


class StorageUnavailable(OutsideError):
    """Say which store did not answer."""


class RegistryUnavailable(OutsideError):
    """Say that the model registry did not answer."""


def _again(kind: type[ForecastleError], said: tuple[Any, ...], held: dict[str, Any]) -> ForecastleError:
    error = kind.__new__(kind, *said)
    error.args = said
    error.__dict__.update(held)
    return error


def printable(text: str) -> str:
    """Return a text whose control characters, but for tabs and new lines, are written as escapes: others wrote it, and
    it goes to terminals and into databases, one of which takes no NUL."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def plainly(error: BaseException) -> str:
    """Return in words what an error of the system or a library says: one line, without its numbers and codes."""
    if isinstance(error, JSONDecodeError):
        return f"no JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are no text in UTF-8, at byte {error.start}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
