"""What is to be known of a table of one's own before anything is computed from it: in sentences that say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import polars as pl

from forecastle.frame import KEYS, SERIES, TIMESTAMP, iso
from forecastle.task import DAY, Task, duration_text

MICROSECOND = timedelta(microseconds=1)


def span(rows: pl.DataFrame) -> str:
    """Say how much a table holds, and from when until when."""
    first, last = rows.select(pl.min(TIMESTAMP), pl.max(TIMESTAMP).alias("last")).row(0)
    return f"{rows.height} rows of {rows[SERIES].n_unique()} series, {iso(first)} to {iso(last)}"


def unused(task: Task, schema: Mapping[str, pl.DataType]) -> str | None:
    """Name the table's columns that the task leaves unused, those that could be covariates first; None without any."""
    left = {name: kind for name, kind in schema.items() if name not in (*KEYS, *task.columns)}
    if not left:
        return None
    numbers = [name for name, kind in left.items() if kind.is_numeric()]
    others = [name for name in left if name not in numbers]
    said = [f"{', '.join(numbers)} (a covariate if named: --covariates {','.join(numbers)})"] if numbers else []
    said += [f"{', '.join(others)} (no numbers)"] if others else []
    return f"Unused columns: {'; '.join(said)}."


def usual_step(rows: pl.DataFrame) -> tuple[timedelta, float] | None:
    """Return how far apart neighbours in time mostly lie, and the share that do; None where no series has two rows."""
    return _usual(_times(rows))


def _usual(times: pl.DataFrame) -> tuple[timedelta, float] | None:
    apart = times.select(apart=pl.col(TIMESTAMP).diff().over(SERIES)).drop_nulls()
    if apart.is_empty():
        return None
    usual, count = apart.group_by("apart").len().sort("len", "apart", descending=[True, False]).row(0)
    return usual, count / apart.height


def makes_a_day(step: timedelta) -> bool:
    """Tell whether a day is made of whole such steps, and they of whole seconds: whether a task can have them."""
    return not (DAY % step or step % timedelta(seconds=1))


def spacing(task: Task, rows: pl.DataFrame) -> Iterator[str]:
    """Say where a table's rows do not lie on the task's grid: another step than its own, holes, times between steps.

    On an observed grid there are no holes, and its times are as they are.
    """
    step, times = task.frequency, _times(rows)
    found = _usual(times)
    if found is None:
        return
    usual, share = found
    if usual != step:
        yield _another_step(task, usual, share)
    if task.grid == "observed" or usual < step:
        return
    number = pl.col(TIMESTAMP).to_physical() // (step // MICROSECOND)  # of the step a row lies in
    holes = times.select(SERIES, before=pl.col(TIMESTAMP).shift(1).over(SERIES), steps=number.diff().over(SERIES))
    holes = holes.filter(pl.col("steps") > max(usual // step, 1))
    if holes.height:
        name, before, longest = holes.sort("steps", SERIES, "before", descending=[True, False, False]).row(0)
        neighbours = times.height - times[SERIES].n_unique()
        yield (
            f"{holes.height} of {neighbours} neighbouring rows lie further apart, up to "
            f"{duration_text(longest * step)} ({name} from {iso(before)}): the steps between are missing values."
        )
    off = times.filter(pl.col(TIMESTAMP).to_physical() % (step // MICROSECOND) != 0)
    if off.height:
        name, moment = off.row(0)
        yield (
            f"{off.height} of {times.height} rows lie between whole steps of {duration_text(step)}, such as {name}'s of"
            f" {iso(moment)}: each counts for the step it lies in, and of several the last."
        )


def short(task: Task, rows: pl.DataFrame) -> str | None:
    """Say that a table is too short to train on; None where it is not."""
    first, last = rows.select(pl.min(TIMESTAMP), pl.max(TIMESTAMP).alias("last")).row(0)
    if last - first >= task.training.min_history:
        return None
    least = duration_text(task.training.min_history)
    return (
        f"The table spans {(last - first).days} days; a training wants {least}, or less where min_history under"
        " [training] of the task says so. A back-test wants none."
    )


def zoneless(task: Task, times: pl.Series) -> str | None:
    """Say that times of a table name no zone, where the task reads its calendars in another than the one they count in;
    None where all do."""
    bare = times.dtype == pl.Date or (isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is None)
    if times.dtype == pl.String:
        bare = not times.drop_nulls().str.contains(r"(?i):\d\d.*(z|[+-]\d\d(:?\d\d)?)\s*$").all()
    if task.timezone == "UTC" or not bare:
        return None
    return f"Times without a zone count as UTC, not as {task.timezone}: give local ones their offset, such as +01:00."


def ended(task: Task, newest: datetime, now: datetime) -> str | None:
    """Say that a table ended too long ago for the gate, and how to use it all the same; None where it did not."""
    limit = task.patience(task.gate.max_age)
    if (age := task.age(newest, now)) <= limit:
        return None
    since = f"{age.days} days" if age >= 2 * DAY else f"{age // timedelta(hours=1)} hours"
    then = newest + task.knowable_after + task.source.publication_delay
    return (
        f"The table ended {since} ago, at {iso(newest)}; the gate refuses what is older than {duration_text(limit)}. "
        f"If it is a recording, act as of its end: add --now {iso(then)} to the commands (backtest needs none)."
    )


def _times(rows: pl.DataFrame) -> pl.DataFrame:
    """Return each series' times, once each and in order."""
    return rows.select(SERIES, TIMESTAMP).unique().sort(SERIES, TIMESTAMP)


def _another_step(task: Task, usual: timedelta, share: float) -> str:
    step, what = task.frequency, "the bars are not of the frequency given"
    if task.grid == "regular":
        what = "of each step only the last row counts" if usual < step else "most steps are missing values"
    fits = f"; --frequency {duration_text(usual)} takes them as they are" if makes_a_day(usual) else ""
    return f"The rows mostly lie {duration_text(usual)} apart ({share:.0%}), not {duration_text(step)}: {what}{fits}."
