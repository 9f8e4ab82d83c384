"""Concept drift: have the live errors of the champion changed, against those of its back-test?

The errors of a forecast have a season: noon is harder than night, six hours ahead harder than one. So each live error
is first taken relative to the mean and spread that the back-test's errors had at that hour of the local day and step
ahead, and to how hard its series is. What is left has about mean 0 and spread 1 while nothing changes. Its level (up or
down) and its size (up) go through the Page-Hinkley test (Page 1954), by river, and so does the daily wave in it.

Most of what makes an hour hard makes it hard for several series: a front passes all stations of a city. So where there
are at least three, the same tests look, too, at what sets each apart from the mean of the others at the same time,
relative to how far apart they were in the back-test. A change of one sensor stands out there sooner, and one of the
weather does not show. ``python -m benchmarks drift`` tells what all that finds, how soon, and how often without cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.frame import iso
from forecastle.task import DAY, Task

WINDOW = timedelta(days=30)  # of live errors that are looked at
COLUMNS = ("series_id", "timestamp", "horizon", "value", "actual", "model_version")
LEAST = 50  # errors of a series before it can be said to have changed
EVERY = timedelta(hours=6)  # so often at most it is looked
LEVEL, SIZE = (1.0, 50.0), (0.5, 80.0)  # of Page-Hinkley: what is let pass at each step, and which sum is an alarm
WAVE = (0.5, 7.5)  # the same for each day
LEAST_DAYS = 5
LONGEST = 10.0  # spreads: an error beyond that counts as that, so that one wild hour is no change
PEERS = 2  # at least, that a series is set beside at any time
MANY = 20  # series of which one alone moves the mean of the others so little that it sets none apart
LATELY = timedelta(days=3)  # before an alarm, in which who is furthest apart counts as its cause
SHRUNK = 20  # a cell's spread counts as if it had so many errors of the whole beside its own


def place(home: Path, version: str) -> Path:
    """Return where the profile of a model's errors lies in its task's folder."""
    return home / "errors" / f"{version}.json"


def profile(task: Task, rows: pl.DataFrame) -> dict[str, Any]:
    """Return the mean and spread of a back-test's errors by step ahead and local hour, and each series' own spread.

    ``rows`` are forecasts beside their truth; plain data for JSON.
    """
    errors = _errors(task, rows)
    by_series = dict(errors.group_by("series_id").agg(pl.col("error").std(ddof=0)).drop_nulls().iter_rows())
    usual = {name: spread for name, spread in by_series.items() if spread > 0}
    relative = errors.join(_spreads(usual, "own"), on="series_id").with_columns(pl.col("error") / pl.col("own"))
    steps = dict(relative.group_by("horizon").agg((pl.col("error") ** 2).mean()).iter_rows())
    cells = relative.group_by("horizon", "hour").agg(
        pl.col("error").mean().alias("mean"), pl.col("error").var(ddof=0).alias("var"), pl.len().alias("n")
    )
    table = [
        [step, hour, mean * n / (n + SHRUNK), ((var * n + steps[step] * SHRUNK) / (n + SHRUNK)) ** 0.5]
        for step, hour, mean, var, n in cells.sort("horizon", "hour").iter_rows()
    ]
    found: dict[str, Any] = {"series": usual, "cells": table, "spread": {}}
    found["spread"] = _spread_of(standardised(task, found, rows))
    means = standardised(task, found, rows)
    apart = {"spread": _spread_of(_apart(means))}
    found["peers"] = apart | _usual(task, _relative(_apart(means), apart["spread"]))
    return found | _usual(task, means)


def _spread_of(means: pl.DataFrame) -> dict[str, float]:
    spreads = means.group_by("series_id").agg(pl.col("z").std(ddof=0)).filter(pl.col("z") > 0)
    return dict(spreads.iter_rows())


def _usual(task: Task, means: pl.DataFrame) -> dict[str, Any]:
    """Return how large each series' standardised errors are, mean and spread, and how far its daily wave goes."""
    sizes = means.group_by("series_id").agg(pl.col("z").abs().mean(), pl.col("z").abs().std(ddof=0).alias("s"))
    waves = _waves(task, means).group_by("series_id")
    return {
        "size": {name: [mean, spread] for name, mean, spread in sizes.iter_rows()},
        "wave": {str(name): [days[part].std(ddof=0) for part in ("sine", "cosine")] for (name,), days in waves},
    }


