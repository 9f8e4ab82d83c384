"""Commands of delivery: a report on a pull request, and the champion for an image."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from forecastle.cli.options import AsJson, complain, print_json

app = typer.Typer()


@app.command(epilog="Example: forecastle comment report/comparison.md")
def comment(
    report: Annotated[Path, typer.Argument(help="The Markdown file to show.")],
    name: Annotated[str, typer.Option(help="Which comment it is; one of each name stands.")] = "comparison",
    repository: Annotated[str, typer.Option(envvar="GITHUB_REPOSITORY", help="The repository, as owner/name.")] = "",
    ref: Annotated[
        str, typer.Option(envvar="GITHUB_REF", help="What the job runs for; refs/pull/N/… is pull request N.")
    ] = "",
    summary: Annotated[
        Path | None, typer.Option(envvar="GITHUB_STEP_SUMMARY", help="The file of the job's summary.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a report in the job's summary and as one comment on the pull request, updated in place."""
    from forecastle.delivery.github import post, pull_request_of
    from forecastle.errors import UserError
    from forecastle.settings import load_settings

    try:
        text = report.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"a Markdown file at {report}", str(error), "Write it: forecastle compare --output …") from None
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    found = pull_request_of(repository, ref)
    settings = load_settings()
    posted = None if found is None else post(settings, found, text, name)
    if as_json:
        print_json({"url": posted.url, "created": posted.created} if posted else {"url": None, "created": False})
    elif posted is None:
        typer.echo(f"{ref or 'No ref'} is no pull request: nothing was posted")
    else:
        typer.echo(f"{'Posted' if posted.created else 'Updated'} {posted.url}")
    if posted is not None and posted.by.casefold() != settings.github_login.casefold():
        complain(
            f"the comment is {posted.by or 'somebody'}'s, not {settings.github_login}'s, so the next one will stand"
            " beside it: set FORECASTLE_GITHUB_LOGIN to its author"
        )


@app.command(epilog="Example: forecastle bake --task tasks/nyc-temperature.toml --to build/model")
def bake(
    task: Annotated[list[Path], typer.Option("--task", help="Task files, or folders of them.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="The folder an image is built with (Dockerfile.api, MODEL).")],
    as_json: AsJson = False,
) -> None:
    """Fetch the champions of tasks from the registry to where an image is built, or to a home that has none yet."""
    from forecastle.models.baked import bake as bake_one
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    settings = load_settings()
    for one in load_tasks(task):
        pointer = bake_one(settings, one, to, datetime.now(UTC))
        if as_json:
            print_json({"task": one.name, "version": pointer.version, "data_version": pointer.data_version})
        else:
            typer.echo(
                f"{one.name}: champion {pointer.version} of data {pointer.data_version[:12]} in {pointer.folder}"
            )
