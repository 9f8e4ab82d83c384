"""Checks of when: no row of a time to come, the newest young enough, as many steps as asked for, on the grid, no
gap."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from forecastle.data.checks.finding import (
    MICROSECOND,
    MOST_ROWS,
    NOTHING,
    SAME_SERIES,
    Finding,
    Window,
    counts,
    grid,
    listed,
    passed,
    shown,
    step_number,
    when,
)
from forecastle.data.providers import PROVIDERS, gives_events
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, EPOCH, SERIES, TIME, TIMESTAMP, instant, iso
from forecastle.task import Task, duration_text

_STEP = "__step"


def times(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No row is of a time to come, or says that it was known before it could be."""
    after = duration_text(task.knowable_after)
    expected = f"rows knowable by {iso(window.now)}, none before {after} after its timestamp"
    early = pl.col(AVAILABLE_AT) - pl.col(TIMESTAMP) < task.knowable_after
    now = instant(window.now)
    late = [pl.col(TIMESTAMP) > instant(window.now - task.knowable_after)]
    late += [pl.col(name) > now for name in (AVAILABLE_AT, COLLECTED_AT)]
    if not rows.select(pl.any_horizontal(early.any(), *(one.any() for one in late))).item():
        return passed(expected)
    bad = rows.filter(pl.any_horizontal(early, *late).fill_null(False))
    found = f"{bad.height} rows of a time to come, or known before their time"
    return Finding(expected, found, shown(bad), failing=frozenset(counts(bad)))


