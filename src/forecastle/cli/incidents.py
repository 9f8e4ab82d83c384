"""Incidents and alert rules: what went wrong, what was done about it, and the rules as files for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forecastle.cli.options import AsJson, Now, moment, named, print_json

app = typer.Typer(
    help="List, show and close incidents.", epilog="Example: forecastle incidents list --open", no_args_is_help=True
)
alerts = typer.Typer(
    help="The alert rules, for Prometheus, Alertmanager and Grafana.",
    epilog="Example: forecastle alerts render --tasks tasks --output monitoring",
    no_args_is_help=True,
)

Number = Annotated[int, typer.Argument(help="The incident, as list numbers it.", show_default=False)]


@app.command("list", epilog="Example: forecastle incidents list --open")
def list_(
    task: Annotated[str | None, typer.Option(help="A task's name or its file; default: every task there is.")] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List incidents, the newest first: number, task, kind, from when to when."""
    from forecastle.monitoring import incidents
    from forecastle.monitoring.journal import Journal
    from forecastle.settings import load_settings

    name = named(task)
    with Journal(load_settings().journal_url) as journal:
        found = incidents.listing(journal, name, open_only, limit)
    if as_json:
        print_json(found)
    else:
        from forecastle.console.incidents import print_incidents

        print_incidents(found)


@app.command(epilog="Example: forecastle incidents show 7")
def show(number: Number, as_json: AsJson = False) -> None:
    """Show one incident with each step that was taken and its time."""
    from forecastle.monitoring import incidents
    from forecastle.monitoring.journal import Journal
    from forecastle.settings import load_settings

    with Journal(load_settings().journal_url) as journal:
        found = incidents.as_dict(*incidents.find(journal, number))
    if as_json:
        print_json(found)
    else:
        from forecastle.console.incidents import print_incident

        print_incident(found)


@app.command(epilog='Example: forecastle incidents close 7 --note "The sensor was exchanged."')
def close(
    number: Number,
    note: Annotated[str, typer.Option(help="What is to be said of it.")] = "Closed by hand.",
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Close an incident by hand; one whose measure is still bad is opened again at the next look."""
    from forecastle.monitoring import incidents
    from forecastle.monitoring.journal import Journal
    from forecastle.settings import load_settings

    settings = load_settings()
    with Journal(settings.journal_url) as journal:
        closed = incidents.close(journal, settings, number, note, moment(now))
    if as_json:
        print_json({"number": number, "closed": closed})
    else:
        typer.echo(f"Closed incident {number}." if closed else f"Incident {number} was closed already.")


@alerts.command(epilog="Example: forecastle alerts render --tasks tasks --output monitoring")
def render(
    tasks: Annotated[list[Path], typer.Option(help="Task files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("monitoring"),
    as_json: AsJson = False,
) -> None:
    """Write the rules of these tasks as files for Prometheus, Alertmanager and Grafana, with Grafana's dashboard."""
    from forecastle.monitoring.rendering import write
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    written = write(load_tasks(tasks), output, load_settings().runbook_url)
    if as_json:
        print_json([str(path) for path in written])
        return
    for path in written:
        typer.echo(f"Wrote {path}")


@alerts.command(epilog="Example: forecastle alerts test")
def test(as_json: AsJson = False) -> None:
    """Send one message to everyone FORECASTLE_ALERT_URLS names; exit 4 where one of them does not take it."""
    from forecastle.monitoring.telling import try_addresses
    from forecastle.settings import load_settings

    count = try_addresses(load_settings())
    if as_json:
        print_json({"told": count})
    else:
        typer.echo(f"Told {count} addresses." if count else "No address is set, so the log was told.")
