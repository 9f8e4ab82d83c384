"""The models of a task: list and show them, and decide by hand which one serves."""

from __future__ import annotations

from typing import Annotated

import typer

from forecastle.cli.options import AsJson, By, Now, TaskFile, enter, moment, print_json, user

app = typer.Typer(
    help="List and show a task's models; promote, reject and roll back by hand; follow the registry.",
    epilog="Example: forecastle registry list --task tasks/nyc-temperature.toml",
    no_args_is_help=True,
)

Version = Annotated[str, typer.Argument(help="A version's number, champion or challenger.", show_default=False)]
Why = Annotated[str, typer.Option(help="Why, for whoever reads the audit trail.", show_default=False)]


@app.command("list", epilog="Example: forecastle registry list --task tasks/nyc-temperature.toml")
def list_(
    task: TaskFile,
    events: Annotated[bool, typer.Option("--events", help="The audit trail instead: who, when, what, why.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the versions of a task's model, the newest first, with their stage, scores and who promoted them."""
    from forecastle.models import audit, publishing

    settings, loaded = enter(task)
    found = audit.events(settings, loaded) if events else publishing.listing(settings, loaded)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        from forecastle.console import models

        told = [one.as_dict() for one in found]
        models.print_events(told) if events else models.print_versions(told, loaded)


@app.command(epilog="Example: forecastle registry show champion --task tasks/nyc-temperature.toml")
def show(version: Version, task: TaskFile, as_json: AsJson = False) -> None:
    """Show one version: every candidate's figures, what its trees learnt from, who decided what about it."""
    from forecastle.models import publishing

    settings, loaded = enter(task)
    found = publishing.show(settings, loaded, version)
    if as_json:
        print_json(found.as_dict())
    else:
        from forecastle.console.models import print_version

        print_version(found.as_dict(), loaded)


@app.command(
    epilog='Example: forecastle registry promote 3 --task tasks/nyc-temperature.toml --why "knows the new station"'
)
def promote(
    version: Version, task: TaskFile, why: Why, by: By = None, now: Now = None, as_json: AsJson = False
) -> None:
    """Let a version serve because you say so, whatever it scored: alias and tags first, then bundle and pointer."""
    from forecastle.models import publishing

    settings, loaded = enter(task)
    current = publishing.promote_registered(settings, loaded, version, moment(now), why, by or user())
    _tell("promoted", current.version, as_json)


@app.command(
    epilog='Example: forecastle registry reject challenger --task tasks/nyc-temperature.toml --why "a sensor was moved"'
)
def reject(version: Version, task: TaskFile, why: Why, by: By = None, now: Now = None, as_json: AsJson = False) -> None:
    """Turn a version down: it is no challenger any more, and nothing rolls back to it. It stays in the registry."""
    from forecastle.models import publishing

    settings, loaded = enter(task)
    rejected = publishing.reject(settings, loaded, version, moment(now), why, by or user())
    _tell("rejected", rejected.version, as_json)


@app.command(epilog='Example: forecastle registry rollback --task tasks/nyc-temperature.toml --why "errors since noon"')
def rollback(
    task: TaskFile,
    why: Why,
    to: Annotated[
        str | None, typer.Option(help="The version to go back to; default: the one that served before.")
    ] = None,
    by: By = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Let the version serve again that served before, and turn down the one that serves now."""
    from forecastle.models import publishing

    settings, loaded = enter(task)
    current = publishing.rollback(settings, loaded, moment(now), why, by or user(), to)
    _tell("rolled back to", current.version, as_json)


@app.command(epilog="Example: forecastle registry sync --task tasks/nyc-temperature.toml")
def sync(
    task: TaskFile,
    why: Annotated[str, typer.Option(help="Why, for whoever reads the audit trail.")] = "",
    by: By = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Publish what the alias champion names where another serves: after a crash, or after a move in MLflow."""
    from forecastle.models import publishing

    settings, loaded = enter(task)
    found = publishing.sync(settings, loaded, moment(now), by or user(), why)
    if as_json:
        print_json({"version": found.version, "before": found.before, "moved": found.moved})
    elif found.version is None:
        typer.echo(f"The registry names no champion; what serves goes on ({found.before or 'nothing'}).")
    elif found.moved:
        typer.echo(f"Version {found.version} serves now, as the registry says; before: {found.before or 'none'}.")
    else:
        typer.echo(f"In step: version {found.version} serves, as the registry says.")


def _tell(what: str, version: str, as_json: bool) -> None:
    if as_json:
        print_json({"done": what, "version": version})
    else:
        typer.echo(f"{what.capitalize()} version {version}.")
