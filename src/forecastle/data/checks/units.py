"""The check for another unit under the same name: °F for °C, km/h for m/s, milliseconds for seconds.

A source that changes its unit changes it for every hour it answers, also for those that are known already. So the
values of the batch are compared with what is known of the same hours: weather, markets and revisions move such values
a little and each its own way; only another unit moves all of them by one factor and one shift, and far. That cannot be
mistaken for a storm. Where no hour of the batch is known yet, its values are held against the range of the last days,
widened by its own width on either side.
"""

from __future__ import annotations

import math

import polars as pl

from forecastle.data.checks.finding import Finding, Window, listed, passed, shown
from forecastle.data.checks.values import outside
from forecastle.frame import KEYS, SERIES, TIME, TIMESTAMP
from forecastle.task import Task

FEWEST = 6
"""Values that are needed to tell another unit from a strange hour; fewer than that can only be a warning."""

FAR = 0.5
"""Spreads (standard deviations of the last days) that the values moved at least, by the middle one."""

STRAIGHT = 0.99
"""Correlation of what came with what is known above which they are one straight line."""

KNOWN_ROWS = 24
"""Values of the last days that are needed to say what their range is."""


def unit_jump(task: Task, rows: pl.DataFrame, window: Window) -> Finding:
    """The values of no series are all shifted or scaled against what is known of it."""
    expected = "values on the scale of what is known"
    recent = window.recent
    if recent.is_empty() or rows.is_empty():
        return passed("nothing: nothing is known of the days before")
    near = rows.filter(pl.col(TIMESTAMP) >= pl.lit(recent[TIMESTAMP].to_physical().min()).cast(TIME))
    possible = near.select(*KEYS, *(_possible(task, name) for name in task.columns))
    known = recent.select(*KEYS, *(pl.col(name).alias(_known(name)) for name in task.columns))
    both = possible.join(known, on=KEYS, how="left", maintain_order="left")
    told = _told_otherwise(task, both, recent)
    beyond = _beyond(task, both, recent)
    if not told and not beyond:
        return passed(expected)
    certain = [series for series, _, _, count in beyond if count >= FEWEST]
    failing = frozenset([*(series for series, _, _ in told), *certain])
    found = listed(
        [f"{name} of {series} {text} of what is known" for series, name, text in told]
        + [f"{name} of {series} about {value:.4g}, far beyond the last days" for series, name, value, _ in beyond]
    )
    met = [*failing, *(series for series, _, _, _ in beyond)]
    return Finding(expected, found, shown(near.filter(pl.col(SERIES).is_in(met))), "warn", failing)


def _told_otherwise(task: Task, both: pl.DataFrame, recent: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Return each series and column whose known values came back all on another scale, and on which."""
    found = []
    moves = both.select((pl.col(name) != pl.col(_known(name))).any() for name in task.columns).row(0, named=True)
    for name in (name for name in task.columns if moves[name]):
        came, known = pl.col(name), pl.col(_known(name))
        moved = came - known
        there = both.filter(came.is_not_null(), known.is_not_null(), (came != 0) | (known != 0))
        spread = recent.group_by(SERIES).agg(pl.col(name).std().fill_null(0.0).alias("spread"))
        lines = (
            there.group_by(SERIES, maintain_order=True)
            .agg(
                n=pl.len(),
                changed=(moved != 0).mean(),
                size=moved.abs().median(),
                rest=moved.std(),
                correlation=pl.corr(came, known),
                slope=pl.cov(came, known) / known.var(),
                at=known.mean(),
                to=came.mean(),
            )
            .join(spread, on=SERIES, how="left")
        )
        straight = (pl.col("correlation").abs() >= STRAIGHT) | (pl.col("rest") <= (1 - STRAIGHT) * pl.col("size"))
        far = pl.col("size") >= FAR * pl.col("spread")
        jumped = lines.filter(pl.col("n") >= FEWEST, pl.col("changed") >= 0.9, straight, far)
        for one in jumped.iter_rows(named=True):
            found.append((one[SERIES], name, _line(one["slope"], one["at"], one["to"])))
    return found


def _beyond(task: Task, both: pl.DataFrame, recent: pl.DataFrame) -> list[tuple[str, str, float, int]]:
    """Return each series and column whose new values lie beyond the last days: the middle one, and how many."""
    least, most, known, newest = "__least_", "__most_", "__count_", "__newest"
    extent = recent.group_by(SERIES).agg(
        pl.col(TIMESTAMP).max().alias(newest),
        pl.col(*task.columns).min().name.prefix(least),
        pl.col(*task.columns).max().name.prefix(most),
        pl.col(*task.columns).count().name.prefix(known),
    )
    new = both.join(extent, on=SERIES, how="inner").filter(pl.col(TIMESTAMP) > pl.col(newest))
    if new.is_empty():
        return []
    held = new.group_by(SERIES, maintain_order=True).agg(
        pl.col(*task.columns).median(),
        pl.col(*task.columns).count().name.prefix("__n_"),
        pl.col("^__(least|most|count)_.*$").first(),
    )
    found = []
    for name in task.columns:
        low, high = pl.col(least + name), pl.col(most + name)
        width = high - low
        beyond = (
            ~pl.col(name).is_between(low - width, high + width) & (width > 0) & (pl.col(known + name) >= KNOWN_ROWS)
        )
        for one in held.filter(beyond).iter_rows(named=True):
            found.append((one[SERIES], name, one[name], one[f"__n_{name}"]))
    return found


def _possible(task: Task, name: str) -> pl.Expr:
    """Return a column without the values the gate masks anyway."""
    value = pl.when(pl.col(name).is_finite()).then(pl.col(name))
    masked = outside(task, name) if task.columns[name].outside == "mask" else pl.lit(False)
    return pl.when(~masked).then(value).alias(name)


def _known(name: str) -> str:
    return f"__known_{name}"


def _line(slope: float | None, at: float, to: float) -> str:
    """Return what the known values became, such as ``is 3.6 times`` or ``is 1.8 times + 32``."""
    factor = 1.0 if slope is None or not math.isfinite(slope) else slope
    shift = to - factor * at
    scaled = f"{factor:.3g} times" if abs(factor - 1) >= 0.005 else ""
    shifted = f"{shift:+.3g}" if abs(shift) >= 0.05 * abs(to - at) else ""
    return "is " + (f"{scaled} {shifted}".strip() or "another")
