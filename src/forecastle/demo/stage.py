"""The demo's stage: the tasks, the simulated clock, what is wrong with the source, and what was measured."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from forecastle import pipeline
from forecastle.data.faults import Answer, Fault
from forecastle.demo.aside import Aside, Clock
from forecastle.demo.telling import Telling
from forecastle.errors import UserError
from forecastle.http import Client, Request
from forecastle.models import bundle, pointer
from forecastle.run import Run, Summary
from forecastle.settings import Settings
from forecastle.task import Task, load_task

START = datetime(2013, 12, 1, 0, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Claim:
    """A sentence of the story, and whether it came true."""

    text: str
    held: bool


@dataclass(frozen=True)
class Beside:
    """The second task on the stage: its run, opened, the recording its claims are checked against, and its training,
    which goes on in a process of its own and gives the summaries of its steps.

    ``answered`` holds, of each hour it was forecast in, for how many series the service answered with all forecasts.
    """

    opened: Run
    recorded: Future[pl.DataFrame]
    training: Aside[dict[str, Summary]]
    answered: list[int] = field(default_factory=list)

    @property
    def flights(self) -> pl.DataFrame:
        """The recorded departures."""
        return self.recorded.result()

    @property
    def task(self) -> Task:
        """The second task."""
        return self.opened.task


@dataclass
class Stage:
    """What the chapters share; ``opened`` is the run of the first task, whose flows are run unless another is named."""

    folder: Path
    task: Task
    settings: Settings
    opened: Run
    telling: Telling
    days: int
    clock: Clock = field(default_factory=lambda: Clock(START))
    fault: Fault | Answer | None = None
    warmed_from: datetime | None = None
    address: str = ""
    latencies: list[float] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    beside: Beside | None = None

    @property
    def now(self) -> datetime:
        """The simulated now, which stands still until it is set."""
        return self.clock()

    @now.setter
    def now(self, now: datetime) -> None:
        self.clock.set(now)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks on the stage, the first one first."""
        return (self.task, *([] if self.beside is None else [self.beside.task]))

    def passage(self, flow: str, opened: Run | None = None) -> Run:
        """Return the run of a flow as of the simulated now, in whose folder its steps leave what they made."""
        return replace(opened or self.opened, flow=flow, now=self.now)

    def run(self, flow: str, *names: str, opened: Run | None = None) -> list[pipeline.Outcome]:
        """Run a flow (or some of its steps) as of the simulated now; stop at the first that fails."""
        return run_steps(self.passage(flow, opened), *names)

    def must_run(self, flow: str, *names: str, opened: Run | None = None) -> dict[str, Summary]:
        """Run steps that are to succeed; raise what ended them otherwise. Returns their summaries by name."""
        return summaries(self.run(flow, *names, opened=opened))

    def ask(self, client: Client, task: Task, series_id: str) -> dict[str, Any]:
        """Ask the service for one series' forecasts, keeping how long the answer took."""
        began = time.perf_counter()
        answer = client.get(Request(f"{self.address}/v1/tasks/{task.name}/forecasts/{series_id}"))
        self.latencies.append(1000 * (time.perf_counter() - began))
        if answer.status != 200:
            raise UserError(f"forecasts of {series_id}", f"status {answer.status}: {answer.body[:200]!r}", "Tell us.")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def champion(self, task: Task) -> bundle.Bundle:
        """Return the model that serves a task."""
        current = pointer.published(self.settings, task)
        if current is None:
            raise UserError("a champion", "none was promoted", "See the reasons above.")
        return bundle.load(current.folder)


def run_steps(run: Run, *names: str) -> list[pipeline.Outcome]:
    """Run a run's flow, or some of its steps; stop at the first that fails."""
    ended: list[pipeline.Outcome] = []
    for step in pipeline.FLOWS[run.flow]:
        if not names or step.name in names:
            ended.append(pipeline.run_step(run, step))
            if ended[-1].error is not None:
                break
    return ended


def summaries(ended: list[pipeline.Outcome]) -> dict[str, Summary]:
    """Return the summaries of steps by name; raises what ended them if one has failed."""
    if ended[-1].error is not None:
        raise ended[-1].error
    return {outcome.step: outcome.summary for outcome in ended}


def shipped_task(name: str) -> Task:
    """Return a task that comes with forecastle."""
    package = Path(__file__).parent.parent
    shipped = (package / "tasks", package.parent.parent / "tasks")  # in an installed wheel; in a clone
    return load_task(next(file for folder in shipped if (file := folder / f"{name}.toml").exists()))
