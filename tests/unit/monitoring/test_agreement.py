"""The embedded evaluator and the real Prometheus judge the same series, and fire and resolve at the same looks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forecastle.monitoring import alerts, rendering
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.metrics import METRICS, Reading
from forecastle.monitoring.rules import rules_for
from forecastle.task import Task, duration_text

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
MINUTE, FIVE, HOUR = timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1)
ALLOWED = {MINUTE: 10 * MINUTE, FIVE: HOUR, HOUR: 3 * HOUR}  # how long a task of so long a step may be without data
ABSENT, PAUSE = "stale", "_"  # a look that did not find the series, and no look at all, as promtool says them
LABELS = {"task": "t", "horizon": "all", "provider": "p", "span": "day", "job": "forecastle", "model_version": "1"}
Values = list[Any]


@dataclass(frozen=True)
class Case:
    """A rule, what each look finds of its metric, at which looks it fires, and how far apart they are."""

    rule: str
    values: Values
    firing: list[int]
    every: timedelta = MINUTE
    least: Values | None = None


def at(*stretches: tuple[int, int]) -> list[int]:
    return [look for first, last in stretches for look in range(first, last + 1)]


CASES = {
    "a counter that stands still from the first look on has not stood still for longer than it was seen": Case(
        "no-forecasts", [5] * 15 + [6] * 12, at((10, 14), (25, 26))
    ),
    "a counter that is missing for a while goes on standing still, and begins anew after its window": Case(
        "no-forecasts",
        [5] * 12 + [ABSENT] * 3 + [5] * 5 + [7] * 4 + [ABSENT] * 14 + [7] * 12,
        at((10, 19), (30, 32), (48, 49)),
    ),
    "a counter that began anew from zero has gained": Case("no-forecasts", [9] * 8 + [1] * 16, at((18, 23))),
    "nobody knows what a counter did in a pause": Case(
        "no-forecasts", [3, 4, 5] + [PAUSE] * 15 + [5] * 12, at((28, 29))
    ),
    "a gap in the looks, shorter than half an hour, ends no alarm and raises none again": Case(
        "no-forecasts", [5] * 20 + [PAUSE] * 4 + [5] * 20, at((12, 19), (24, 43)), FIVE
    ),
    "a series that is missing for so long, as while its service starts again, ends none either": Case(
        "no-forecasts", [5] * 20 + [ABSENT] * 4 + [5] * 20, at((12, 43)), FIVE
    ),
    "a gate that refused before a gap and after it has refused all": Case(
        "gate-failing", [0] + [1] * 20 + [PAUSE] * 4 + [1] * 20, at((13, 20), (25, 44)), FIVE
    ),
    "one that is missing for longer has to be there for a whole window again": Case(
        "no-forecasts", [5] * 20 + [ABSENT] * 10 + [5] * 20, at((12, 37), (42, 49)), FIVE
    ),
    "a gate that refuses from the first look on has not yet done so for the whole window": Case(
        "gate-failing", [1] * 14 + [0] * 2 + [1] * 13, at((10, 13), (26, 28))
    ),
    "one refused batch after a pause is one": Case("gate-failing", [0] * 3 + [PAUSE] * 15 + [1] * 12, at((28, 29))),
    "a gate that says nothing for a while has still refused all": Case(
        "gate-failing", [1] * 12 + [ABSENT] * 2 + [1] * 4 + [0], at((10, 17))
    ),
    "what is looked at as it is now fires and ends with it, missing or mended": Case(
        "data-drift", [0.05, 0.2, 0.2, ABSENT, 0.2, 0.05, 0.3, ABSENT, ABSENT], [1, 2, 4, 6]
    ),
    "a measure that is missing starts the day anew": Case(
        "skill-lost", [-0.1] * 26 + [ABSENT] + [-0.1] * 25 + [0.1] + [-0.1] * 3, at((24, 25), (51, 51)), HOUR
    ),
    "a pause starts the day anew": Case("skill-lost", [-0.1] * 20 + [PAUSE] * 5 + [-0.1] * 26, at((49, 50)), HOUR),
    "figures of too few outcomes are none, and start the day anew": Case(
        "coverage-low", [0.5] * 52, at((24, 25), (51, 51)), HOUR, [500] * 26 + [99] + [100] * 25
    ),
    "the greatest of a window lasts as long as the window": Case(
        "budget-nearly-spent", [0.5, 0.95] + [0.1] * 8 + [0.95] + [ABSENT] * 8, at((1, 6), (10, 15))
    ),
    "a service that is down for a moment is no alarm": Case("service-down", [1, 0, 1, 0, 0, 0, 1], [4, 5]),
    "predictions that are slow for five minutes are an alarm, until nobody asks any more": Case(
        "inference-slow", [(0, 10 * look) for look in range(15)] + [(0, 140)] * 8, at((6, 18))
    ),
    "predictions that become quick again end it, and so does a service that is gone": Case(
        "inference-slow",
        [(0, 10 * look) for look in range(9)]
        + [(100 * look, 80 + 100 * look) for look in range(1, 8)]
        + [(700, 780 + 50 * look) for look in range(1, 9)]
        + [ABSENT] * 8,
        at((6, 11), (21, 27)),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prometheus_and_the_embedded_evaluator_fire_and_resolve_at_the_same_looks(
    task: Task, tmp_path: Path, missing_component: Callable[[str], None], case: Case
) -> None:
    monitoring = task.monitoring.model_copy(update={"stale_after": ALLOWED[case.every]})
    task = task.model_copy(update={"name": "t", "frequency": case.every, "monitoring": monitoring})
    assert embedded(task, case, tmp_path) == case.firing
    if shutil.which("promtool") is None:
        missing_component("no promtool: tools/debian-package promtool prometheus")
    judged_by_prometheus(task, case, tmp_path)


def test_every_aggregation_is_tried_so(task: Task) -> None:
    rules = {rule.name: rule for rule in rules_for(task)}
    assert {rules[case.rule].aggregation for case in CASES.values()} == rendering.PROMQL.keys()


def found(task: Task, case: Case) -> dict[tuple[str, tuple[str, ...]], Values]:
    """Return what each look finds of every series of the case, by metric and labels in the metric's order."""
    rule = next(one for one in rules_for(task) if one.name == case.rule)
    labels = tuple(LABELS[name] for name in METRICS[rule.metric].labels)
    if rule.aggregation == "p95":

        def bucket(place: int) -> Values:
            return [one if isinstance(one, str) else one[place] for one in case.values]

        bounds = {"0.5": 0, "1.0": 1, "+Inf": 1}  # quick ones, and all
        return {(f"{rule.metric}_bucket", (*labels, bound)): bucket(place) for bound, place in bounds.items()}
    series = {(rule.metric, labels): case.values}
    if rule.least is not None:
        enough = case.least or [one if isinstance(one, str) else 500 for one in case.values]
        series[rule.least[0], tuple(LABELS[name] for name in METRICS[rule.least[0]].labels)] = enough
    return series


