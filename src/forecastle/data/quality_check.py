"""The mandatory gate: every batch is judged by every check before anything may use it.

A check is one small function (in ``checks``) from the task, the rows and their window to a Finding; to add one, write
it and put it into CHECKS. All checks always run. Their verdicts:

    pass   as it should be
    warn   strange, and recorded; the batch goes on
    mask   values that cannot be: they become null, are recorded, and never reach a feature
    fail   the batch, or the series, must not go on

What fails is the whole batch or single series, by the check's scope: with scope ``series`` a failing series is
withheld and the others pass, so that one mad station does not stop them; where all fail, the batch does. Checks judge
the fetched window (by default the last 48 hours of all series), so one missing value is a small share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import polars as pl

from forecastle.data.checks import rows as of_rows
from forecastle.data.checks import times as of_times
from forecastle.data.checks import units as of_units
from forecastle.data.checks import values as of_values
from forecastle.data.checks.finding import ARRIVAL, MOST_ROWS, RUN, Finding, Scope, Verdict, Window, arrange
from forecastle.data.pages import save_page
from forecastle.frame import SERIES, TIMESTAMP, empty_observations, write_json
from forecastle.rule import CheckName
from forecastle.task import Task

__all__ = ["CHECKS", "MOST_ROWS", "Check", "Finding", "QualityReport", "Window", "judge", "save_report"]


@dataclass(frozen=True)
class Check:
    """A check, its scope, and what it means that a single series fails it, and that all do."""

    work: Callable[[Task, pl.DataFrame, Window], Finding]
    scope: Scope = "series"
    one: Verdict = "fail"
    all: Verdict = "fail"


CHECKS: dict[CheckName, Check] = {
    "schema": Check(of_rows.schema, "batch"),
    "keys": Check(of_rows.keys),
    "unknown-series": Check(of_rows.unknown_series),
    "duplicates": Check(of_rows.duplicates),
    "time-order": Check(of_rows.time_order, one="warn", all="warn"),
    "times": Check(of_times.times),
    "freshness": Check(of_times.freshness, one="warn"),  # a station that is silent has nothing that could be withheld
    "volume": Check(of_times.volume, one="warn"),
    "cadence": Check(of_times.cadence),
    "gaps": Check(of_times.gaps, one="warn"),
    "null-share": Check(of_values.null_share),
    "finite": Check(of_values.finite),
    "range": Check(of_values.value_range),
    "flatline": Check(of_values.flatline, one="warn", all="warn"),
    "unit-jump": Check(of_units.unit_jump),
}


@dataclass(frozen=True)
class QualityReport:
    """The findings of all checks on one batch.

    ``withheld`` names the checks that each series failed which must not go on while the others do; ``released`` who
    has let the batch pass against the gate, when and why.
    """

    task: str
    judged_at: datetime
    start: datetime
    end: datetime
    rows: int
    masked: int
    findings: tuple[Finding, ...]
    refused: bool
    withheld: Mapping[str, tuple[str, ...]]
    released: Mapping[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """Whether the batch may go on, perhaps without the series that are withheld."""
        return not self.refused or self.released is not None

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that stop the batch, or series of it."""
        return tuple(finding for finding in self.findings if finding.verdict == "fail")

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict on the batch; a series that is withheld is a warning to the others."""
        graver = (("warn" if one.verdict == "fail" and not self.refused else one.verdict) for one in self.findings)
        return _gravest(graver)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that let the batch pass all the same."""
        return tuple(finding for finding in self.findings if finding.verdict == "warn")

    @property
    def reason(self) -> str:
        """What was expected and found where the batch, or series of it, failed."""
        return "; ".join(f"{one.check}: expected {one.expected}, found {one.found}" for one in self.failures)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        plain = {name: getattr(self, name) for name in ("task", "judged_at", "start", "end", "rows", "masked")}
        said = ("check", "verdict", "scope", "withholds", "expected", "found")
        findings = [
            {name: getattr(one, name) for name in said} | {"rows": one.rows.to_dicts()} for one in self.findings
        ]
        own = ("passed", "verdict", "withheld", "released")
        return {**plain, **{name: getattr(self, name) for name in own}, "findings": findings}


