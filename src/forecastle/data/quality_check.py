"""The mandatory gate: every batch is judged by every check before anything may use it.

A check is one small function from the task, the batch and its window to a Finding; to add one, write it and put it into
CHECKS. All checks always run. Their verdicts:

    pass   as it should be
    warn   strange, and recorded; the batch goes on
    mask   values that cannot be: they become null, are recorded, and never reach a feature
    fail   the batch must not go on

Checks judge the fetched window (by default the last 48 hours of all series), so one missing value is a small share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from forecastle.data.pages import save_page
from forecastle.data.providers import PROVIDERS
from forecastle.frame import (
    AVAILABLE_AT,
    BITEMPORAL,
    COLLECTED_AT,
    KEYS,
    SERIES,
    TIMESTAMP,
    iso,
    observation_schema,
    write_json,
)
from forecastle.task import Task, duration_text, nearest

Verdict = Literal["pass", "warn", "mask", "fail"]
MOST_ROWS = 50
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Window:
    """What was asked for: timestamps from start (inclusive) to end (exclusive), as of now; and the types that came."""

    start: datetime
    end: datetime
    now: datetime
    arrived: Mapping[str, pl.DataType]


@dataclass(frozen=True)
class Finding:
    """What one check expected and found, with the offending rows (at most 50)."""

    check: str
    verdict: Verdict
    expected: str
    found: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class QualityReport:
    """The findings of all checks on one batch."""

    task: str
    judged_at: datetime
    start: datetime
    end: datetime
    rows: int
    masked: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether the batch may go on."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that stop the batch."""
        return tuple(finding for finding in self.findings if finding.verdict == "fail")

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all checks."""
        return _gravest(finding.verdict for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        plain = {name: getattr(self, name) for name in ("task", "judged_at", "start", "end", "rows", "masked")}
        findings = [
            {"check": one.check, "verdict": one.verdict, "expected": one.expected, "found": one.found}
            | {"rows": one.rows.to_dicts()}
            for one in self.findings
        ]
        return {**plain, "passed": self.passed, "verdict": self.verdict, "findings": findings}


def judge(
    task: Task, rows: pl.DataFrame, start: datetime, end: datetime, now: datetime
) -> tuple[QualityReport, pl.DataFrame]:
    """Run every check over a batch; return the report, and the batch with masked values null.

    The batch should be an observation table (see ``frame``); one that is not fails the check ``schema``, and the other
    checks judge what can be read of it. Nothing is raised: the caller saves the report first, then refuses.
    """
    task = task.measured
    window = Window(start, end, now, rows.schema)
    readable = _readable(task, rows)
    findings = tuple(Finding(name, *check(task, readable, window)) for name, check in CHECKS.items())
    masks = {
        name: pl.col(name).is_infinite() | (_outside(task, name) if column.outside == "mask" else False)
        for name, column in task.columns.items()
    }
    masks = {name: impossible.fill_null(False) for name, impossible in masks.items()}
    masked = readable.with_columns(pl.when(~outside).then(name).alias(name) for name, outside in masks.items())
    count = int(readable.select(pl.sum_horizontal(pl.lit(0), *(one.sum() for one in masks.values()))).item())
    return QualityReport(task.name, now, start, end, rows.height, count, findings), masked


def save_report(folder: Path, report: QualityReport) -> Path:
    """Write quality.json and quality.html into a folder, each whole or not at all; return the page's path."""
    write_json(folder / "quality.json", report.as_dict())
    return save_page(folder / "quality.html", "quality.html", report=report, most_rows=MOST_ROWS)


Judged = tuple[Verdict, str, str, pl.DataFrame]


def schema(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """The columns of the contract are there, with their types."""
    wanted = observation_schema(task.columns)
    wrong = [
        f"{name} {'is missing' if name not in window.arrived else f'is {window.arrived[name]}, not {dtype}'}"
        for name, dtype in wanted.items()
        if window.arrived.get(name) != dtype
    ]
    return _judged("fail" if wrong else "pass", f"the columns {', '.join(wanted)}", "; ".join(wrong), rows.clear())


def keys(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """Every row says which series it is of, and its three times."""
    bad = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in BITEMPORAL))
    found = f"{bad.height} rows that do not" if bad.height else ""
    return _judged("fail" if bad.height else "pass", f"every row to have {', '.join(BITEMPORAL)}", found, bad)


