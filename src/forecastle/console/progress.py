"""How far long work is, and how much longer it will take, on standard error: where somebody looks at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOOKED_BACK = 600.0  # seconds over which the pace is taken: a single fit may take a minute

Tell = Callable[[str, int, int], None]
"""Told what is at work, how much of it is done and of how much, in whatever unit."""


@contextmanager
def measured(text: str, console: Console | None = None) -> Iterator[Tell]:
    """Yield what is to be told how far the work is; it shows that, the time passed, and an estimate of what is left.

    Each new description begins anew, with its own pace. Where nobody looks at a terminal nothing is shown.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=LOOKED_BACK) as shown:
        row = shown.add_task(text, total=None)

        def tell(what: str, done: int, of: int) -> None:
            if shown.tasks[row].description != what:
                shown.reset(row, description=what)
            shown.update(row, completed=done, total=of)

        yield tell
