"""The command line: arguments → call → exit code. Nothing here decides anything.

Heavy rooms are imported inside the commands that enter them, so that ``forecastle --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from forecastle import __version__
from forecastle.errors import INTERRUPTED_EXIT, UNEXPECTED_EXIT, ForecastleError, UserError
from forecastle.leaving import FAREWELL, leave_on_signals

if TYPE_CHECKING:
    from forecastle.pipeline import Outcome
    from forecastle.settings import Settings
    from forecastle.task import Task

app = typer.Typer(
    name="forecastle",
    help="Turn a live API into forecasts that can be trusted.",
    epilog="Start with: forecastle demo, or: forecastle init my-task",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# name: the flow it belongs to by default, what it does
STEPS = {
    "ingest": (
        "train",
        "Fetch observations from the source, archive every answer, lay the batch into the run's folder.",
    ),
    "quality-check": ("train", "Judge the fetched batch; let it into the history, or into quarantine and exit 3."),
    "transform": ("train", "Compute features and targets of all history known now: the training table."),
    "profile": ("train", "Write the profile page of the training data and the reference drift is measured against."),
    "version": ("train", "Put the training table under version control (DVC and git)."),
    "train": ("train", "Back-test every candidate, fit the one that earned it, register it."),
    "promote": ("train", "Let the newest model serve if it beats the champion and both naive methods."),
    "forecast": ("live", "Forecast every series from the newest hour known and journal it."),
    "score": ("live", "Score every forecast whose time has come, exactly once."),
    "watch": ("live", "Measure drift, data age and live skill; open or close incidents."),
}


class Domain(StrEnum):
    """What kind of forecast a task makes."""

    environmental = "environmental"
    financial = "financial"
    logistics = "logistics"


TaskFile = Annotated[Path, typer.Option("--task", help="The task file (TOML).", show_default=False)]
Now = Annotated[str | None, typer.Option(help="The moment to act as, ISO 8601 in UTC; default: the clock.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program to read.")]
Plain = Annotated[bool, typer.Option("--plain", help="Plain log lines instead of live progress.")]


def program() -> int:
    """Run the command this process was started with, ready to be told to leave."""
    leave_on_signals()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 fine, 2 your input, 3 the data, 4 another machine, 130 Ctrl-C."""
    try:
        code = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        if code == INTERRUPTED_EXIT:  # Typer turns Ctrl-C into it
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ForecastleError as error:
        _complain(str(error))
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
            _complain(f"{error.format_message()}\nSee: forecastle --help, or --help behind a command.")
        return UserError.exit_code


@app.callback(invoke_without_command=True)
def forecastle(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Turn a live API into forecasts that can be trusted."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: forecastle demo --plain")
def demo(
    keep: Annotated[bool, typer.Option(help="Leave the service up at the end and print its address.")] = False,
    plain: Plain = False,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps everything.")] = Path("demo"),
    days: Annotated[int, typer.Option(min=14, help="Simulated days of live forecasting.")] = 14,
) -> int:
    """Run the whole system on recorded real data, from the first request to the first scored forecasts."""
    from forecastle.demo.story import tell

    return 0 if tell(folder, keep=keep, plain=plain or not sys.stdout.isatty(), days=days) else UNEXPECTED_EXIT


