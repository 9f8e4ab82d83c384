"""What a process of forecastle's own leaves out of the libraries it imports: what they import for others.

Typer draws help by a module that also imports Rich's Markdown and tracebacks; LightGBM imports all of scikit-learn,
where that is installed, for estimators in its manner. A process that runs the program needs neither, and importing
them takes a quarter of the time of ``--help`` and a second of a training. Where forecastle is imported into another
program, such as a notebook, libraries are imported whole.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

NEVER_DRAWN = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}

_own = False


def own_process() -> None:
    """From now on let libraries be imported without what they would import for others."""
    global _own
    _own = True


def import_help() -> None:
    """Import what draws help, with a name in place of each class that is never drawn."""
    _import("typer.rich_utils", {name: _with_a(shown) for name, shown in NEVER_DRAWN.items()})


def import_without(name: str, *others: str) -> ModuleType:
    """Return a library that was imported as if these others were not installed; those that are imported are there."""
    return _import(name, {other: None for other in others})


def _import(name: str, others: Mapping[str, ModuleType | None]) -> ModuleType:
    with _in_place(others if _own and name not in sys.modules else {}):
        return importlib.import_module(name)


@contextmanager
def _in_place(others: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Let modules that are not imported yet be others while the block runs; who imports them afterwards gets them."""
    absent = [name for name in others if name not in sys.modules]
    sys.modules.update({name: others[name] for name in absent})  # type: ignore[misc]  # None: it cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _with_a(name: str) -> ModuleType:
    made = ModuleType(name)
    setattr(made, name, type(name, (), {}))
    return made
