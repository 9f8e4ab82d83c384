"""The command that writes the final report, and takes its pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from forecastle.cli.options import AsJson, Now, enter, moment, print_json, working
from forecastle.errors import TaskError

app = typer.Typer()


@app.command(epilog="Example: forecastle report --task tasks/nyc-temperature.toml")
def report(
    task: Annotated[Path | None, typer.Option("--task", help="The task file (TOML).", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: reports in the home folder.", show_default=False)
    ] = None,
    screenshots: Annotated[
        bool, typer.Option("--screenshots", help="Start what the pictures show, and take them first; takes minutes.")
    ] = False,
    facts: Annotated[
        Path | None, typer.Option(help="Write the report again from a report.json, reading nothing else.")
    ] = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Write the final report from what the system measured: Markdown, one HTML page, its PDF, and the facts as JSON."""
    from forecastle.reporting import report as final
    from forecastle.reporting.facts import load

    if facts is not None:
        with working("writing the report…"):
            written = final.write(load(facts), output or facts.parent, facts.parent)
    elif task is not None:
        written = _made(task, output, screenshots, now)
    else:
        raise TaskError("--task, or --facts with a report.json", "neither", "Name the task file.")
    told: dict[str, Any] = {"folder": written.folder, "files": written.files, "not_measured": written.unmeasured}
    told |= {"pictures": written.facts.value("pictures.captured"), "without_pdf": written.without_pdf}
    if as_json:
        print_json(told)
        return
    from forecastle.console import OUT

    OUT.print(f"Wrote {', '.join(written.files)} to {written.folder}", soft_wrap=True)
    OUT.print(f"{told['pictures']} of {len(written.facts.rows('pictures'))} pictures are there", soft_wrap=True)
    if written.without_pdf:
        OUT.print(f"No PDF: {written.without_pdf}", soft_wrap=True)
    if written.unmeasured:
        missing, of = sum(written.measures.values()), len(written.facts.names())
        OUT.print(f"{missing} of {of} facts are not measured or told yet; this would, so many of them:", soft_wrap=True)
    for how, count in written.measures.items():
        OUT.print(f"  {count:>3}  {how}", style="dim", markup=False, soft_wrap=True)


def _made(file: Path, output: Path | None, screenshots: bool, now: str | None) -> Any:
    from forecastle.data import formats
    from forecastle.monitoring.journal import Journal
    from forecastle.pipeline import FLOWS
    from forecastle.reporting import report as final
    from forecastle.reporting.scene import Scene, repository

    settings, task = enter(file)
    formats.check_home(settings.home)
    folder = output or settings.home / "reports"
    flows = {name: [(step.name, step.after) for step in steps] for name, steps in FLOWS.items()}
    with Journal(settings.journal_url) as journal:
        made_at = datetime.now(UTC).replace(microsecond=0)
        scene = Scene(task, file, settings, journal, moment(now), made_at, folder, flows, commands(), repository())
        if screenshots:
            from forecastle.console import OUT
            from forecastle.pictures import take

            take(scene, lambda said: OUT.print(said, soft_wrap=True))
        with working("reading what was measured…"):
            return final.make(scene)


def commands() -> list[tuple[str, str]]:
    """Return the words of every command with the first line of its help."""
    from typer.main import get_command

    from forecastle.cli import app as whole

    found: list[tuple[str, str]] = []

    def walk(words: str, command: Any) -> None:
        children = getattr(command, "commands", {})
        if words and not children:
            found.append((words, (command.help or "").strip().splitlines()[0]))
        for name, child in children.items():
            walk(f"{words} {name}".strip(), child)

    walk("", get_command(whole))
    return sorted(found)