@app.command(
    epilog="Example: forecastle init bikes --provider file --path bikes.csv --target bikes --frequency 1h --horizon 6h"
)
def init(
    name: Annotated[str, typer.Argument(help="The task's name; NAME.toml is written.")],
    provider: Annotated[
        str | None, typer.Option(help="open-meteo, or file for a CSV or Parquet table (default where --path is given).")
    ] = None,
    path: Annotated[Path | None, typer.Option(help="file: the long table (series_id, timestamp, values).")] = None,
    target: Annotated[str | None, typer.Option(help="file: the column to forecast.")] = None,
    frequency: Annotated[str, typer.Option(help="file: one step, such as 1h, 30m or 5m.")] = "1h",
    horizon: Annotated[str, typer.Option(help="file: how far ahead, such as 6h.")] = "6h",
    timezone: Annotated[str, typer.Option(help="file: the zone calendars are read in.")] = "UTC",
    covariates: Annotated[str, typer.Option(help="file: further columns to use at their lags, as a,b,c.")] = "",
    season: Annotated[int | None, typer.Option(help="file: steps after which the pattern repeats.")] = None,
    grid: Annotated[str, typer.Option(help="file: regular, or observed where markets close.")] = "regular",
    holidays: Annotated[str | None, typer.Option(help="file: country code of public holidays.")] = None,
    domain: Annotated[Domain, typer.Option(help="file: environmental, financial or logistics.")] = Domain.environmental,
    force: Annotated[bool, typer.Option(help="Overwrite a file of that name.")] = False,
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
    if provider == "open-meteo":
        text = starter.open_meteo_task(name)
    elif provider == "file":
        if path is None or target is None:
            raise TaskError(
                "--path and --target with --provider file",
                " and ".join(option for option, given in (("no --path", path), ("no --target", target)) if not given),
                "Give the table and the column to forecast.",
            )
        listed = [one.strip() for one in covariates.split(",") if one.strip()]
        text = starter.file_task(
            name, path, Path(), target, frequency, horizon, timezone, listed, season, grid, holidays, domain.value
        )
    else:
        raise TaskError(
            "provider open-meteo or file",
            f"{provider!r}{nearest(provider, ('open-meteo', 'file'))}",
            "Name one of them.",
        )
    write_text(file, text)
    load_task(file)
    typer.echo(f"Wrote {file}. Next: forecastle {'backtest' if provider == 'file' else 'run train'} --task {file}")


@app.command(epilog="Example: forecastle backtest --task my-task.toml --output forecasts.parquet")
def backtest(
    task: TaskFile,
    output: Annotated[Path | None, typer.Option(help="Where to write one row a forecast (Parquet).")] = None,
    origins: Annotated[Path | None, typer.Option(help="Parquet with series_id and origin: exactly these.")] = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Back-test a task on its history (or its file): train on the past only, forecast, compare with what came true."""
    from forecastle.backtesting import backtest_task
    from forecastle.errors import TaskError
    from forecastle.frame import write_table

    if output is not None and (output.suffix != ".parquet" or not output.parent.is_dir()):
        raise TaskError(
            "--output FILE.parquet in a folder that exists", f"{output}", "Back-tests are written as Parquet tables."
        )
    settings, loaded = _enter(task)
    with _working("Back-testing: choosing, fitting and forecasting the past…"):
        result = backtest_task(loaded, settings, _moment(now), origins)
    if output is not None:
        write_table(output, result.rows)
    if as_json:
        _print_json(result.scores)
    else:
        from forecastle.console import print_scores

        print_scores(result.scores, loaded, f"{result.rows.height} forecasts" + (f" in {output}" if output else ""))


@app.command(epilog="Example: forecastle run train --task tasks/nyc-temperature.toml")
def run(
    flow: Annotated[str, typer.Argument(help="train or live.")],
    task: TaskFile,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole flow, step by step, stopping at the first step that fails."""
    from forecastle.errors import TaskError
    from forecastle.pipeline import FLOWS, run_flow
    from forecastle.task import nearest

    if flow not in FLOWS:
        raise TaskError("flow train or live", f"{flow!r}{nearest(flow, FLOWS)}", "Name one of them.")
    with _open_run(task, flow, now) as opened:
        _report(run_flow(opened), as_json)


@app.command(epilog="Example: forecastle live --task tasks/nyc-temperature.toml")
def live(
    task: TaskFile,
    passes: Annotated[int | None, typer.Option(min=1, help="Stop after so many passes; default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the LIVE flow at every step of the task's frequency, until stopped. A failed pass does not end the loop."""
    from forecastle.pipeline import passages

    settings, loaded = _enter(task)
    last: Outcome | None = None
    for last in passages(loaded, settings, passes, lambda: datetime.now(UTC)):
        _show(last, as_json)
        if last.error is not None and not as_json:
            _complain(str(last.error))
    if last is not None and last.error is not None:
        raise typer.Exit(last.error.exit_code)


@app.command(epilog="Example: forecastle serve --tasks tasks/ --port 8000")
def serve(
    tasks: Annotated[list[Path], typer.Option(help="Task files, or folders of them.")],
    more: Annotated[list[Path] | None, typer.Argument(help="Further ones.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default from the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve forecasts, scores, metrics and the live page over HTTP."""
    from forecastle.serving.server import serve_forever
    from forecastle.settings import load_settings
    from forecastle.task import load_tasks

    chosen: dict[str, Any] = {"host": host, "port": port}
    settings = load_settings(**{name: value for name, value in chosen.items() if value is not None})
    serve_forever(settings, load_tasks([*tasks, *(more or ())]), typer.echo)


@app.command(epilog="Example: forecastle replay --from 2013-12-01T00:00Z --speed 3600")
def replay(
    start: Annotated[
        str, typer.Option("--from", help="The simulated moment at which the replay starts.")
    ] = "2013-12-01T00:00Z",
    speed: Annotated[float, typer.Option(min=0, help="Simulated seconds a second.")] = 1.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8010,
) -> None:
    """Serve recorded New York weather as the Open-Meteo API does, as of a simulated now."""
    from forecastle.demo.replaying import replay_forever

    replay_forever(_moment(start), speed, host, port)


def _register_steps() -> None:
    """Give every step of the flows a command of its own."""
    for name, (flow, text) in STEPS.items():
        app.command(name=name, help=text, epilog=f"Example: forecastle {name} --task tasks/nyc-temperature.toml")(
            _step_command(name, flow)
        )


def _step_command(name: str, default_flow: str) -> Callable[..., None]:
    if name in ("ingest", "quality-check"):  # they stand in both flows

        def command(
            task: TaskFile,
            flow: Annotated[str, typer.Option(help="The flow this belongs to: train or live.")] = default_flow,
            now: Now = None,
            as_json: AsJson = False,
        ) -> None:
            _run_step(task, flow, name, now, as_json)

    else:

        def command(task: TaskFile, now: Now = None, as_json: AsJson = False) -> None:  # type: ignore[misc]
            _run_step(task, default_flow, name, now, as_json)

    return command


def _run_step(file: Path, flow: str, name: str, now: str | None, as_json: bool) -> None:
    from forecastle.errors import TaskError
    from forecastle.pipeline import FLOWS, run_step
    from forecastle.task import nearest

    if flow not in FLOWS:
        raise TaskError("flow train or live", f"{flow!r}{nearest(flow, FLOWS)}", "Name one of them.")
    with _open_run(file, flow, now, resume=name != "ingest") as opened:
        step = next(step for step in FLOWS[flow] if step.name == name)
        _report([run_step(opened, step)], as_json)


def _report(outcomes: Iterable[Outcome], as_json: bool) -> None:
    """Show each outcome as it comes; raise the error that ended the last one."""
    for outcome in outcomes:
        _show(outcome, as_json)
        if outcome.error is not None:
            raise outcome.error


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        said: dict[str, Any] = {"step": outcome.step, "ok": outcome.error is None, "seconds": round(outcome.seconds, 3)}
        said |= {"summary": outcome.summary} if outcome.error is None else {"error": str(outcome.error)}
        _print_json(said)
        return
    from forecastle.console import print_outcome

    print_outcome(outcome.step, outcome.seconds, outcome.summary, outcome.error)


def _open_run(file: Path, flow: str, now: str | None, resume: bool = False) -> Any:
    from forecastle.pipeline import open_run

    settings, task = _enter(file)
    return open_run(task, settings, flow, None if now is None and resume else _moment(now))


def _enter(file: Path) -> tuple[Settings, Task]:
    from forecastle.settings import load_settings
    from forecastle.task import load_task

    task = load_task(file)
    return load_settings(), task


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        from forecastle.errors import TaskError

        raise TaskError("a moment such as 2013-12-01T00:00Z", repr(text), "Write it as ISO 8601.") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _working(text: str) -> AbstractContextManager[object]:
    """Turn a spinner while something long works, where somebody looks at a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


def _print_json(value: Any) -> None:
    from forecastle.frame import to_json

    typer.echo(to_json(value))


def _complain(message: str) -> None:
    typer.echo(f"forecastle: {message}", err=True)


_register_steps()

if __name__ == "__main__":
    sys.exit(program())
