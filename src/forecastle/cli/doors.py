"""Commands that start something to look at: the demo, a new task file, the service, the replay."""

from __future__ import annotations

import gc
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from forecastle.cli.options import AsJson, Plain, moment, print_json
from forecastle.errors import UNEXPECTED_EXIT

app = typer.Typer()


class Domain(StrEnum):
    """What kind of forecast a task makes."""

    environmental = "environmental"
    financial = "financial"
    logistics = "logistics"


@app.command(epilog="Example: forecastle demo --plain")
def demo(
    keep: Annotated[bool, typer.Option(help="Leave the service up at the end and print its address.")] = False,
    plain: Plain = False,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps everything.")] = Path("demo"),
    days: Annotated[int, typer.Option(min=14, help="Simulated days of live forecasting.")] = 14,
) -> int:
    """Run the whole system on recorded real data, from the first request to the first scored forecasts."""
    from forecastle.demo.story import tell

    fine = tell(folder, keep=keep, plain=plain or not sys.stdout.isatty(), days=days)
    return 0 if fine else UNEXPECTED_EXIT


@app.command(epilog="Example: forecastle init bikes --path bikes.csv --target bikes --horizon 12h")
def init(
    name: Annotated[str, typer.Argument(help="The task's name; NAME.toml is written.")],
    provider: Annotated[
        str | None, typer.Option(help="open-meteo, or file for a CSV or Parquet table (default where --path is given).")
    ] = None,
    from_url: Annotated[
        str | None, typer.Option("--from-url", help="Propose a task from what this address of a JSON API answers.")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="file: the long table (series_id, timestamp, values).")] = None,
    target: Annotated[str | None, typer.Option(help="file: the column to forecast.")] = None,
    frequency: Annotated[
        str | None, typer.Option(help="file: one step, such as 1h, 30m or 1d (default: how far apart the rows lie).")
    ] = None,
    horizon: Annotated[
        str | None, typer.Option(help="file: how far ahead, such as 6h (default: six steps; of a day seven).")
    ] = None,
    timezone: Annotated[str, typer.Option(help="file: the zone calendars are read in.")] = "UTC",
    covariates: Annotated[str, typer.Option(help="file: further columns to use at their lags, as a,b,c.")] = "",
    season: Annotated[int | None, typer.Option(help="file: steps after which the pattern repeats.")] = None,
    grid: Annotated[str, typer.Option(help="file: regular, or observed where markets close.")] = "regular",
    holidays: Annotated[str | None, typer.Option(help="file: country code of public holidays.")] = None,
    domain: Annotated[Domain, typer.Option(help="file: environmental, financial or logistics.")] = Domain.environmental,
    force: Annotated[bool, typer.Option(help="Overwrite a file of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented task file that loads."""
    from forecastle.data import starter
    from forecastle.errors import TaskError
    from forecastle.frame import write_text
    from forecastle.task import load_task, nearest

    provider = provider or ("open-meteo" if path is None else "file")
    file = Path(f"{starter.make_name(name)}.toml")
    if file.exists() and not force:
        raise TaskError(f"no file {file} yet", "one", "Choose another name, or overwrite it with --force.")
    found, notes = "", list[str]()
    if from_url is not None:
        text, rows = _proposed(name, from_url)
        found = f", which reads {rows} rows of that answer. Look at every line of it"
    elif provider == "open-meteo":
        text = starter.open_meteo_task(name)
    elif provider == "file":
        if path is None or target is None:
            raise TaskError(
                "--path and --target with --provider file",
                " and ".join(option for option, given in (("no --path", path), ("no --target", target)) if not given),
                "Give the table and the column to forecast.",
            )
        listed = [one.strip() for one in covariates.split(",") if one.strip()]
        asked = (target, frequency, horizon, timezone, listed, season, grid, holidays, domain.value)
        text, notes = starter.file_task(name, path, Path(), *asked, moment(None))
    else:
        raise TaskError(
            "provider open-meteo or file",
            f"{provider!r}{nearest(provider, ('open-meteo', 'file'))}",
            "Name one of them.",
        )
    write_text(file, text)
    load_task(file)
    following = f"forecastle {'backtest' if provider == 'file' else 'run train'} --task {file}"
    if as_json:
        print_json({"file": str(file), "next": following, "notes": notes})
    else:
        for note in notes:
            typer.echo(f"- {note}")
        typer.echo(f"Wrote {file}{found}. Next: {following}")


def _proposed(name: str, url: str) -> tuple[str, int]:
    """Ask an API once and return the task that its answer suggests, and how many rows that reads."""
    from forecastle.data import proposal
    from forecastle.errors import AnswerChanged, SourceUnavailable
    from forecastle.http import Client
    from forecastle.settings import load_settings

    request = proposal.request_for(url)
    with Client(load_settings()) as client:
        answer = client.get(request)
    if answer.status >= 400:
        raise SourceUnavailable(f"an answer from {request.source}", f"status {answer.status}", "Mend the address.")
    try:
        return proposal.propose(name, url, answer.body)
    except AnswerChanged as error:  # nothing is archived before there is a task
        action = "Open the address in a browser; it has to answer JSON that holds rows with a time."
        raise AnswerChanged(error.expected, error.found, action) from None


@app.command(epilog="Example: forecastle schema > task.schema.json")
def schema() -> None:
    """Print the JSON Schema of task files, by which an editor completes and checks them."""
    import json
    from importlib.resources import files

    print_json(json.loads((files("forecastle") / "task.schema.json").read_text(encoding="utf-8")))


@app.command(epilog="Example: forecastle serve --tasks tasks/ --port 8000")
def serve(
    tasks: Annotated[list[Path], typer.Option(help="Task files, or folders of them.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further ones.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default from the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve forecasts, scores, metrics and the live page over HTTP."""
    gc.disable()  # what is imported stays: looking for what may go would take a tenth of the start

    from forecastle.data.budget import check_schedule
    from forecastle.serving.server import serve_forever
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    chosen: dict[str, Any] = {"host": host, "port": port}
    settings = load_settings(**{name: value for name, value in chosen.items() if value is not None})
    loaded = load_tasks([*tasks, *(more or ())])
    check_schedule(loaded, settings, moment(None))
    serve_forever(settings, loaded, typer.echo)


@app.command("new-key", epilog="Example: forecastle new-key dashboard --scope read")
def new_key(
    name: Annotated[str, typer.Argument(help="What the key is for; it stands in the settings.")],
    scope: Annotated[list[str], typer.Option(help="read, write or admin; may be given again for several.")],
    as_json: AsJson = False,
) -> None:
    """Make a key of the service: print it once, and the line that the settings keep of it."""
    from forecastle.serving.keys import make_key

    key, line = make_key(name, scope)
    if as_json:
        print_json({"key": key, "line": line})
    else:
        typer.echo(f"key   {key}\nline  {line}")


@app.command(epilog="Example: forecastle replay --from 2013-12-01T00:00Z --speed 3600")
def replay(
    start: Annotated[
        str, typer.Option("--from", help="The simulated moment at which the replay starts.")
    ] = "2013-12-01T00:00Z",
    speed: Annotated[float, typer.Option(min=0, help="Simulated seconds a second.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8010,
) -> None:
    """Serve New York's recorded weather, as the Open-Meteo API does, and departures, as of a simulated now."""
    from forecastle.demo.replaying import replay_forever

    replay_forever(moment(start), speed, host, port)
