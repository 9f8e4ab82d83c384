"""Checks of the values: nulls, infinities, ranges, and series that stand still."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import polars as pl

from forecastle.data.checks.finding import (
    RUN,
    Finding,
    Verdict,
    Window,
    counts,
    listed,
    null_limit,
    over_share,
    passed,
    shown,
    too_many,
    when,
)
from forecastle.frame import KEYS, SERIES, TIMESTAMP
from forecastle.task import Task, duration_text


def null_share(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No column has more nulls than its ``max_null_share``, or else the gate's, allows; a single one may always be.

    Where the batch has more, the series with more of their own fail, and the batch if the rest has too many as well.
    Where it has not, such a series is a warning.
    """
    expected = "at most " + ", ".join(f"{null_limit(task, name):.1%} null in {name}" for name in task.columns)
    found: list[str] = []
    failing, whole, met = frozenset[str](), False, []
    for name in (name for name in task.columns if rows[name].null_count() > 1):
        bad, limit = rows.filter(pl.col(name).is_null()), null_limit(task, name)
        blamed, rest = too_many(bad, rows, window, limit)
        lone = frozenset() if blamed or rest else over_share(counts(bad), window, limit)
        if blamed or rest or lone:
            found.append(f"{bad.height / rows.height:.1%} null in {name}{_of(blamed or lone)}")
            met.append(name)
            failing, whole = failing | blamed, whole or rest
    if not found:
        return passed(expected)
    bad = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in met))
    return Finding(expected, ", ".join(found), shown(bad), "fail" if whole else "warn", failing)


def finite(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No value is infinite: one that is becomes null, more than its column may have nulls fail.

    What is not a number at all has become null before.
    """
    tests = {name: pl.col(name).is_infinite() for name in task.columns}
    found = rows.select(one.sum() for one in tests.values()).row(0, named=True)
    met = {name: tests[name].fill_null(False) for name in task.columns if found[name]}
    if not met:
        return passed("finite values")
    failing, whole = frozenset[str](), False
    for name, test in met.items():
        series, rest = too_many(rows.filter(test), rows, window, null_limit(task, name))
        failing, whole = failing | series, whole or rest
    said = "; ".join(f"{found[name]} infinite in {name}" for name in met)
    bad = rows.filter(pl.any_horizontal(met.values()))
    return Finding("finite values", said + _of(failing), shown(bad), "fail" if whole else "mask", failing, met)


def value_range(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """Every value lies between its column's minimum and maximum; the column says what happens to one that does not.

    More values to mask than a column may have nulls are no fault of single values: that fails.
    """
    bounds = {name: bounds for name in task.columns if (bounds := _bounds(task, name)) != (-math.inf, math.inf)}
    expected = ", ".join(
        f"{name} in {_text(least)} … {_text(most)} {task.columns[name].unit}".rstrip()
        for name, (least, most) in bounds.items()
    )
    tests = {name: outside(task, name) for name in bounds}
    count = rows.select(test.sum().alias(name) for name, test in tests.items()).row(0, named=True) if tests else {}
    verdict: Verdict = "pass"
    failing, found, parts, masks = frozenset[str](), [], [], {}
    for name in (name for name in bounds if count[name]):
        bad, what = rows.filter(tests[name]), task.columns[name].outside
        series, whole = frozenset(counts(bad)), False
        if what == "mask":
            series, whole = too_many(bad, rows, window, null_limit(task, name))
            masks[name] = tests[name]
        verdict = max(verdict, "fail" if whole else "pass" if what == "fail" else what, key=_GRAVITY.index)
        failing |= series if what != "warn" else frozenset()
        parts.append(bad.select(*KEYS, pl.lit(name).alias("column"), pl.col(name).alias("value")))
        worst = bad.sort((pl.col(name) - rows[name].median()).abs(), TIMESTAMP).row(-1, named=True)
        found.append(f"{count[name]} in {name}, such as {worst[name]:g} at {worst[SERIES]} {when(worst[TIMESTAMP])}")
    if not parts:
        return passed(expected or "any value")
    return Finding(expected, "; ".join(found), shown(pl.concat(parts)), verdict, failing, masks)


def flatline(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No column of any series keeps one value for as long as its ``flatline``, the target's or else the gate's.

    Nulls in between do not count as a change.
    """
    own = {name: column.flatline for name, column in task.columns.items()}
    own[task.target] = own[task.target] or task.gate.flatline
    limits = {name: limit for name, limit in own.items() if limit is not None}
    if not limits:
        return passed("nothing: the task sets no flatline")
    expected = ", ".join(f"{name} to change within {duration_text(limit)}" for name, limit in limits.items())
    timed = rows.filter(pl.col(TIMESTAMP).is_not_null()) if rows[TIMESTAMP].null_count() else rows
    parts = [part for name, limit in limits.items() if (part := _standing_still(timed, name, limit)) is not None]
    if not parts:
        return passed(expected)
    still = pl.concat(parts)
    told = still.select(SERIES, "column", "value", "first").iter_rows()
    found = listed((f"{name} at {value:g} {column} from {when(first)}" for name, column, value, first in told), ", ")
    return Finding(expected, found, shown(still), failing=frozenset(still[SERIES].drop_nulls()))


def _standing_still(rows: pl.DataFrame, name: str, limit: timedelta) -> pl.DataFrame | None:
    """Return a row for each time that a series' column kept one value for so long, of rows that all have a time (what
    is missing is null, see ``finding.arrange``, and counts as no change); None where it never did."""
    values = rows[name].to_numpy()
    there = np.flatnonzero(~np.isnan(values))
    values, runs, at = values[there], rows[RUN].to_numpy()[there], rows[TIMESTAMP].to_physical().to_numpy()[there]
    changes = np.ones(len(there), dtype=bool)
    changes[1:] = (runs[1:] != runs[:-1]) | (values[1:] != values[:-1])
    begins = np.flatnonzero(changes)
    ends = np.append(begins[1:], len(there)) - 1 if len(there) else begins
    still = at[ends] - at[begins] >= limit // timedelta(microseconds=1)
    if not still.any():
        return None
    first, last = rows[there[begins[still]]], rows[there[ends[still]]]
    return pl.DataFrame(
        [
            first[SERIES],
            pl.Series("column", [name] * first.height, pl.String()),
            first[name].alias("value"),
            first[TIMESTAMP].alias("first"),
            last[TIMESTAMP].alias("last"),
        ]
    )


def outside(task: Task, name: str) -> pl.Expr:
    """Tell of each row whether the value is below its minimum or above its maximum; no null is, and nothing
    infinite."""
    least, most = _bounds(task, name)
    return (~pl.col(name).is_between(least, most) & pl.col(name).is_finite()).fill_null(False)


_GRAVITY = ("pass", "warn", "mask", "fail")


def _bounds(task: Task, name: str) -> tuple[float, float]:
    column = task.columns[name]
    least = -math.inf if column.minimum is None else column.minimum
    return least, math.inf if column.maximum is None else column.maximum


def _text(limit: float) -> str:
    return f"{limit:g}" if math.isfinite(limit) else "any"


def _of(series: frozenset[str]) -> str:
    return f" ({listed(sorted(series), ', ')})" if series else ""
