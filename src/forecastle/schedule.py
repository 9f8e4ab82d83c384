"""What a scheduler has to know: which steps of which task it starts when, after what, and by which words.

    TRAIN      daily
    LIVE       at the task's frequency, and the leeway after the full step
    COLLECT    the head of LIVE, where the task asks its source more often than it forecasts
    CHALLENGE  TRAIN without ``promote``, which only somebody who asks for it starts: a pull request's check

A ``Job`` is plain data, so that a scheduler which lives in another environment needs to know nothing of forecastle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from forecastle.errors import TaskError
from forecastle.frame import iso
from forecastle.pipeline import CHALLENGE, COLLECT, FLOWS, LEEWAY, Step
from forecastle.task import Task, duration_text, load_task

DAILY = "15 0 * * *"  # UTC; a quarter of an hour into the day, when the last step of the day before is published
HEAD_OF = {"collect": "live", "challenge": "train"}  # jobs that are the head of a flow
ASKS_FOR_FLOW = frozenset(step.name for step in COLLECT)  # steps that stand in both flows
TABLE_OF = "version"  # the step that puts the training table under version control
NOW = "{now}"
"""The word that a scheduler replaces by the moment its run stands for, such as 2013-12-01T00:05:00Z."""


@dataclass(frozen=True)
class Call:
    """A step as a scheduler starts it: the command's words, the steps before it, the training table it makes."""

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    table: str | None = None


@dataclass(frozen=True)
class Job:
    """One flow of one task: its cron expression (UTC; seconds last, where it has six fields), first moment, steps.

    ``flow`` is train, live, challenge, collect or mistake. Without a cron expression nothing starts it by itself.
    """

    id: str
    task: str
    flow: str
    file: str
    description: str
    cron: str | None
    start: str | None
    steps: tuple[Call, ...]


def jobs(places: Iterable[Path | str]) -> tuple[Job, ...]:
    """Return the jobs of task files and of every ``*.toml`` in folders.

    A file that cannot be read stops no other: it becomes a job of flow ``mistake``, which nothing starts, whose
    description says what is wrong and whose only step says it again.
    """
    found: dict[str, Job] = {}
    for file in _files(places):
        try:
            task = load_task(file)
            made = _of_task(task, file)
            if taken := found.get(made[0].id):
                raise TaskError("tasks with names of their own", f"{task.name!r} in {taken.file} too", "Rename one.")
        except TaskError as error:
            made = [_mistake(file, error)]
        found |= {job.id: job for job in made}
    return tuple(found.values())


def cron(length: timedelta, leeway: timedelta = timedelta(0)) -> str:
    """Return the cron expression of every full step of that length (UTC), and the leeway after it.

    Cron knows no step that does not divide the next larger unit: of 90 minutes it is half an hour. A pass between two
    steps finds nothing new and does no harm.
    """
    whole, second = int(length.total_seconds()), int(leeway.total_seconds())
    of_day, of_hour, of_minute = (math.gcd(whole, larger) for larger in (86_400, 3_600, 60))
    if of_day % 3_600 == 0:
        fields = f"0 {_every(of_day // 3_600, 24)} * * *"
    elif of_hour % 60 == 0:
        fields = f"{_every(of_hour // 60, 60)} * * * *"
    else:
        return f"* * * * * {_every(of_minute, 60)}"
    return f"{fields} {second}" if second else fields


def _every(step: int, of: int) -> str:
    return "*" if step == 1 else "0" if step == of else f"*/{step}"


def _files(places: Iterable[Path | str]) -> list[Path]:
    found: list[Path] = []
    for place in map(Path, places):
        found += sorted(place.glob("*.toml")) if place.is_dir() else [place]
    return [file.resolve() for file in found]


def _of_task(task: Task, file: Path) -> list[Job]:
    made = [
        _job(task, file, "train", FLOWS["train"], DAILY, "daily"),
        _job(task, file, "live", FLOWS["live"], cron(task.frequency, LEEWAY), f"every {duration_text(task.frequency)}"),
        _job(task, file, "challenge", CHALLENGE, None, "when asked for"),
    ]
    if task.source.every is not None and task.source.every < task.frequency:
        every = task.source.every
        made.append(_job(task, file, "collect", COLLECT, cron(every), f"every {duration_text(every)}"))
    return made


def _job(task: Task, file: Path, name: str, steps: Sequence[Step], when: str | None, said: str) -> Job:
    calls = tuple(_call(task, file, name, step) for step in steps)
    description = f"{name.upper()} of {task.name}, {said}: {' → '.join(step.name for step in steps)}"
    return Job(f"{task.name}-{name}", task.name, name, str(file), description, when, iso(task.start), calls)


def _call(task: Task, file: Path, job: str, step: Step) -> Call:
    of_flow = ("--flow", HEAD_OF.get(job, job)) if step.name in ASKS_FOR_FLOW else ()
    words = (step.name, "--task", str(file), *of_flow, "--now", NOW, "--json")
    table = f"forecastle://{task.name}/training-table" if (job, step.name) == ("train", TABLE_OF) else None
    return Call(step.name, words, step.after, table)


def _mistake(file: Path, error: TaskError) -> Job:
    name = re.sub(r"[^\w.-]", "-", file.stem, flags=re.ASCII)[:60]  # schedulers take no other characters
    words = ("flows", str(file), "--json")
    return Job(f"{name}-mistake", name, "mistake", str(file), str(error), None, None, (Call("flows", words),))