def embedded(task: Task, case: Case, folder: Path) -> list[int]:
    """Return after which looks the rule's incident is open."""
    series, firing = found(task, case), []
    with Journal(f"sqlite:///{folder}/journal.db") as journal:
        for look, value in enumerate(case.values):
            if value == PAUSE:
                continue
            readings = [Reading(*name, values[look]) for name, values in series.items() if values[look] != ABSENT]
            alerts.apply(journal, task, readings, NOON + look * case.every)
            if any(one.kind == case.rule for one in journal.incidents(task.name, open_only=True)):
                firing.append(look)
    return firing


def judged_by_prometheus(task: Task, case: Case, folder: Path) -> None:
    """Have promtool confirm that at every look the alert fires or does not, as the case says."""
    (one,) = [one for one in rendering.rendered([task]) if one.rule.name == case.rule]
    (folder / "rules.yml").write_text(rendering.render([task])["prometheus/rules.yml"], encoding="utf-8")
    kept = {name: LABELS[name] for name in METRICS[one.rule.metric].labels}
    if one.rule.aggregation == "p95":
        kept.pop("model_version")
    labels = {"severity": one.rule.severity, "rule": case.rule, **kept}
    annotations = {"summary": one.rule.summary, "description": one.rule.action, "runbook_url": one.rule.runbook()}
    fires = [{"exp_labels": labels, "exp_annotations": annotations}]
    series = [
        {
            "series": metric
            + "{"
            + ",".join(f'{name}="{label}"' for name, label in zip(names, told, strict=True))
            + "}",
            "values": " ".join(map(str, values)),
        }
        for (metric, told), values in found(task, case).items()
        for names in [METRICS[metric].labels if metric in METRICS else (*METRICS[one.rule.metric].labels, "le")]
    ]
    every = duration_text(case.every)
    looks = [
        {
            "eval_time": duration_text(look * case.every) if look else "0s",
            "alertname": one.alert,
            "exp_alerts": fires if look in case.firing else [],
        }
        for look, value in enumerate(case.values)
        if value != PAUSE
    ]
    written = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": every,
        "tests": [{"interval": every, "input_series": series, "alert_rule_test": looks}],
    }
    (folder / "test.yml").write_text(json.dumps(written), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", folder / "test.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