def unknown_series(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """Every series is one of the task's; a task that names none takes any."""
    if not task.series:
        return _judged("pass", "any series", "", rows.clear())
    bad = rows.filter(pl.col(SERIES).is_in(task.series_ids).not_())
    names = [f"{name!r}{nearest(name, task.series_ids)}" for name in bad[SERIES].unique().sort().drop_nulls()]
    return _judged("fail" if names else "pass", f"only {', '.join(task.series_ids)}", ", ".join(names), bad)


def duplicates(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """No series has a timestamp twice: with different values that is a failure, with the same values a warning."""
    twice = rows.filter(pl.struct(KEYS).is_duplicated()).sort(BITEMPORAL)
    differing = twice.unique([*KEYS, *task.columns]).filter(pl.struct(KEYS).is_duplicated())
    verdict: Verdict = "fail" if differing.height else "warn" if twice.height else "pass"
    found = (
        f"{twice.select(KEYS).n_unique()} timestamps twice, {differing.select(KEYS).n_unique()} with different values"
    )
    return _judged(verdict, "each timestamp of a series once", found if twice.height else "", twice)


def times(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """No row is of a time to come, or says that it was known before it could be."""
    knowable = pl.col(TIMESTAMP) + task.knowable_after
    late = pl.max_horizontal(knowable, AVAILABLE_AT, COLLECTED_AT) > window.now
    bad = rows.filter(late | (pl.col(AVAILABLE_AT) < knowable))
    found = f"{bad.height} rows of a time to come, or known before their time" if bad.height else ""
    expected = (
        f"rows knowable by {iso(window.now)}, none before {duration_text(task.knowable_after)} after its timestamp"
    )
    return _judged("fail" if bad.height else "pass", expected, found, bad)


def freshness(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """The newest row of a window that reaches to now is young enough; a single series that lags is a warning.

    Age counts from when a row could be known (``Task.age``); the gate's ``max_age`` is never taken as below two steps.
    """
    limit = task.patience(task.gate.max_age)
    expected = f"rows no older than {duration_text(limit)}, counted from when they could be known"
    if task.age(window.end, window.now) >= limit:
        return _judged("pass", "nothing: the window ends before", "", rows.clear())
    newest = rows.group_by(SERIES).agg(pl.col(TIMESTAMP).max()).sort(SERIES)
    stale = newest.filter([moment is not None and task.age(moment, window.now) > limit for moment in newest[TIMESTAMP]])
    verdict: Verdict = "fail" if stale.height == newest.height else "warn" if stale.height else "pass"
    ages = [f"{series}: newest {iso(moment)}" for series, moment in stale.iter_rows()]
    return _judged(verdict, expected, "; ".join(ages) or ("" if newest.height else "no rows"), stale)


def volume(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """Every series has a row for every step of the window that could be known by now.

    Absent steps are a warning, and so is a series short of more than the gate's ``max_missing_share``: it must not stop
    the others. All series as short are a failure; where the source decides which steps there are (a file, an observed
    grid, a source of the present alone) they are a warning at most, but no row at all is a failure. Of a source that
    has rows only where something happens, no other step is absent.
    """
    if PROVIDERS[task.source.provider].gives_events(task):
        nothing = rows.is_empty()
        return _judged("fail" if nothing else "pass", "rows of what happened", "no rows" if nothing else "", rows)
    steps = _steps(task, window)
    series = sorted({*task.series_ids, *rows[SERIES].drop_nulls()})
    wanted = pl.DataFrame({SERIES: series}, schema={SERIES: pl.String}).join(steps, how="cross")
    came = rows.select(SERIES, pl.col(TIMESTAMP).dt.truncate(f"{task.frequency // timedelta(seconds=1)}s"))
    absent = wanted.join(came, on=KEYS, how="anti").sort(KEYS)
    most = task.gate.max_missing_share * steps.height
    short = absent.group_by(SERIES).len().filter(pl.col("len") > most).sort(SERIES)
    present_only = PROVIDERS[task.source.provider].gives_present_only(task)
    lenient = task.grid == "observed" or task.source.provider == "file" or present_only
    empty = rows.is_empty() and not steps.is_empty()
    grave = empty or (0 < len(series) == short.height and not lenient)
    verdict: Verdict = "fail" if grave else "warn" if absent.height else "pass"
    expected = f"{steps.height} rows for each of {len(series)} series; at most {task.gate.max_missing_share:.0%} absent"
    found = f"{absent.height} of {wanted.height} absent" if absent.height else ""
    found += "".join(f"; {name} lacks {count} of {steps.height}" for name, count in short.iter_rows())
    return _judged(verdict, expected, "no rows" if empty else found, absent)


def null_share(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """No column has more nulls than its ``max_null_share``, or else the gate's, allows; a single one may always be."""
    limits = {name: _null_limit(task, name) for name in task.columns}
    counts = {name: rows[name].null_count() for name in task.columns}
    over = [name for name in task.columns if counts[name] > max(1.0, limits[name] * rows.height)]
    expected = "at most " + ", ".join(f"{limits[name]:.1%} null in {name}" for name in task.columns)
    found = ", ".join(f"{counts[name] / rows.height:.1%} null in {name}" for name in over)
    bad = rows.filter(pl.any_horizontal(pl.lit(False), *(pl.col(name).is_null() for name in over)))
    return _judged("fail" if over else "pass", expected, found, bad)


def finite(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """No value is infinite: one that is becomes null, more than its column may have nulls fail.

    What is not a number at all has become null before.
    """
    counts = {name: int(rows[name].is_infinite().sum()) for name in task.columns}
    found = "; ".join(f"{count} infinite in {name}" for name, count in counts.items() if count)
    too_many = any(count > max(1.0, _null_limit(task, name) * rows.height) for name, count in counts.items())
    bad = rows.filter(pl.any_horizontal(pl.col(name).is_infinite() for name in task.columns))
    return _judged("fail" if too_many else "mask" if found else "pass", "finite values", found, bad)


def value_range(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """Every value lies between its column's minimum and maximum; the column says what happens to one that does not.

    A column with more values to mask than it may have nulls is no fault of single values: that fails.
    """
    verdicts: list[Verdict] = ["pass"]
    parts, found = [], []
    for name, column in task.columns.items():
        bad = rows.filter(_outside(task, name))
        if bad.is_empty():
            continue
        too_many = column.outside == "mask" and bad.height > max(1.0, _null_limit(task, name) * rows.height)
        verdicts.append("fail" if too_many else column.outside)
        parts.append(bad.select(*KEYS, pl.lit(name).alias("column"), pl.col(name).alias("value")))
        worst = bad.sort((pl.col(name) - rows[name].median()).abs()).row(-1, named=True)
        found.append(f"{bad.height} in {name}, such as {worst[name]:g} at {worst[SERIES]} {_when(worst[TIMESTAMP])}")
    expected = ", ".join(
        f"{name} in {_bound(column.minimum)} … {_bound(column.maximum)} {column.unit}".rstrip()
        for name, column in task.columns.items()
        if column.minimum is not None or column.maximum is not None
    )
    return _judged(_gravest(verdicts), expected or "any value", "; ".join(found), pl.concat(parts or [rows.clear()]))


def flatline(task: Task, rows: pl.DataFrame, window: Window) -> Judged:
    """The target of no series keeps one value for as long as the gate's ``flatline``; if one does: a warning."""
    limit = task.gate.flatline
    if limit is None:
        return _judged("pass", "nothing: the task sets no gate.flatline", "", rows.clear())
    runs = (
        rows.sort(KEYS)
        .with_columns(run=pl.struct(SERIES, task.target).rle_id())
        .filter(pl.col(task.target).is_not_null())
        .group_by("run", maintain_order=True)
        .agg(pl.col(SERIES, task.target).first(), first=pl.col(TIMESTAMP).min(), last=pl.col(TIMESTAMP).max())
        .filter(pl.col("last") - pl.col("first") >= limit)
        .drop("run")
    )
    found = ", ".join(f"{series} at {value:g} from {_when(first)}" for series, value, first, _ in runs.iter_rows())
    return _judged("warn" if found else "pass", f"{task.target} to change within {duration_text(limit)}", found, runs)


Check = Callable[[Task, pl.DataFrame, Window], Judged]
CHECKS: dict[str, Check] = {
    "schema": schema,
    "keys": keys,
    "unknown series": unknown_series,
    "duplicates": duplicates,
    "times": times,
    "freshness": freshness,
    "volume": volume,
    "null share": null_share,
    "finite": finite,
    "range": value_range,
    "flatline": flatline,
}


def _judged(verdict: Verdict, expected: str, found: str, rows: pl.DataFrame) -> Judged:
    return verdict, expected, found or "as expected", rows.head(MOST_ROWS)


def _gravest(verdicts: Any) -> Verdict:
    return max(verdicts, key=get_args(Verdict).index, default="pass")


def _readable(task: Task, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what can be read of a batch in the contract's columns and types, canonically ordered; the rest is null."""
    columns = {
        name: (pl.col(name).cast(dtype, strict=False) if name in rows.columns else pl.lit(None, dtype=dtype)).alias(
            name
        )
        for name, dtype in observation_schema(task.columns).items()
    }
    readable = rows.select(columns.values()) if rows.height else pl.DataFrame(schema=observation_schema(task.columns))
    return readable.with_columns(pl.col(pl.Float64).fill_nan(None)).sort(BITEMPORAL)


def _outside(task: Task, name: str) -> pl.Expr:
    """Tell of each row whether the value is below its minimum or above its maximum; a null is not."""
    column, value = task.columns[name], pl.col(name)
    least = -math.inf if column.minimum is None else column.minimum
    most = math.inf if column.maximum is None else column.maximum
    return (~value.is_between(least, most)).fill_null(False)


def _null_limit(task: Task, name: str) -> float:
    own = task.columns[name].max_null_share
    return task.gate.max_null_share if own is None else own


def _steps(task: Task, window: Window) -> pl.DataFrame:
    """Return the timestamps of the regular grid in the window that could be known, and published, by now."""
    newest = window.now - task.knowable_after - task.source.publication_delay
    first = EPOCH - ((EPOCH - window.start) // task.frequency) * task.frequency
    last = min(window.end - timedelta(microseconds=1), newest)
    steps = pl.datetime_range(first, last, task.frequency, time_unit="us", time_zone="UTC", eager=True)
    return pl.DataFrame({TIMESTAMP: steps if last >= first else steps.clear()})


def _bound(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:g}"


def _when(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else iso(moment)
