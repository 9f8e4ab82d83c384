"""Commands that run the flows: whole, in a loop, step by step, or over the past as a back-test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forecastle.cli.options import (
    AsJson,
    Now,
    Plain,
    TaskFile,
    complain,
    enter,
    flows as flow_names,
    moment,
    print_json,
)
from forecastle.errors import WORSE_CHALLENGER_EXIT

if TYPE_CHECKING:
    from forecastle.pipeline import Outcome, Step
    from forecastle.run import Run

app = typer.Typer()

PANEL = "The steps of the flows, one by one"

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


@app.command(epilog="Example: forecastle backtest --task my-task.toml --output forecasts.parquet")
def backtest(
    task: TaskFile,
    output: Annotated[Path | None, typer.Option(help="Where to write one row a forecast (Parquet).")] = None,
    origins: Annotated[Path | None, typer.Option(help="Parquet with series_id and origin: exactly these.")] = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Back-test a task on its history (or its file): train on the past only, forecast, compare with what came true."""
    from forecastle.backtesting import backtest_task, doubt
    from forecastle.console.progress import measured
    from forecastle.errors import TaskError
    from forecastle.frame import write_table

    if output is not None and (output.suffix != ".parquet" or not output.parent.is_dir()):
        raise TaskError(
            "--output FILE.parquet in a folder that exists", f"{output}", "Back-tests are written as Parquet tables."
        )
    settings, loaded = enter(task)
    with measured("Back-testing: reading and computing features…") as tell:
        result = backtest_task(loaded, settings, moment(now), origins, tell)
    if output is not None:
        write_table(output, result.rows)
    if as_json:
        print_json(result.scores)
    else:
        from forecastle.console import print_scores

        print_scores(result.scores, loaded, f"{result.rows.height} forecasts" + (f" in {output}" if output else ""))
    if (warning := doubt(loaded, result.scores)) is not None:
        complain(warning)


