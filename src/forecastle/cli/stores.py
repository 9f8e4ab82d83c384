"""Commands for who runs forecastle: examine an installation; prune, back up, restore and migrate its stores."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from forecastle.cli.options import AsJson, Now, moment, print_json

app = typer.Typer()

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command(epilog="Example: forecastle doctor --task tasks")
def doctor(
    task: Annotated[
        list[Path] | None, typer.Option("--task", help="Task files, or folders of them, to examine too.")
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the hosts of the tasks' sources too, for their first page.")
    ] = False,
    now: Now = None,
    as_json: AsJson = False,
) -> int:
    """Say what is configured, whether it answers, and what would stop a run; the exit code is that of the gravest."""
    from forecastle.operations.doctor import examine
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    findings = []
    for finding in examine(load_settings(), load_tasks(task) if task else (), moment(now), online):
        findings.append(finding)
        if as_json:
            print_json(finding.__dict__)
        else:
            from forecastle.console.doctor import print_finding

            print_finding(finding)
    return max(finding.exit_code for finding in findings)


@app.command(epilog="Example: forecastle prune --task tasks/nyc-temperature.toml --dry-run")
def prune(
    task: Annotated[list[Path], typer.Option("--task", help="Task files, or folders of them.", show_default=False)],
    dry_run: DryRun = False,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Remove from the stores what is older than the settings keep it (FORECASTLE_KEEP_…), but nothing a live model
    rests on."""
    from forecastle.operations.retention import prune as prune_stores
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    for one in prune_stores(load_settings(), load_tasks(task), moment(now), dry_run):
        if as_json:
            print_json({**one.__dict__, "dry_run": dry_run})
        else:
            size = "" if one.bytes is None else f", {one.bytes / 1e6:.1f} MB"
            kept = f"; {one.needed} stay that a live model rests on or that are the newest" if one.needed else ""
            verb = "would go" if dry_run else "gone"
            typer.echo(f"{one.task} {one.store}: {one.items} {verb}{size}, older than {one.days} days{kept}")


@app.command(epilog="Example: forecastle backup --to /backups/2026-11-23.tar.gz")
def backup(
    to: Annotated[Path, typer.Option("--to", help="A folder or .tar(.gz) file that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy all stores, history and archive in a bucket too, while live runs go on."""
    from forecastle.console.progress import measured
    from forecastle.operations.backup import back_up
    from forecastle.settings import load_settings

    with measured("Looking what there is…") as tell:
        made = back_up(load_settings(), to, datetime.now(UTC), lambda *_: None if as_json else _tell(*_), tell)
    if as_json:
        print_json(made.__dict__)
        return
    typer.echo(f"Backed up {made.files} files, {made.bytes / 1e6:.1f} MB, to {made.path}")
    for store, advice in made.elsewhere.items():
        typer.echo(f"Not in it: {store}, which lies elsewhere; {advice}.")


@app.command(epilog="Example: forecastle restore --from /backups/2026-11-23.tar.gz")
def restore(
    source: Annotated[Path, typer.Option("--from", help="What forecastle backup has made.", show_default=False)],
    force: Annotated[bool, typer.Option(help="Move the stores that are there aside first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup into an empty home folder, every file verified. Stop what runs on it first."""
    from forecastle.console.progress import measured
    from forecastle.operations.restoring import restore as restore_stores
    from forecastle.settings import load_settings

    with measured("Opening the backup…") as tell:
        done = restore_stores(
            load_settings(), source, datetime.now(UTC), force, lambda *_: None if as_json else _tell(*_), tell
        )
    if as_json:
        print_json(done.__dict__)
        return
    typer.echo(f"Restored {done.files} files, {done.bytes / 1e6:.1f} MB, as they were at {done.made_at.isoformat()}")
    if done.aside is not None:
        typer.echo(f"What was there before lies in {done.aside}")
    for store, advice in done.elsewhere.items():
        typer.echo(f"Not in the backup: {store} ({advice}).")


@app.command(epilog="Example: forecastle migrate --dry-run")
def migrate(dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Bring stores that an older forecastle wrote to the formats of this one."""
    from forecastle.operations.migration import migrate as migrate_stores
    from forecastle.settings import load_settings

    steps = migrate_stores(load_settings(), dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "steps": [one.__dict__ for one in steps]})
        return
    for one in steps:
        typer.echo(f"{one.store}: {'would go' if dry_run else 'gone'} to {one.to}: {one.says}")
    if not steps:
        typer.echo("Every store is up to date.")


def _tell(store: str, files: int) -> None:
    if files:
        typer.echo(f"  {store}: {files} files", err=True)
