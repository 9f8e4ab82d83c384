"""The command that tells what a forecast rests on."""

from __future__ import annotations

from typing import Annotated

import typer

from forecastle.cli.options import AsJson, TaskFile, enter, print_json

app = typer.Typer()


@app.command(epilog="Example: forecastle lineage champion --task tasks/nyc-temperature.toml")
def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A forecast's id (or its first 8 digits), a model version, champion or challenger.", show_default=False
        ),
    ],
    task: TaskFile,
    as_json: AsJson = False,
) -> None:
    """Show what a forecast rests on: model version, data version, git commit, archived answers."""
    from forecastle.data import formats
    from forecastle.lineage import trace
    from forecastle.monitoring.journal import Journal

    settings, loaded = enter(task)
    formats.check_home(settings.home)
    with Journal(settings.journal_url) as journal:
        found = trace(settings, loaded, journal, name)
    if as_json:
        print_json(found.as_dict())
    else:
        from forecastle.console.lineage import print_lineage

        print_lineage(found, loaded)
