"""What stands behind a forecast: which features moved it."""

from __future__ import annotations

from typing import Annotated

import typer

from forecastle.cli.options import AsJson, Now, TaskFile, enter, moment, print_json

app = typer.Typer()


@app.command(epilog="Example: forecastle explain --task tasks/nyc-temperature.toml --series JFK --horizon 3")
def explain(
    task: TaskFile,
    series: Annotated[str, typer.Option(help="The series whose forecast is explained.", show_default=False)],
    horizon: Annotated[int, typer.Option(help="How many steps ahead.")] = 1,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Say which features moved the champion's newest forecast of a series: exactly, as a sum."""
    from forecastle.explaining import explain as explained
    from forecastle.pipeline import open_run

    settings, loaded = enter(task)
    with open_run(loaded, settings, "live", moment(now)) as run:
        told = explained(run, series, horizon)
    if as_json:
        print_json(told.as_dict())
    else:
        from forecastle.console.models import print_explanation

        print_explanation(told, loaded)