def judge(
    task: Task,
    rows: pl.DataFrame,
    start: datetime,
    end: datetime,
    now: datetime,
    recent: pl.DataFrame | None = None,
    released: Mapping[str, Any] | None = None,
    checks: Mapping[CheckName, Check] = CHECKS,
) -> tuple[QualityReport, pl.DataFrame]:
    """Run every check over a batch; return the report, and the rows that may go on, with masked values null.

    The batch should be an observation table (see ``frame``) in the order in which it arrived; one that is not fails
    the check ``schema``, and the other checks judge what can be read of it. ``recent`` are the observations known
    before it came. A refused batch is returned whole, and so is one that was ``released`` (who, when); from any other,
    withheld series are left out. Nothing is raised: the caller saves the report first, then refuses.
    """
    task = task.measured
    readable, series = arrange(task, rows)
    known = empty_observations(task.columns) if recent is None else recent
    window = Window(start, end, now, rows.schema, series, known)
    findings = tuple(
        _settle(task, name, check, check.work(task, readable, window), window.names) for name, check in checks.items()
    )
    withheld: dict[str, tuple[str, ...]] = {}
    for finding in findings:
        for name in finding.withholds:
            withheld[name] = (*withheld.get(name, ()), finding.check)
    stopped = any(one.verdict == "fail" and not one.withholds for one in findings)
    refused = stopped or (bool(withheld) and withheld.keys() >= window.names)
    masked, count = _masked(readable, findings)
    held = dict(sorted(withheld.items())) if not refused and released is None else {}
    report = QualityReport(task.name, now, start, end, rows.height, count, findings, refused, held, released)
    return report, masked.filter(~pl.col(SERIES).is_in(list(held))) if held else masked


def save_report(folder: Path, report: QualityReport, flushed: bool = True) -> Path:
    """Write quality.json and quality.html into a folder, as ``frame.write_bytes`` does; return the page's path."""
    write_json(folder / "quality.json", report.as_dict(), flushed)
    return save_page(folder / "quality.html", "quality.html", flushed, report=report, most_rows=MOST_ROWS)


def _settle(task: Task, name: CheckName, check: Check, finding: Finding, present: frozenset[str]) -> Finding:
    """Return a finding with what it comes to, by the check's scope and verdict or by those the task gives it."""
    rule = task.gate.checks.get(name)
    scope = rule.scope if rule and rule.scope else check.scope
    one, every = (rule.verdict, rule.verdict) if rule and rule.verdict else (check.one, check.all)
    verdict, withholds = finding.verdict, tuple[str, ...]()
    if verdict == "fail":
        verdict, scope = every, "batch"
    elif finding.failing and (scope == "batch" or (finding.failing >= present and present)):
        verdict, scope = _gravest((verdict, every)), "batch"
    elif finding.failing:
        verdict = _gravest((verdict, one))
        withholds = tuple(sorted(finding.failing)) if one == "fail" else ()
    return replace(finding, check=name, scope=scope, verdict=verdict, withholds=withholds)


def _masked(rows: pl.DataFrame, findings: Iterable[Finding]) -> tuple[pl.DataFrame, int]:
    """Return the rows with what the findings mask as null and a repeated row once, and how many values that makes."""
    masks: dict[str, pl.Expr] = {}
    for finding in findings:
        for name, mask in finding.masks.items():
            masks[name] = masks[name] | mask if name in masks else mask
    count = int(rows.select(pl.sum_horizontal(mask.sum() for mask in masks.values())).item()) if masks else 0
    if masks:
        rows = rows.with_columns(pl.when(~mask).then(pl.col(name)).alias(name) for name, mask in masks.items())
    values = [name for name in rows.columns if name not in (ARRIVAL, RUN)]
    again = (pl.col(RUN) == pl.col(RUN).shift(1)) & (pl.col(TIMESTAMP) == pl.col(TIMESTAMP).shift(1))
    rows = rows.unique(values, keep="first", maintain_order=True) if rows.select(again.any()).item() else rows
    return rows.select(values), count


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=get_args(Verdict).index, default="pass")
