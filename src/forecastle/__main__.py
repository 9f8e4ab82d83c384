"""The program: the command ``forecastle``, or ``python -m forecastle``."""

from __future__ import annotations

import sys

from forecastle.leaving import leave_on_signals
from forecastle.memory import look_rarely


def program() -> int:
    """Run the command this process was started with, ready to be told to leave; returns its exit code."""
    leave_on_signals()
    look_rarely()
    from forecastle.cli import main  # only now: most of what a process imports comes with it and its commands
    from forecastle.cli.helping import HELP, import_help

    words = sys.argv[1:]
    if not words or not set(HELP).isdisjoint(words):
        import_help()
    return main(words)


if __name__ == "__main__":
    sys.exit(program())