@app.command(epilog="Example: forecastle run train --task tasks/nyc-temperature.toml")
def run(
    flow: Annotated[str, typer.Argument(help="train or live.", autocompletion=flow_names)],
    task: TaskFile,
    until: Annotated[str | None, typer.Option(help="The step to stop after; default: the flow's last.")] = None,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Run a flow, whole or up to one of its steps, stopping at the first step that fails."""
    from forecastle.errors import TaskError
    from forecastle.pipeline import FLOWS, run_flow, watched
    from forecastle.task import nearest

    if flow not in FLOWS:
        raise TaskError("flow train or live", f"{flow!r}{nearest(flow, FLOWS)}", "Name one of them.")
    names = [step.name for step in FLOWS[flow]]
    if until not in (None, *names):
        found = f"{until!r}{nearest(str(until), names)}"
        raise TaskError(f"a step of flow {flow} ({', '.join(names)})", found, "Name one of them.")
    steps = FLOWS[flow][: None if until is None else names.index(until) + 1]
    with _open_run(task, flow, now) as opened:
        _report(opened, steps, watched(opened, run_flow(opened, steps)), as_json)


@app.command(epilog="Example: forecastle live --task tasks/nyc-temperature.toml")
def live(
    task: TaskFile,
    passes: Annotated[int | None, typer.Option(min=1, help="Stop after so many passes; default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the LIVE flow at every step of the task's frequency, until stopped. A failed pass does not end the loop."""
    from forecastle.pipeline import passages

    settings, loaded = enter(task)
    last: Outcome | None = None
    for last in passages(loaded, settings, passes, _clock):
        _show(last, as_json)
        if last.error is not None and not as_json:
            complain(str(last.error))
    if last is not None and last.error is not None:
        raise typer.Exit(last.error.exit_code)


@app.command(
    epilog="Example: forecastle backfill --task tasks/crypto-volatility.toml --from 2025-06-01 --to 2025-09-01"
)
def backfill(
    task: TaskFile,
    start: Annotated[
        str | None, typer.Option("--from", help="The first moment to bring, ISO 8601; default: the source's start.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="The moment to stop before; default: now.")] = None,
    keep_going: Annotated[bool, typer.Option(help="Go on after a piece that the gate refuses.")] = False,
    plain: Plain = False,
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Bring a source's past into the history, piece by piece through the gate; stopped, it goes on where it was."""
    from forecastle import steps
    from forecastle.console.backfill import follow_backfill
    from forecastle.data.backfill import plan

    with _open_run(task, "train", now) as run:
        first = None if start is None else moment(start)
        pieces = plan(run.task, run.settings, first, moment(end) if end else run.now, run.now)
        outcomes = steps.backfill(run, pieces, keep_going)
        failed = [one.error for one in follow_backfill(pieces, outcomes, plain, as_json) if one.error is not None]
    if failed:
        raise failed[-1]


@app.command(epilog="Example: forecastle compare --task tasks/nyc-temperature.toml --output report --fail-if-worse")
def compare(
    task: TaskFile,
    output: Annotated[
        Path | None, typer.Option(help="Folder for comparison.md and pictures; default: print the Markdown.")
    ] = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit 5 where the new model does harm; no difference passes.")
    ] = False,
    now: Now = None,
    as_json: AsJson = False,
) -> int:
    """Compare the newest trained model with the champion on the same rows, as Markdown for a pull request."""
    from forecastle.steps import judged
    from forecastle.reporting.comparison import markdown, save

    with _open_run(task, "train", now, resume=True, done="train") as opened:
        comparison = judged(opened)
    if as_json:
        print_json(comparison.decision.as_dict())
    elif output is None:
        typer.echo(markdown(comparison), nl=False)
    if output is not None:
        typer.echo(f"Wrote {save(output, comparison)}", err=as_json)
    return WORSE_CHALLENGER_EXIT if fail_if_worse and comparison.decision.worse else 0


@app.command(epilog="Example: forecastle flows tasks/ --json")
def flows(
    tasks: Annotated[list[Path], typer.Argument(help="Task files, or folders of them.", show_default=False)],
    as_json: AsJson = False,
) -> int:
    """List what a scheduler has to start: every flow of every task, when, and its steps. Exit 2 where a file is
    mistaken; the others are listed all the same."""
    from forecastle.errors import TaskError
    from forecastle.schedule import jobs

    found = jobs(tasks)
    mistakes = [job for job in found if job.flow == "mistake"]
    if as_json:
        print_json([asdict(job) for job in found])
    else:
        for job in found:
            if job not in mistakes:
                when, steps = job.cron or "when asked for", " → ".join(step.name for step in job.steps)
                typer.echo(f"{job.id:<32} {when:<18} {steps}")
    for job in mistakes:
        complain(f"{job.file}: {job.description}")
    return TaskError.exit_code if mistakes else 0


def _register_steps() -> None:
    """Give every step of the flows a command of its own."""
    for name, (flow, text) in STEPS.items():
        example = f"Example: forecastle {name} --task tasks/nyc-temperature.toml"
        app.command(name, help=text, epilog=example, rich_help_panel=PANEL)(_step_command(name, flow))


def _step_command(name: str, default_flow: str) -> Callable[..., None]:
    if name in ("ingest", "quality-check"):  # they stand in both flows

        def command(
            task: TaskFile,
            flow: Annotated[
                str, typer.Option(help="The flow this belongs to: train or live.", autocompletion=flow_names)
            ] = default_flow,
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
    from forecastle.pipeline import FLOWS, run_flow, watched
    from forecastle.task import nearest

    if flow not in FLOWS:
        raise TaskError("flow train or live", f"{flow!r}{nearest(flow, FLOWS)}", "Name one of them.")
    with _open_run(file, flow, now, resume=name != "ingest") as opened:
        chosen = [step for step in FLOWS[flow] if step.name == name]
        _report(opened, chosen, watched(opened, run_flow(opened, chosen)), as_json)


def _report(run: Run, steps: Sequence[Step], outcomes: Iterator[Outcome], as_json: bool) -> None:
    """Show each outcome as it comes, and until then the step at work; raise the error that ended the last one."""
    if not as_json:
        from forecastle.console import OUT
        from forecastle.console.following import follow

        outcomes = follow(run, [step.name for step in steps], outcomes, OUT)
    for outcome in outcomes:
        _show(outcome, as_json)
        if outcome.error is not None:
            raise outcome.error


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        said: dict[str, Any] = {"step": outcome.step, "ok": outcome.error is None, "seconds": round(outcome.seconds, 3)}
        said |= {"summary": outcome.summary} if outcome.error is None else {"error": str(outcome.error)}
        said |= {"pages": outcome.pages} if outcome.pages else {}
        print_json(said)
        return
    from forecastle.console import print_outcome

    print_outcome(outcome.step, outcome.seconds, outcome.summary, outcome.error)


def _open_run(file: Path, flow: str, now: str | None, resume: bool = False, done: str | None = None) -> Any:
    from forecastle.pipeline import open_run

    settings, task = enter(file)
    return open_run(task, settings, flow, None if now is None and resume else moment(now), clock=_clock, done=done)


def _clock() -> datetime:
    return datetime.now(UTC)


_register_steps()
