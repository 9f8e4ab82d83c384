"""The loop back: an incident that asks for a retrain, through the journal alone.

An open incident of a rule with ``retrain`` (data drift, concept drift, skill lost) asks once it may: not sooner after
the last training than the task's cooldown, and only with enough newer data. Whoever trains (``forecastle live``, or
Airflow, which the step ``watch`` asks) looks for what is ``wanted``; any training, asked for or not, notes what came of
it; the incident ends by itself when its measure is back. So the steps of an incident read: opened, retrain asked,
training started, challenger promoted (or kept out), closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from forecastle.frame import iso
from forecastle.monitoring.journal import Incident, IncidentStep, Journal
from forecastle.monitoring.metrics import TRAINED
from forecastle.monitoring.rules import rules_for
from forecastle.task import Task, duration_text

ASKED, WAITS, STARTED = "retrain asked", "retrain waits", "training started"
PROMOTED, KEPT_OUT, FAILED = "challenger promoted", "challenger kept out", "training failed"
TRIES = 2  # how often a training that is cut off is begun before it, too, waits for the cooldown
LEAST_STEPS = 24  # of newer data, whatever the task says: a day's, where it is hourly


def consider(journal: Journal, task: Task, newest: datetime | None, now: datetime) -> bool:
    """Ask for a retrain where an open incident is of that kind and it is time; else note on it what it waits for.

    ``newest`` is the newest observation's time. Returns whether it was asked for just now.
    """
    retrain = {rule.name for rule in rules_for(task) if rule.retrain}
    concerned = [one for one in journal.incidents(task.name, open_only=True) if one.kind in retrain]
    if not concerned:
        return False
    every = journal.incidents(task.name)
    steps = journal.incident_steps([one.number for one in every])
    if any(_is_waiting(steps[one.number]) for one in concerned):
        return False
    asked = [step.at for known in steps.values() for step in known if step.what == ASKED]
    trained = [beat.at for work, beat in journal.heartbeats(task.name).items() if work.startswith(TRAINED)]
    reason = _too_early(task, max(asked, default=None), max(trained, default=None), newest, now)
    for incident in concerned:
        _note_once(journal, incident, steps[incident.number], WAITS if reason else ASKED, reason, now)
    return not reason


def wanted(journal: Journal, task: Task, now: datetime) -> tuple[int, ...]:
    """Return the numbers of the open incidents whose request has not been answered yet.

    A training that was begun and cut off is begun once more; after that, where it may be what ends its process, not
    before the task's cooldown has passed.
    """
    numbers = [one.number for one in journal.incidents(task.name, open_only=True)]
    known = journal.incident_steps(numbers)
    cooldown = task.monitoring.retrain_cooldown
    return tuple(number for number, steps in known.items() if _is_waiting(steps) and _may_begin(steps, now, cooldown))


def begin(journal: Journal, numbers: Sequence[int], training: str, now: datetime) -> None:
    """Note on incidents that a training, of this name, has started; one that runs already is not noted again."""
    for number, steps in journal.incident_steps(numbers).items():
        if training not in _begun(steps):
            journal.note_step(number, STARTED, training, now)


def last_begun(journal: Journal, numbers: Sequence[int]) -> str | None:
    """Return the name of the training that was begun last for incidents since they asked; None where none was."""
    begun = [name for steps in journal.incident_steps(numbers).values() for name in _begun(steps)]
    return begun[-1] if begun else None


def settle(journal: Journal, task: Task, version: str, promoted: bool, why: str, now: datetime) -> None:
    """Note on the open incidents that ask for trainings what came of one, whoever asked for it.

    Saying it of a version again changes nothing. A training as of the past has learnt nothing of what came up since.
    """
    what, head = PROMOTED if promoted else KEPT_OUT, f"Version {version}. "
    retrain = {rule.name for rule in rules_for(task) if rule.retrain}
    concerned = [one for one in journal.incidents(task.name, open_only=True) if one.kind in retrain]
    numbers = [one.number for one in concerned if one.opened_at <= now]
    for number, steps in journal.incident_steps(numbers).items():
        if not any(step.what == what and step.detail.startswith(head) for step in steps):
            journal.note_step(number, what, head + why, now)


def note(journal: Journal, numbers: Sequence[int], what: str, detail: str, now: datetime) -> None:
    """Note on incidents what came of a training."""
    for number in numbers:
        journal.note_step(number, what, detail, now)


def _too_early(
    task: Task, asked: datetime | None, trained: datetime | None, newest: datetime | None, now: datetime
) -> str:
    """Return what a retrain has to wait for; empty where it has to wait for nothing."""
    last = max((one for one in (asked, trained) if one is not None), default=None)
    cooldown, enough = task.monitoring.retrain_cooldown, task.monitoring.retrain_after
    if last is not None and now - last < cooldown:
        return f"The last one was at {iso(last)}; not before {iso(last + cooldown)}."
    enough = max(enough, LEAST_STEPS * task.frequency)
    if newest is None or (trained is not None and newest - trained < enough):
        have = timedelta(0) if newest is None or trained is None else max(newest - trained, timedelta(0))
        return f"It needs {duration_text(enough)} of data newer than the last training's; there are {have}."
    return ""


def _note_once(
    journal: Journal, incident: Incident, steps: Sequence[IncidentStep], what: str, detail: str, now: datetime
) -> None:
    """Note a step, but not once more why it waits."""
    if what != WAITS or not any(step.what == WAITS for step in steps):
        journal.note_step(incident.number, what, detail, now)


def _is_waiting(steps: Sequence[IncidentStep]) -> bool:
    about = [step.what for step in steps if step.what in (ASKED, STARTED, PROMOTED, KEPT_OUT, FAILED)]
    return bool(about) and about[-1] in (ASKED, STARTED)


def _may_begin(steps: Sequence[IncidentStep], now: datetime, cooldown: timedelta) -> bool:
    begun = list(_begun(steps).values())
    return len(begun) < TRIES or now - begun[-1] >= cooldown


def _begun(steps: Sequence[IncidentStep]) -> dict[str, datetime]:
    """Return the trainings begun since a retrain was asked for last, and when each was."""
    asked = max((place for place, step in enumerate(steps) if step.what == ASKED), default=0)
    return {step.detail: step.at for step in steps[asked:] if step.what == STARTED}
