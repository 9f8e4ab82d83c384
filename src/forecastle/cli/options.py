"""What commands share: their options, how they are entered, and how they speak."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from forecastle.settings import Settings
    from forecastle.task import Task

AHEAD = timedelta(hours=1)  # how far another clock may be before this one

TaskFile = Annotated[Path, typer.Option("--task", help="The task file (TOML).", show_default=False)]
Now = Annotated[str | None, typer.Option(help="The moment to act as, ISO 8601 in UTC; default: the clock.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program to read.")]
By = Annotated[str | None, typer.Option(help="Who decides this; default: the user who runs the command.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain log lines instead of live progress.")]


def enter(file: Path) -> tuple[Settings, Task]:
    """Return the settings and the task of a file."""
    from forecastle.settings import load_settings
    from forecastle.task import load_task

    task = load_task(file)
    return load_settings(), task


def named(task: str | None) -> str | None:
    """Return the name of a task that was given by its name, or by its file as most commands want it."""
    if task is None or not (task.endswith(".toml") or "/" in task):
        return task
    from forecastle.task import load_task

    return load_task(Path(task)).name


def moment(text: str | None) -> datetime:
    """Read the moment to act as (UTC where it names no zone); None is the clock.

    Raises TaskError for anything else, and for a moment to come: what is noted as of then would hide what is before it.
    """
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        from forecastle.errors import TaskError

        raise TaskError("a moment such as 2013-12-01T00:00Z", repr(text), "Write it as ISO 8601.") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    if found > datetime.now(UTC) + AHEAD:
        from forecastle.errors import TaskError

        raise TaskError("a moment that has been", f"{text!r}, which is to come", "Leave --now out to act as of now.")
    return found


def user() -> str:
    """Return the name of the user who runs the command. Raises UserError where the machine knows none."""
    from getpass import getuser

    try:
        return getuser()
    except (OSError, KeyError):
        from forecastle.errors import UserError

        raise UserError("to know who decides this", "a user without a name", "Say it: --by NAME") from None


def working(text: str) -> AbstractContextManager[object]:
    """Turn a spinner and count the seconds while something long works, where somebody looks at a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    shown.add_task(text, total=None)
    return shown


def flows() -> list[str]:
    """Return the flows there are, for a shell that completes them."""
    return ["train", "live"]


def print_json(value: Any) -> None:
    """Print a value as one line of strict JSON."""
    from forecastle.frame import to_json

    typer.echo(to_json(value))


def complain(message: str) -> None:
    """Say what went wrong, on standard error."""
    typer.echo(f"forecastle: {message}", err=True)
