"""The two flows, step by step. Reading this file from top to bottom is the overview of the system.

    TRAIN  ingest → quality-check → transform → profile ┐
                                      └────→ version ───┴→ train → promote
    LIVE   ingest → quality-check → forecast → score → watch

CHALLENGE is TRAIN without its last step: a model is trained and registered, and what serves stays. What a step does
stands in ``steps``. A step that fails ends its flow: nothing after it may start, in a process of its own either.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from forecastle import steps, watching
from forecastle.affinity import one_processor
from forecastle.data import budget, formats, identity
from forecastle.errors import ForecastleError, GateError, NotEnoughHistory, StorageUnavailable, UserError
from forecastle.frame import EPOCH, read_note, write_json
from forecastle.http import Client, Transport
from forecastle.models import bundle, pointer
from forecastle.monitoring import retraining
from forecastle.monitoring.journal import Journal
from forecastle.run import Run, Summary, failure, note_of
from forecastle.settings import Settings
from forecastle.task import Task, duration_text

LOG = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)  # for another process that runs the same flow of the same task
LEEWAY = timedelta(seconds=30)  # after the full step, for the source to publish


@dataclass(frozen=True)
class Step:
    """A named piece of work, and the steps that must have succeeded before it may start."""

    name: str
    work: Callable[[Run], Summary]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a step ended: its summary, or the error that ended it, and the addresses of the pages there are by then."""

    step: str
    seconds: float
    summary: Summary
    error: ForecastleError | None = None
    pages: Mapping[str, str] = field(default_factory=dict)


COLLECT = (
    Step("ingest", steps.ingest, ()),
    Step("quality-check", steps.quality_check, ("ingest",)),
)
TRAIN = (
    *COLLECT,
    Step("transform", steps.transform, ("quality-check",)),
    Step("profile", steps.profile, ("transform",)),
    Step("version", steps.version, ("transform",)),
    Step("train", steps.train, ("profile", "version")),
    Step("promote", steps.promote, ("train",)),
)
CHALLENGE = TRAIN[:-1]
LIVE = (
    *COLLECT,
    Step("forecast", steps.forecast, ("quality-check",)),
    Step("score", watching.score, ("forecast",)),
    Step("watch", watching.watch, ("score",)),
)
FLOWS = {"train": TRAIN, "live": LIVE}


@contextmanager
def open_run(
    task: Task,
    settings: Settings,
    flow: str,
    now: datetime | None,
    transport: Transport | None = None,
    clock: Callable[[], datetime] | None = None,
    done: str | None = None,
) -> Iterator[Run]:
    """Open a run of a flow as of ``now``; None takes up the newest run that exists, or of those whose step ``done`` has
    succeeded. Closes what it opened.

    The transport is the seam for a source that is not reached over the network (replay); default: the network.
    ``clock`` tells the real time to whoever collects from a real source: only then are budgets and failures counted.
    Raises TaskError where the task's schedule, with those of other live runs on this home, asks its source for more
    than that allows, or its stores were begun for something else; FormatError where they are of another version.
    """
    formats.open_home(settings.home)
    _require_identity(task, settings)
    moment = now or _newest_run(settings.task_folder(task.name), flow, done)
    guard = None
    if clock is not None and task.source.provider != "file":
        if flow == "live":
            budget.hold_schedule(task, settings, clock())
        else:
            budget.check_schedule([task], settings, moment)
        guard = budget.BudgetGuard.of(task, settings, clock, at_every_step=flow == "live")
    with Client(settings, transport, guard=guard) as client, Journal(settings.journal_url) as journal:
        yield Run(task, settings, flow, moment, client, journal, clock)