def standardised(task: Task, known: Mapping[str, Any], rows: pl.DataFrame) -> pl.DataFrame:
    """Return series_id, timestamp and z: the mean, over the forecasts of one truth, of their errors relative to the
    profile; in the order of time. Series and cells that the profile does not know are left out."""
    schema = {"horizon": pl.Int64, "hour": pl.Int64, "mean": pl.Float64, "usual": pl.Float64}
    cells = pl.DataFrame(known["cells"], schema=schema, orient="row")
    series = _spreads(known["series"], "own")
    relative = (
        _errors(task, rows)
        .join(series, on="series_id")
        .join(cells, on=["horizon", "hour"])
        .with_columns(z=(pl.col("error") / pl.col("own") - pl.col("mean")) / pl.col("usual"))
    )
    means = relative.filter(pl.col("usual") > 0).group_by("series_id", "timestamp").agg(pl.col("z").mean())
    return _relative(means, known["spread"]).sort("series_id", "timestamp")


def test(task: Task, known: Mapping[str, Any], rows: pl.DataFrame) -> str:
    """Say which series' errors have changed, and since when it is known; empty where none has."""
    found = changes(task, known, standardised(task, known, rows))
    return "; ".join(f"{name} since {iso(found[name])}" for name in sorted(found))


def changes(task: Task, known: Mapping[str, Any], means: pl.DataFrame) -> dict[str, datetime]:
    """Return the series whose errors have changed, and since when that is known; ``means`` is what ``standardised``
    gives.

    A series that changes sets its peers apart from their mean as well, if less than itself, the less the more there
    are. So of few the one that is furthest apart is to blame for the first alarm, if that does not stand without it;
    from then on it is nobody's peer.
    """
    found = _alarms(task, known, means)
    peers = known.get("peers") or {"spread": {}}  # of models judged before peers were looked at nothing is known
    suspects = set(peers["spread"])

    def beside(means: pl.DataFrame, these: set[str]) -> tuple[pl.DataFrame, dict[str, datetime]]:
        apart = _relative(_apart(means), peers["spread"])
        return apart, _alarms(task, peers, apart.filter(pl.col("series_id").is_in(these)))

    if means["series_id"].n_unique() > MANY:
        alarms = beside(means, suspects)[1]
        return found | {name: min(at, found.get(name, at)) for name, at in alarms.items()}
    while suspects:
        apart, alarms = beside(means, suspects)
        if not alarms:
            break
        first, at = min(alarms.items(), key=lambda one: (one[1], one[0]))
        changed = {one for one, since in found.items() if since <= at} & set(means["series_id"])
        if not changed:
            blamed = _furthest(apart, at)
            again = beside(_without(means, {blamed}), {first})[1].get(first) if blamed != first else at
            changed = {first if again is not None and again <= at else blamed}
            found |= dict.fromkeys(changed, at)
        means = _without(means, changed)
        suspects = set(alarms) - changed
    return found


def _without(means: pl.DataFrame, these: set[str]) -> pl.DataFrame:
    return means.filter(~pl.col("series_id").is_in(these))


def _furthest(apart: pl.DataFrame, at: datetime) -> str:
    """Return the series that was furthest apart from its peers in the days before a time."""
    lately = apart.filter(pl.col("timestamp").is_between(at - LATELY, at))
    return str(lately.group_by("series_id").agg((pl.col("z") ** 2).mean()).sort("z", "series_id")["series_id"][-1])


def _alarms(task: Task, usual: Mapping[str, Any], means: pl.DataFrame) -> dict[str, datetime]:
    """Return when the tests first say that a series has changed, of those of which they do."""
    each = means.group_by("series_id", maintain_order=True)
    alarms = {str(name): _changed_at(task, usual, str(name), rows) for (name,), rows in each}
    return {name: at for name, at in alarms.items() if at is not None}


def _changed_at(task: Task, usual: Mapping[str, Any], series: str, means: pl.DataFrame) -> datetime | None:
    """Return when the tests first say that a series changed; ``means`` are its rows, in the order of time."""
    at = first_alarm(means["z"].to_numpy(), usual["size"][series])
    hourly: datetime | None = None if at is None else means["timestamp"][at]
    days = _waves(task, means)
    parts = zip(("sine", "cosine"), usual["wave"].get(series, ()), strict=False)
    alarms = [first_wave_alarm(days[part].to_numpy() / spread) for part, spread in parts if spread]
    daily: list[datetime] = [days["until"][one] for one in alarms if one is not None]
    return min((one for one in (hourly, *daily) if one is not None), default=None)


