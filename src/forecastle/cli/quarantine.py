"""What the gate refused: list it, look at it, let it pass against the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecastle.cli.options import AsJson, By, Now, TaskFile, enter, moment, print_json, user

app = typer.Typer(
    help="List, show and release what the quality gate refused.",
    epilog="Example: forecastle quarantine list",
    no_args_is_help=True,
)

SomeTask = Annotated[
    Path | None, typer.Option("--task", help="The task file (TOML); default: every task of the home folder.")
]
Name = Annotated[str, typer.Argument(help="The batch, as list names it.", show_default=False)]


@app.command("list", epilog="Example: forecastle quarantine list --task tasks/nyc-temperature.toml")
def list_(
    task: SomeTask = None,
    released: Annotated[bool, typer.Option("--released", help="Also list what has been released.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the batches that wait for a decision: task, when, rows, reason."""
    from forecastle.data import formats
    from forecastle.data.quarantine import quarantined
    from forecastle.settings import load_settings

    if task is None:
        settings = load_settings()
        homes = sorted(path.parent for path in settings.home.glob("*/quarantine"))
    else:
        settings, loaded = enter(task)
        homes = [settings.task_folder(loaded.name)]
    formats.check_home(settings.home)
    found = [one for home in homes for one in quarantined(home) if released or one.is_waiting]
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        from forecastle.console.quarantine import print_quarantine

        print_quarantine([one.as_dict() for one in found])


@app.command(epilog="Example: forecastle quarantine show 20130212T080000Z-1a2b3c4d --task tasks/nyc-temperature.toml")
def show(name: Name, task: TaskFile, as_json: AsJson = False) -> None:
    """Show one batch: the gate's report with the offending rows, and where the page lies."""
    from forecastle.data.quarantine import find

    settings, loaded = enter(task)
    one = find(settings.task_folder(loaded.name), name)
    if as_json:
        print_json({**one.as_dict(), "report": one.report()})
    else:
        from forecastle.console.quarantine import print_quality

        print_quality(one.as_dict(), one.report())


@app.command(
    epilog="Example: forecastle quarantine release 20130212T080000Z-1a2b3c4d --task tasks/nyc-temperature.toml "
    '--because "the source has confirmed it"'
)
def release(
    name: Name,
    task: TaskFile,
    because: Annotated[str, typer.Option(help="Why, for whoever reads the report.")] = "",
    by: By = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Let a batch into the history against the gate; what the gate masks stays masked, and who decided it is noted.
    Of a batch that was released before, that decision stays."""
    from forecastle.data.intake import release as let_pass
    from forecastle.data.quarantine import find
    from forecastle.data.store import task_stores

    settings, loaded = enter(task)
    home, stores = settings.task_folder(loaded.name), task_stores(settings, loaded.name)
    before = find(home, name).released
    intake = let_pass(loaded, home, name, by or user(), moment(now), because, stores)
    appended = intake.appended
    figures = {"new": appended.new, "revised": appended.revised, "known": appended.known}
    if as_json:
        print_json({"name": name, **figures, "released": find(home, name).released})
    elif before is not None and before["done"]:
        reason = f" because {before['because']!r}" if before["because"] else ""
        typer.echo(
            f"{name} was released before, by {before['by']} at {before['at']:%Y-%m-%d %H:%M} UTC{reason}; that stays."
        )
    else:
        typer.echo(
            f"Released {name}: {appended.new} new rows in the history, {appended.revised} revised, "
            f"{appended.known} known already."
        )
