"""The embedded evaluator: the rules of ``rules``, compared with what the stores say, open and close incidents.

A rule fires when its number has been past its threshold for as long as it says, and ends when its number is back or
there is none any more, as in Prometheus. One that never had a number says nothing: its incident may be another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from forecastle.frame import iso
from forecastle.monitoring import samples
from forecastle.monitoring.journal import PENDING, Heartbeat, Journal
from forecastle.monitoring.metrics import METRICS, Reading
from forecastle.monitoring.rules import Rule, rules_for
from forecastle.monitoring.samples import Sample
from forecastle.task import Task

NOTHING: Mapping[str, str] = {}
RARE = "state:looks"  # the heartbeat whose detail is how many seconds the last pause between two looks took
BACK, GONE = "The measure is back.", "There is nothing to measure any more."


@dataclass(frozen=True)
class Evaluation:
    """What one look at the rules found: those firing, those no longer true, and since when each true one is true."""

    firing: tuple[Rule, ...]
    ended: tuple[Rule, ...]
    pending: Mapping[str, datetime]


def evaluate(
    rules: Iterable[Rule],
    values: Mapping[str, float | None],
    pending: Mapping[str, datetime],
    now: datetime,
    anew: bool = False,
) -> Evaluation:
    """Compare the rules' numbers (by rule) with their thresholds; ``pending`` is what the look before this one found.

    A rule that has been firing ends at once when its number is back, or gone. Where looking begins ``anew``, what has
    to hold for a time begins now, whatever the look before found.
    """
    firing: list[Rule] = []
    ended: list[Rule] = []
    since: dict[str, datetime] = {}
    for rule in rules:
        value = values.get(rule.name)
        if value is None:
            ended += [rule] if rule.name in pending else []
        elif rule.is_met(value):
            since[rule.name] = now if anew else pending.get(rule.name, now)
            if now - since[rule.name] >= rule.hold:
                firing.append(rule)
        else:
            ended.append(rule)
    return Evaluation(tuple(firing), tuple(ended), since)


def apply(
    journal: Journal, task: Task, readings: Iterable[Reading], now: datetime, known: Mapping[str, str] = NOTHING
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Evaluate the task's rules on what was read; return the names of the incidents opened and closed by it.

    ``known`` is what else is to be said of a rule's incident when it opens, by the rule's name.

    A look as of a time before the last one changes nothing: it would judge today's incidents by the past. After a pause
    longer than the task's staleness limit everything begins anew: nobody knows what was in between; unless the looks
    are as rare as that, the one before having come after a pause at least half as long.
    """
    rules = rules_for(task)
    last, patience = samples.last_look(journal, task.name), task.patience(task.monitoring.stale_after)
    if last is not None and now < last:
        return (), ()
    beats = journal.heartbeats(task.name)
    before = beats.get(RARE)
    pause = timedelta(0) if last is None or now - last <= patience else now - last
    usual = 2 * timedelta(seconds=float(before.detail)) if before is not None and before.detail else timedelta(0)
    anew = last is None or pause > usual
    present = [as_sample(one, now) for one in readings]
    values = numbers(rules, present, () if anew else samples.recall(journal, task.name, now), now)
    remembered = met(beats)
    found = evaluate(rules, values, remembered, now, anew)
    for name in sorted({*remembered, *found.pending}):
        if remembered.get(name) != found.pending.get(name):
            journal.beat(task.name, PENDING + name, now, iso(found.pending[name]) if name in found.pending else "")
    is_open = {incident.kind for incident in journal.incidents(task.name, open_only=True)}
    opened = tuple(
        rule.name
        for rule, value in ((one, values[one.name]) for one in found.firing)
        if rule.name not in is_open
        and value is not None
        and journal.open_incident(task.name, rule.name, f"{rule.told(value)} {known.get(rule.name, '')}".rstrip(), now)
    )
    closed = tuple(
        rule.name
        for rule in found.ended
        if rule.name in is_open
        and journal.close_incident(task.name, rule.name, now, GONE if values[rule.name] is None else BACK)
    )
    # last, so that a look that was cut off is done again as the same one
    oldest = now if anew else now - max(rule.window for rule in rules) - patience
    samples.keep(journal, task.name, present, rules, oldest, now)
    if last != now and (pause or usual):
        journal.beat(task.name, RARE, now, f"{pause.total_seconds():.0f}" if pause else "")
    return opened, closed


def met(beats: Mapping[str, Heartbeat]) -> dict[str, datetime]:
    """Return the rules whose condition was met at the last look, and since when it is."""
    return {
        work.removeprefix(PENDING): datetime.fromisoformat(beat.detail)
        for work, beat in beats.items()
        if work.startswith(PENDING) and beat.detail
    }


def numbers(
    rules: Iterable[Rule], present: Iterable[Sample], past: Iterable[Sample], now: datetime
) -> dict[str, float | None]:
    """Return the number of each rule; None where there is none, or too little for the rule to say anything."""
    present, past = tuple(present), tuple(past)
    found: dict[str, float | None] = {}
    for rule in rules:
        found[rule.name] = samples.measure(rule, present, past, now)
        if rule.least is not None:
            metric, most = rule.least
            there = [one.value for one in present if one.metric == metric and rule.labels.items() <= {*one.labels}]
            if not there or max(there) < most:
                found[rule.name] = None
    return found


def as_sample(reading: Reading, now: datetime) -> Sample:
    """Return a reading as a sample of now, its labels by name."""
    metric = METRICS.get(reading.metric) or METRICS[reading.metric.removesuffix("_bucket")]
    names = metric.labels if metric.name == reading.metric else (*metric.labels, samples.BOUND)
    return Sample(reading.metric, tuple(sorted(zip(names, reading.labels, strict=True))), now, reading.value)
