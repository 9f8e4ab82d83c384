"""Commands that speak to Airflow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from forecastle.cli.options import AsJson, TaskFile, enter, flows, moment, print_json

app = typer.Typer(
    help="Start the flows at Airflow.",
    epilog="Example: forecastle airflow trigger train --task tasks/nyc-temperature.toml --wait",
    no_args_is_help=True,
)


@app.callback()
def airflow() -> None:
    """Start the flows at Airflow."""


@app.command(epilog="Example: forecastle airflow trigger train --task tasks/nyc-temperature.toml --wait")
def trigger(
    flow: Annotated[str, typer.Argument(help="train, live, challenge or collect.", autocompletion=flows)],
    task: TaskFile,
    wait: Annotated[
        bool, typer.Option(help="Stay until the run has ended, and exit as the step that failed it.")
    ] = False,
    now: Annotated[
        str | None, typer.Option(help="The run's logical date, ISO 8601 in UTC; default: when it is started.")
    ] = None,
    unpause: Annotated[bool, typer.Option("--unpause", help="Unpause the DAG first.")] = False,
    patience: Annotated[float, typer.Option(min=1, help="Seconds to wait for the end.")] = 7200,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Start a run of a flow at Airflow, by its API; with --wait show each step as it ends."""
    from forecastle.delivery import airflow as door
    from forecastle.http import Client

    settings, loaded = enter(task)
    clock = datetime.now(UTC)
    logical = None if now is None else moment(now)
    run_id = f"forecastle-{clock:%Y%m%dT%H%M%S.%fZ}"
    with Client(settings) as client:
        entered = door.enter(settings, client)
        run = door.trigger(entered, f"{loaded.name}-{flow}", run_id, logical, "Started by forecastle.", unpause)
        if not as_json:
            typer.echo(f"Run {run.id} of {run.dag}: {run.page}")
        if wait:
            for step, state in door.follow(entered, run, patience, interval):
                if not as_json:
                    typer.echo(f"{step:<14} {state}")
            door.verdict(entered, run)
    if as_json:
        print_json({"dag": run.dag, "run": run.id, "page": run.page, "state": "success" if wait else run.state})
