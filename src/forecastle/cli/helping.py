"""What shows help, without what it would only import.

Typer draws help with a module that also imports Rich's Markdown and tracebacks, for apps that write their help in
Markdown or have their faults drawn. This one does neither, and they take a quarter of the time of ``--help``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

HELP = ("-h", "--help")
DRAWN_BY_TYPER = "typer.rich_utils"
NEVER_DRAWN = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def import_help() -> None:
    """Import what draws help, if it is not there yet, with a name in place of each class that is never drawn.

    For a process that shows help and ends: Typer has those names from then on. Whoever imports the modules themselves
    afterwards gets them whole.
    """
    absent = [name for name in NEVER_DRAWN if name not in sys.modules]
    if DRAWN_BY_TYPER in sys.modules:
        return
    for name in absent:
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], NEVER_DRAWN[name], type(NEVER_DRAWN[name], (), {}))
    try:
        importlib.import_module(DRAWN_BY_TYPER)
    finally:
        for name in absent:
            del sys.modules[name]