def freshness(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """The newest row of a window that reaches to now is young enough; a single series that lags is a warning.

    Age counts from when a row could be known (``Task.age``); the gate's ``max_age`` is never taken as below two steps.
    """
    limit = task.patience(task.gate.max_age)
    expected = f"rows no older than {duration_text(limit)}, counted from when they could be known"
    if task.age(window.end, window.now) >= limit:
        return passed("nothing: the window ends before")
    if rows.is_empty():
        return Finding(expected, "no rows", shown(rows), "fail")
    oldest = window.now - task.knowable_after - task.source.publication_delay - limit
    stale = window.series.filter(pl.col("last") < instant(oldest)).select(SERIES, pl.col("last").alias(TIMESTAMP))
    if stale.is_empty():
        return passed(expected)
    found = listed(f"{series}: newest {iso(moment)}" for series, moment in stale.iter_rows())
    return Finding(expected, found, shown(stale), failing=frozenset(stale[SERIES].drop_nulls()))


def volume(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """Every series has a row for every step of the window that could be known by now.

    A series short of more than the gate's ``max_missing_share`` fails; so does a window without a row. Where the
    source decides which steps there are (a file, an observed grid, a source of the present alone) that is a warning.
    Of a source that has rows only where something happens, no other step is absent.
    """
    first, steps = grid(task, window)
    if gives_events(task):
        expected = "rows of what happened"
        return passed(expected) if rows.height else Finding(expected, "no rows", NOTHING, "fail")
    names = sorted({*task.series_ids, *window.names})
    limit = task.gate.max_missing_share
    expected = f"{steps} rows for each of {len(names)} series; at most {limit:.0%} absent"
    if rows.is_empty() and steps:
        return Finding(expected, "no rows", shown(rows), "fail")
    step = step_number(task, first)
    new = step.is_between(0, steps - 1) & (~SAME_SERIES | (step != step.shift(1))).fill_null(True)
    wanted = steps * len(names)
    absent = wanted - int(rows.select(new.sum()).item())
    if not absent:
        return passed(expected)
    came = counts(rows.filter(new))
    lacking = {name: steps - came.get(name, 0) for name in names if came.get(name, 0) < steps}
    short = {name: count for name, count in lacking.items() if count > limit * steps}
    found = listed(
        [f"{absent} of {wanted} absent", *(f"{name} lacks {count} of {steps}" for name, count in short.items())]
    )
    if not short:
        return passed(expected, found)
    offending = _absent_steps(task, rows, first, steps, list(short))
    if _decides_its_steps(task):
        return Finding(expected, found, offending, "warn")
    return Finding(expected, found, offending, failing=frozenset(short))


def cadence(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """Rows lie on the grid of the source's step; a series of which more lie off it than may be absent fails.

    A few are a warning, and so are any in a file, on an observed grid and from a source of the present alone.
    """
    step = task.frequency // MICROSECOND
    expected = f"timestamps at whole steps of {duration_text(task.frequency)}"
    off = pl.col(TIMESTAMP).to_physical() % step != 0
    if _has_no_grid(task) or not rows.select(off.any()).item():
        return passed(expected)
    bad = rows.filter(off)
    have = dict(window.series.select(SERIES, "rows").iter_rows())
    found = counts(bad)
    limit = task.gate.max_missing_share
    failing = [name for name, count in found.items() if count > limit * have[name] and not _decides_its_steps(task)]
    parts = listed(f"{found[name]} of {have[name]} rows of {name} off the grid" for name in sorted(found))
    return Finding(expected, f"{parts}, such as {when(bad[TIMESTAMP][0])}", shown(bad), "warn", frozenset(failing))


def gaps(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No step between rows of the window is absent; a run of them longer than the gate's ``max_gap`` fails its series.

    What is absent at the end is for ``freshness`` to judge, a series that is absent altogether for ``volume``. Shorter
    runs are a warning. So are longer ones that lie before the gate's own window, as in a backfill, which only cost
    training some rows, and any where the source decides which steps there are. Days on which nothing is traded are no
    gaps: an observed grid has none. The limit is never taken as below two steps.
    """
    limit = task.patience(task.gate.max_gap)
    expected = f"no step absent; no more than {duration_text(limit)} in one run"
    first, steps = grid(task, window)
    if task.grid == "observed" or not steps or _has_no_grid(task):
        return passed("nothing: the source decides which steps there are")
    runs = _absent_runs(task, rows, window, first, steps)
    if runs.is_empty():
        return passed(expected)
    recent = pl.col("until") > window.end - task.gate.window
    long = runs.filter(pl.col("absent") * task.frequency > limit, recent)
    failing = frozenset[str]() if _decides_its_steps(task) else frozenset(long[SERIES].drop_nulls())
    longest = runs.sort("absent", SERIES, descending=[True, False])
    name, since, until, absent = longest.select(SERIES, "since", "until", "absent").row(0)
    found = f"{runs['absent'].sum()} steps absent in {runs.height} runs, the longest {absent}: {name} from {iso(since)}"
    found += f" to {iso(until)}" + (f"; longer than may be: {listed(sorted(failing), ', ')}" if failing else "")
    return Finding(expected, found, shown(longest), "warn", failing)


def _has_no_grid(task: Task) -> bool:
    """Tell whether rows have the times of what happened, or of when the source was asked."""
    return PROVIDERS[task.source.provider].gives_present_only(task) or gives_events(task)


def _decides_its_steps(task: Task) -> bool:
    """Tell whether the source, and not the clock, decides which steps there are."""
    present_only = PROVIDERS[task.source.provider].gives_present_only(task)
    return task.grid == "observed" or task.source.provider == "file" or present_only


def _absent_steps(task: Task, rows: pl.DataFrame, first: datetime, steps: int, names: list[str]) -> pl.DataFrame:
    """Return the first absent steps of these series: series_id, timestamp."""
    found: list[pl.DataFrame] = []
    for name in names:
        came = rows.filter(pl.col(SERIES) == name).select(step_number(task, first).alias(_STEP))
        numbers = pl.int_range(steps, eager=True)
        absent = numbers.filter(~numbers.is_in(came[_STEP].implode())).head(MOST_ROWS)
        found.append(pl.DataFrame({SERIES: name, TIMESTAMP: [first + task.frequency * int(one) for one in absent]}))
        if sum(table.height for table in found) >= MOST_ROWS:
            break
    return pl.concat(found).head(MOST_ROWS)


def _absent_runs(task: Task, rows: pl.DataFrame, window: Window, first: datetime, steps: int) -> pl.DataFrame:
    """Return each run of absent steps that a row follows: series_id, since (its first step), until (its end), absent
    (how many)."""
    step = step_number(task, first)
    inner = rows.select(SERIES, before=step.shift(1), absent=step - step.shift(1) - 1, same=SAME_SERIES)
    inner = inner.filter("same", pl.col("absent") > 0).select(SERIES, pl.col("before") + 1, "absent")
    late = window.series.select(SERIES, _since(first, "first") // (task.frequency // MICROSECOND)).filter(
        pl.col("first") > 0
    )
    outer = late.select(
        SERIES, pl.lit(0, dtype=pl.Int64).alias("before"), pl.min_horizontal("first", steps).alias("absent")
    )
    begin = (pl.col("before") * (task.frequency // MICROSECOND) + (first - EPOCH) // MICROSECOND).cast(TIME)
    runs = pl.concat([inner, outer]).with_columns(since=begin)
    return runs.select(SERIES, "since", (pl.col("since") + pl.col("absent") * task.frequency).alias("until"), "absent")


def _since(first: datetime, name: str) -> pl.Expr:
    return pl.col(name).to_physical() - (first - EPOCH) // MICROSECOND
