"""The command line: arguments → call → exit code. Nothing here decides anything.

Heavy rooms are imported inside the commands that enter them, so that ``forecastle --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from forecastle import __version__
from forecastle.cli import (
    airflow,
    connect,
    doors,
    flows,
    incidents,
    lineage,
    models,
    quarantine,
    registry,
    report,
    shipping,
    stores,
)
from forecastle.cli.helping import HELP
from forecastle.cli.options import complain
from forecastle.errors import INTERRUPTED_EXIT, UNEXPECTED_EXIT, ForecastleError, UserError
from forecastle.leaving import FAREWELL
from forecastle.memory import take_sparingly

app = typer.Typer(
    name="forecastle",
    help="Turn a live API into forecasts that can be trusted.",
    epilog="Start with: forecastle demo, or: forecastle init my-task",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": [*HELP]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 fine, 2 your input, 3 the data, 4 another machine, 130 Ctrl-C."""
    try:
        code = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        if code == INTERRUPTED_EXIT:  # Typer turns Ctrl-C into it
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ForecastleError as error:
        complain(str(error))
        return error.exit_code
    except typer.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write(FAREWELL)
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED_EXIT
    except TyperException as error:
        if error.format_message():  # empty where the help was asked for by giving nothing
            complain(f"{error.format_message()}\nSee: forecastle --help, or --help behind a command.")
        return UserError.exit_code


@app.callback(invoke_without_command=True)
def forecastle(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Turn a live API into forecasts that can be trusted."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    take_sparingly()


for room in (doors.app, flows.app, models.app, lineage.app, stores.app, shipping.app, report.app):
    app.add_typer(room)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(incidents.app, name="incidents")
app.add_typer(incidents.alerts, name="alerts")
app.add_typer(connect.app, name="connect")
app.add_typer(airflow.app, name="airflow")
app.add_typer(registry.app, name="registry")
