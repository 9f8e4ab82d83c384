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

    return main()


if __name__ == "__main__":
    sys.exit(program())
