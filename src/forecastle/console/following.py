"""Which step of a flow is at work, for how long, and how long it took the last time: where somebody looks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from forecastle.pipeline import Outcome
    from forecastle.run import Run

LOOKED_AT = 5  # runs back


def follow(run: Run, names: Sequence[str], outcomes: Iterator[Outcome], console: Console) -> Iterator[Outcome]:
    """Yield the outcomes of the steps as they come; meanwhile show which is at work, if the console is a terminal."""
    if not console.is_terminal:
        yield from outcomes
        return
    usual = usual_seconds(run)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[usual]}"),
    )
    for number in range(len(names) + 1):
        name = names[number] if number < len(names) else names[-1]
        known = f"of about {usual[name]:.0f} s" if usual.get(name, 0.0) >= 1 else ""
        with Progress(*columns, console=console, transient=True) as shown:
            shown.add_task(name, total=None, usual=known)
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome


def usual_seconds(run: Run) -> dict[str, float]:
    """Return how long each step took in the newest run of this flow, before this one, that has done it."""
    before = sorted((run.home / "runs").glob(f"{run.flow}-*"), reverse=True)
    found: dict[str, float] = {}
    for folder in [one for one in before if one != run.folder][:LOOKED_AT]:
        for note in (folder / "steps").glob("*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                said = json.loads(note.read_bytes())
                if said["ok"]:
                    found.setdefault(note.stem, float(said["seconds"]))
    return found