def passages(task: Task, settings: Settings, passes: int | None, clock: Callable[[], datetime]) -> Iterator[Outcome]:
    """Run the LIVE flow at every step of the task's frequency, so often or for ever; a failed pass ends only itself.

    Where the source is to be asked more often (``source.every``), there are passes between that only collect.
    """
    with open_run(task, settings, "live", clock(), clock=clock) as opened:
        for number in itertools.count(1):
            run = replace(opened, now=clock().replace(microsecond=0))
            yield from watched(run, run_flow(run))
            try:
                yield from retrain_if_wanted(run)
            except StorageUnavailable as silent:
                LOG.warning("whether a training is asked for could not be learnt or noted: %s", silent)
            if number == passes:
                return
            due = _next(task.frequency, clock())
            while (moment := min(due, _next(task.source.every or task.frequency, clock()))) < due:
                _sleep_until(moment, clock)
                yield from run_flow(replace(opened, now=clock().replace(microsecond=0)), COLLECT)
            _sleep_until(due, clock)


def watched(run: Run, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Yield the outcomes of LIVE, or of some of its steps, and watch where one failed: the step that does has not come
    to its turn then, and that nothing comes any more is what some rules are about. Of TRAIN they are yielded alone.

    What hinders it is logged, since the pass tells its own failure.
    """
    for outcome in outcomes:
        if outcome.error is not None and run.flow == "live":
            try:
                watching.watch(run)
            except ForecastleError as error:
                LOG.warning("the rules could not be looked at: %s", error)
        yield outcome


def retrain_if_wanted(run: Run) -> Iterator[Outcome]:
    """Run TRAIN where an incident asks for it, as of the run's moment; what came of it the flow notes itself, that it
    failed is noted here.

    One that was cut off is begun again; one that failed is asked for again after the task's cooldown. Where there is an
    Airflow to be asked, ``watch`` has asked it.
    """
    if run.settings.airflow_url or not (numbers := retraining.wanted(run.journal, run.task, run.now)):
        return
    training = replace(run, flow="train")
    retraining.begin(run.journal, numbers, training.id, run.now)
    last: Outcome | None = None
    try:
        for last in run_flow(training):
            yield last
    except Exception as fault:
        retraining.note(run.journal, numbers, retraining.FAILED, f"{type(fault).__name__}: {fault}", run.now)
        raise
    if last is not None and last.error is not None:
        retraining.note(run.journal, numbers, retraining.FAILED, str(last.error), run.now)


def run_flow(run: Run, steps: Sequence[Step] | None = None) -> Iterator[Outcome]:
    """Run a flow's steps in order, or some of them alone, yielding how each ended; after the first error nothing more
    starts.

    The error is the last outcome's; it is for the door to raise or to show. Two processes that run one flow of one task
    go one after the other: a run done twice at the same moment would take away its own notes.
    """
    chosen = steps or FLOWS[run.flow]
    try:
        lock = _locked(run)
    except StorageUnavailable as error:
        yield Outcome(chosen[0].name, 0.0, {}, error)
        return
    try:
        for step in chosen:
            outcome = run_step(run, step)
            yield outcome
            if outcome.error is not None:
                return
    finally:
        lock.release()


def run_step(run: Run, step: Step) -> Outcome:
    """Run one step and leave its summary, or its error, in the run's folder.

    A step whose predecessors have not succeeded in this run does not start: GateError, in the CLI and in a DAG alike.
    A journal or a disk that refuses to take what is to be told of it is how the step ended, too.
    """
    started = time.perf_counter()
    for name in _resting_on(step, FLOWS[run.flow]):  # what a former try said of these holds no more
        _note(run, name).unlink(missing_ok=True)
    summary: Summary = {}
    error: ForecastleError | None = None
    begun = False
    try:
        _require_success(run, step.after)
        begun = True
        with one_processor(len(run.task.series)) if run.flow == "live" else nullcontext():
            summary = step.work(run)
    except ForecastleError as caught:
        error = caught
    try:
        if run.flow == "live" and begun:  # what kept it from starting has told of itself
            _tell_of_failure(run, step, error)
    except StorageUnavailable as silent:
        error = error or silent
    seconds = time.perf_counter() - started
    said = {"step": step.name, "ok": error is None, "seconds": round(seconds, 3), "summary": summary}
    if error is not None:
        said["error"] = {"kind": type(error).__name__, "message": str(error)}
    try:
        write_json(_note(run, step.name), said, flushed=False)
    except StorageUnavailable as refused:
        error = error or refused
    return Outcome(step.name, seconds, summary, error, run.pages)


def _resting_on(step: Step, flow: Sequence[Step]) -> set[str]:
    """Return the names of a step and of all that come after it, however far: not of those that may run beside it."""
    found = {step.name}
    for one in flow:
        if not found.isdisjoint(one.after):
            found.add(one.name)
    return found


def _require_identity(task: Task, settings: Settings) -> None:
    """Check that a task still is what its stores were begun for; of older stores the champion knows what that was."""
    folder = settings.task_folder(task.name)
    noted = identity.read(folder)
    if noted is None and (current := pointer.published(settings, task)) is not None:
        recipe = bundle.load(current.folder).recipe
        frequency = duration_text(timedelta(microseconds=recipe.step))
        noted = {"target": recipe.columns[0], "frequency": frequency, "grid": recipe.grid}
    identity.agree(task, noted or {})


def _next(length: timedelta, now: datetime) -> datetime:
    """Return the next full step of that length, and the leeway after it."""
    return now + length - (now - LEEWAY - EPOCH) % length


def _sleep_until(moment: datetime, clock: Callable[[], datetime]) -> None:
    time.sleep(max(moment - clock(), timedelta(0)).total_seconds())


def _locked(run: Run) -> FileLock:
    """Return the lock of the run's task and flow, taken; its end, or the process's, releases it."""
    path = run.home / f"{run.flow}.lock"
    lock = FileLock(path, timeout=PATIENCE.total_seconds())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise StorageUnavailable(
            f"to run flow {run.flow} of task {run.task.name!r} alone",
            f"{path} held by another process for {PATIENCE.total_seconds():.0f} s",
            "Wait until that has ended, or end it.",
        ) from None
    except OSError as error:
        raise StorageUnavailable(f"to lock {path}", str(error.strerror or error), "Mend the folder.") from error
    return lock


def _require_success(run: Run, names: Sequence[str]) -> None:
    """Raise GateError unless each of these steps has succeeded in this run."""
    for name in names:
        if not _has_done(run.folder, name):
            said = read_note(_note(run, name))
            raise GateError(
                f"step {name} of run {run.id} to have succeeded",
                "it has not run" if said is None else "it failed; its own message says why",
                f"Run it first: forecastle {name}{_of_flow(run, name)}, with the same --task and --now.",
            )


def _of_flow(run: Run, name: str) -> str:
    """Return the option that names a flow, where a step of both belongs to the other one by default."""
    return " --flow live" if run.flow == "live" and name in {step.name for step in COLLECT} else ""


def _note(run: Run, step: str) -> Path:
    return note_of(run.folder, step)


def _tell_of_failure(run: Run, step: Step, error: ForecastleError | None) -> None:
    """Open an incident when collecting or forecasting fails, and close it with the next success."""
    kind = f"{step.name}-failed"
    if error is None:
        run.journal.close_incident(run.task.name, kind, run.now, "It works again.")
    elif not isinstance(error, UserError | StorageUnavailable):
        run.journal.open_incident(run.task.name, kind, str(error), run.now)


def _newest_run(home: Path, flow: str, done: str | None) -> datetime:
    runs = sorted((home / "runs").glob(f"{flow}-*"), reverse=True)
    if not runs:
        raise NotEnoughHistory(f"a {flow} run to go on with in {home}", "none", "Start one with: forecastle ingest")
    chosen = runs[0] if done is None else next((one for one in runs if _has_done(one, done)), None)
    failed = failure(runs[0])
    newest = f"the newest is {runs[0].name}" + (f", whose step {failed}" if failed else ", which has not ended")
    if chosen is None:
        raise NotEnoughHistory(
            f"a {flow} run in {home} whose step {done} has succeeded",
            f"none; {newest}",
            f"Mend what hindered it, then run the flow again: forecastle run {flow} --task FILE",
        )
    if chosen != runs[0]:
        LOG.warning(
            "Of the %s runs %s. Taken up is %s, the newest whose step %s succeeded", flow, newest, chosen.name, done
        )
    return datetime.strptime(chosen.name, f"{flow}-%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _has_done(folder: Path, step: str) -> bool:
    said = read_note(note_of(folder, step))
    return said is not None and bool(said["ok"])