def first_alarm(z: npt.NDArray[np.float64], size: tuple[float, float]) -> int | None:
    """Return at which of a series' standardised errors, in the order of time, the test first says that they changed.

    ``size`` is the mean and spread of what ``abs(z)`` was in the back-test.
    """
    from river.drift import PageHinkley  # seconds to import, so only where errors are tested

    z = np.clip(z, -LONGEST, LONGEST)
    widths = (np.abs(z) - size[0]) / size[1] if size[1] > 0 else np.zeros(len(z))
    level = PageHinkley(min_instances=LEAST, delta=LEVEL[0], threshold=LEVEL[1])
    wider = PageHinkley(min_instances=LEAST, delta=SIZE[0], threshold=SIZE[1], mode="up")
    for number, (one, width) in enumerate(zip(z.tolist(), widths.tolist(), strict=True)):
        level.update(one)  # type: ignore[no-untyped-call]  # river leaves it untyped
        wider.update(width)  # type: ignore[no-untyped-call]
        if level.drift_detected or wider.drift_detected:
            return number
    return None


def first_wave_alarm(days: npt.NDArray[np.float64]) -> int | None:
    """Return at which of a series' days the daily wave in its errors first differs from before."""
    from river.drift import PageHinkley

    wave = PageHinkley(min_instances=LEAST_DAYS, delta=WAVE[0], threshold=WAVE[1])
    for number, one in enumerate(np.clip(days, -LONGEST / 2, LONGEST / 2).tolist()):
        wave.update(one)  # type: ignore[no-untyped-call]  # river leaves it untyped
        if wave.drift_detected:
            return number
    return None


def _apart(means: pl.DataFrame) -> pl.DataFrame:
    """Return how far each series is from the mean of the others at the same time, where there are enough of them; one
    wild hour of one is none of all."""
    z, others = pl.col("z").clip(-LONGEST, LONGEST), pl.len().over("timestamp") - 1
    mean = (z.sum().over("timestamp") - z) / others
    return means.with_columns(z=z - mean, others=others).filter(pl.col("others") >= PEERS).drop("others")


def _relative(means: pl.DataFrame, spread: Mapping[str, float]) -> pl.DataFrame:
    """Return standardised errors relative to each series' spread; one whose spread is not known stays as it is."""
    told = means.join(_spreads(spread, "spread"), on="series_id", how="left", maintain_order="left")
    return told.with_columns(pl.col("z") / pl.col("spread").fill_null(1.0)).drop("spread")


def _waves(task: Task, means: pl.DataFrame) -> pl.DataFrame:
    """Return of each series and local day the parts of a daily wave in its errors, and the last time of the day; days
    without half of their hours, and tasks that look less often than every six hours, have none."""
    local = pl.col("timestamp").dt.convert_time_zone(task.calendar)
    turn = (local.dt.hour() + local.dt.minute() / 60) * (2 * np.pi / 24)
    enough = DAY / task.frequency / 2 if task.frequency <= DAY / 4 else np.inf
    waves = means.group_by("series_id", local.dt.date().alias("day")).agg(
        (pl.col("z") * turn.sin()).mean().alias("sine"),
        (pl.col("z") * turn.cos()).mean().alias("cosine"),
        pl.col("timestamp").max().alias("until"),
        pl.len().alias("n"),
    )
    return waves.filter(pl.col("n") >= enough).sort("series_id", "day")


def _spreads(known: Mapping[str, float], name: str) -> pl.DataFrame:
    """Return numbers by series as a table; where no series has any, as an empty one."""
    schema = {"series_id": pl.String, name: pl.Float64}
    return pl.DataFrame({"series_id": list(known), name: list(known.values())}, schema=schema)


def _errors(task: Task, rows: pl.DataFrame) -> pl.DataFrame:
    hour = pl.col("timestamp").dt.convert_time_zone(task.calendar).dt.hour().cast(pl.Int64).alias("hour")
    error = (pl.col("actual") - pl.col("value")).alias("error")
    errors = rows.select("series_id", "timestamp", pl.col("horizon").cast(pl.Int64), hour, error)
    return errors.filter(pl.col("error").is_finite())
