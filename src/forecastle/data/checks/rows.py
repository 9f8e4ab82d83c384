"""Checks of the rows themselves: columns, types, keys, series, and each timestamp once, in order."""

from __future__ import annotations

import re

import polars as pl

from forecastle.data.checks.finding import (
    ARRIVAL,
    NOTHING,
    SAME_SERIES,
    Finding,
    Window,
    counts,
    listed,
    passed,
    shown,
    when,
)
from forecastle.frame import BITEMPORAL, CONTROL, KEYS, SERIES, TIMESTAMP, observation_schema
from forecastle.task import Task, nearest


def schema(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """The columns of the contract are there, with their types."""
    wanted = observation_schema(task.columns)
    wrong = [
        f"{name} {'is missing' if name not in window.arrived else f'is {window.arrived[name]}, not {dtype}'}"
        for name, dtype in wanted.items()
        if window.arrived.get(name) != dtype
    ]
    expected = f"the columns {', '.join(wanted)}"
    return Finding(expected, "; ".join(wrong), NOTHING, "fail") if wrong else passed(expected)


def keys(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """Every row says which series it is of, in text without control characters, and its three times."""
    expected = f"every row to have {', '.join(BITEMPORAL)}, and no series_id a control character"
    if any(rows[name].null_count() for name in BITEMPORAL):
        bad = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in BITEMPORAL))
        return Finding(expected, f"{bad.height} rows that do not", shown(bad), "fail")
    strange = sorted(name for name in window.names if re.search(CONTROL, name))
    if not strange:
        return passed(expected)
    bad = rows.filter(pl.col(SERIES).is_in(strange))
    return Finding(expected, listed(map(repr, strange), ", "), shown(bad), failing=frozenset(strange))


def unknown_series(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """Every series is one of the task's; a task that names none takes any."""
    if not task.series:
        return passed("any series")
    expected = f"only {listed(task.series_ids, ', ')}"
    strangers = sorted(window.names - set(task.series_ids))
    if not strangers:
        return passed(expected)
    found = listed((f"{name!r}{nearest(name, task.series_ids)}" for name in strangers), ", ")
    bad = rows.filter(pl.col(SERIES).is_in(strangers))
    return Finding(expected, found, shown(bad), failing=frozenset(strangers))


def duplicates(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """No series has a timestamp twice: with different values that is a failure, with the same values a warning."""
    expected = "each timestamp of a series once"
    again = SAME_SERIES & (pl.col(TIMESTAMP) == pl.col(TIMESTAMP).shift(1))
    repeated = rows.filter(again).select(KEYS).unique()
    if repeated.is_empty():
        return passed(expected)
    twice = rows.join(repeated, on=KEYS, how="semi", maintain_order="left")
    values = pl.any_horizontal(pl.col(name).n_unique() > 1 for name in task.columns)
    differing = twice.group_by(KEYS).agg(values.alias("differs")).filter("differs")
    series, moment = (differing if differing.height else repeated).sort(KEYS).select(KEYS).row(0)
    found = f"{repeated.height} timestamps twice, {differing.height} with different values, such as {series}"
    found += f" {when(moment)}"
    return Finding(expected, found, shown(twice), "warn", frozenset(counts(differing)))


def time_order(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """The rows of a series came oldest first, or newest first.

    The history takes any order, so this is a warning; but a source that mixes up its rows is one to look at.
    """
    expected = "the rows of a series in the order of their time"
    step = pl.col(ARRIVAL).cast(pl.Int64) - pl.col(ARRIVAL).shift(1).cast(pl.Int64)
    backward = SAME_SERIES & (step < 0)
    if not rows.select(backward.any()).item():
        return passed(expected)
    back, forward = counts(rows.filter(backward)), counts(rows.filter(SAME_SERIES & (step > 0)))
    mixed = frozenset(back.keys() & forward.keys())
    if not mixed:
        return passed(expected)
    found = listed(f"{back[name]} of {name} out of order" for name in sorted(mixed))
    return Finding(expected, found, shown(rows.filter(backward, pl.col(SERIES).is_in(mixed))), failing=mixed)
