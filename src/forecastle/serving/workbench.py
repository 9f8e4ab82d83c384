"""What forecasts on request are made with: one model, its features, and what is known lately. Replaced whole.

So no answer mixes two models: whoever is asked takes the workbench there is and makes the whole answer with it.
Features are computed here, by the one definition, from what the request brings, completed by what the history knows. It
is read in three ways that give the same bits: by ``gapless`` what lies on the grid without a gap, by ``present`` what
has gaps, and by the panel where a model has features or a grid that neither knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from forecastle.data import ahead, roster
from forecastle.data.derivation import open_history
from forecastle.data.examples import Examples, make_examples
from forecastle.data.gapless import Gapless, Rows
from forecastle.data.history import History
from forecastle.data.panel import Floats, build_panel, micros, moment
from forecastle.data.present import Present
from forecastle.data.profiling import Reference
from forecastle.data.dense import NOTHING, Recent, lay, make_recent
from forecastle.data.store import task_stores
from forecastle.data.transformation import Matrix
from forecastle.duration import age_text
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIME, TIMESTAMP, conform
from forecastle.models import predictor
from forecastle.models.bundle import Bundle
from forecastle.models.predictor import Made
from forecastle.models.shortcut import Shortcut, shortcut
from forecastle.monitoring import drift
from forecastle.monitoring.journal import Journal
from forecastle.serving.asking import Asked
from forecastle.settings import Settings
from forecastle.task import Task


class Predicted(NamedTuple):
    """The forecasts of one series that a request gets: its origin, (H,) numbers each, and what is to be said of it."""

    series_id: str
    origin: int  # microseconds
    times: Sequence[int]  # microseconds
    value: Sequence[float]
    lower: Sequence[float]
    upper: Sequence[float]
    drifted: bool
    digest: str
    data_age: int  # seconds
    reason: str | None  # why it is degraded, if it is


@dataclass(frozen=True)
class Workbench:
    """One model of a task and what its forecasts on request need; ``versions`` is the recent history."""

    task: Task
    bundle: Bundle
    usual: tuple[Floats, Floats] | None  # (F,) between which a feature is no drift; None where the model says nothing
    widths: dict[str, Floats]
    versions: pl.DataFrame
    issued: pl.DataFrame | None  # recent forecasts of covariates, where the model looks at them
    recent: Recent
    present: Present | None  # None where only the panel has the model's features
    learnt: frozenset[str]
    lowest: Floats  # (C, 1) of each column, what the gate lets pass
    highest: Floats
    gapless: Gapless | None = None  # with the shortcut, for what has no gap; None where there is none
    shortcut: Shortcut | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns the model looks at, the target first."""
        return self.bundle.recipe.columns

    def predict(self, asked: Sequence[Asked], now: datetime) -> list[Predicted]:
        """Forecast each series from its newest observation, in the order they were asked for."""
        return self._completely(asked, self.shortly(asked, now), now)

    def predict_each(
        self, requests: Sequence[Sequence[Asked]], now: datetime
    ) -> Iterator[Callable[[], list[Predicted]]]:
        """Forecast what several requests ask for, what has no gap of all of them together: each is told when called."""
        found = iter(self.shortly([one for asked in requests for one in asked], now))
        for asked in requests:
            yield partial(self._completely, asked, list(islice(found, len(asked))), now)

    def _completely(self, asked: Sequence[Asked], short: Sequence[Predicted | None], now: datetime) -> list[Predicted]:
        """Forecast the long way what the short way did not, and return all in the order they were asked for."""
        rest = [one for one, made in zip(asked, short, strict=True) if made is None]
        found: dict[str, Predicted] = {}
        fitting, masked = [], {}
        for one in rest:
            outside = (one.values < self.lowest) | (one.values > self.highest)
            if outside.any():
                masked[one.series_id] = int(outside.sum())
                one = replace(one, values=np.where(outside, np.nan, one.values))
            fitting.append(one)
        for examples, missing in self._examples(fitting, now) if fitting else ():
            made = predictor.answer(self.bundle, examples, self.widths)
            found |= {one.series_id: one for one in self._told(examples, made, missing, masked, now)}
        return [made or found[one.series_id] for one, made in zip(asked, short, strict=True)]

    def current(self, series_id: str, origin: datetime, now: datetime) -> Examples:
        """Return the example of a series at an origin, from what the history knows now alone."""
        at = micros(origin)
        if self.present is not None:
            window = self.recent.window(series_id, at, len(self.columns), self.present.width)
            return self.present.examples([series_id], window[None], at, micros(now))
        nothing = Asked(series_id, np.array([at]), np.full((len(self.columns), 1), np.nan))
        return self._by_panel([nothing], now)

    def shortly(self, asked: Sequence[Asked], now: datetime) -> list[Predicted | None]:
        """Forecast what has no gap, what was asked with the same times together; None stands for the others."""
        found: list[Predicted | None] = [None] * len(asked)
        if self.present is None or self.gapless is None or self.shortcut is None:
            return found
        step = self.bundle.recipe.step
        groups: dict[int, list[int]] = {}
        for place, one in enumerate(asked):
            if int(one.times[-1]) % step == 0 and (one.stride == step or len(one.times) == 1):
                groups.setdefault(id(one.times), []).append(place)
        for places in groups.values():
            group = [asked[place] for place in places]
            origin, ids = int(group[0].times[-1]), [one.series_id for one in group]
            values = np.stack([one.values for one in group]) if len(group) > 1 else group[0].values[None]
            fits = (values >= self.lowest) & (values <= self.highest)  # NaN is neither
            windows = self._completed(ids, values, origin)
            rows = self.gapless.rows(windows, self.gapless.numbers(ids), origin)
            made, holds = self.shortcut.answer(rows, ids)
            missing = np.isnan(windows[:, 0]).sum(axis=1).tolist()
            told = self._told_shortly(ids, origin, missing, rows, made, now)
            for place, answer, whole in zip(places, told, (holds & fits.all(axis=(1, 2))).tolist(), strict=True):
                found[place] = answer if whole else None
        return found

    def _completed(self, series_ids: Sequence[str], values: Floats, origin: int) -> Floats:
        """Return windows that end at an origin: what a request brings (n, C, m), and before that what is known."""
        assert self.present is not None
        width, given = self.present.width, values.shape[2]
        windows = np.empty((*values.shape[:2], width))
        brought = min(width, given)
        windows[:, :, :brought] = values[:, :, given - brought :][:, :, ::-1]
        if brought < width:
            step = self.bundle.recipe.step
            for place, series_id in enumerate(series_ids):
                self.recent.fill(windows[place, :, brought:], series_id, origin - brought * step)
        return windows

    def _told_shortly(
        self, series_ids: Sequence[str], origin: int, missing: Sequence[int], rows: Rows, made: Made, now: datetime
    ) -> Iterator[Predicted]:
        assert self.present is not None
        features = len(self.present.origin_names)
        drifted = self._drifted(rows.matrix[:, 0, :features])
        age, times = self.task.age(moment(origin), now), self.present.places(origin).told
        seconds = int(age.total_seconds())
        each = zip(series_ids, made.value.tolist(), made.lower.tolist(), made.upper.tolist(), strict=True)
        for place, (one, value, lower, upper) in enumerate(each):
            own = rows.matrix[place]
            digest = _digest(own[0, :features], own[:, features:-1])
            reason = self._reason(one, age, missing[place], 0)
            yield Predicted(one, origin, times, value, lower, upper, drifted[place], digest, seconds, reason)

    def _drifted(self, matrix: Matrix) -> list[bool]:
        if self.usual is None:
            return [False] * len(matrix)
        low, high = self.usual
        flags: list[bool] = np.asarray(((matrix < low) | (matrix > high)).any(axis=1)).tolist()
        return flags

    def _examples(self, asked: Sequence[Asked], now: datetime) -> list[tuple[Examples, Sequence[int]]]:
        """Return the examples of the series, those of one origin together, and how many target values each lacks."""
        if self.present is None:
            examples = self._by_panel(asked, now)
            return [(examples, [0] * len(asked))]
        step, width, made = self.bundle.recipe.step, self.present.width, []
        groups: dict[int, list[Asked]] = {}
        for one in asked:
            newest = int(one.times[-1])
            groups.setdefault(newest - newest % step, []).append(one)
        for origin, group in groups.items():
            windows = np.empty((len(group), len(self.columns), width))
            for place, one in enumerate(group):
                windows[place] = self.recent.window(one.series_id, origin, len(self.columns), width)
                lay(windows[place], origin // step - one.times // step, one.values)
            missing = np.isnan(windows[:, 0]).sum(axis=1).tolist()
            examples = self.present.examples([one.series_id for one in group], windows, origin, micros(now))
            made.append((examples, missing))
        return made

    def _by_panel(self, asked: Sequence[Asked], now: datetime) -> Examples:
        """Return the examples of the series by the panel, each at its newest observation."""
        brought = pl.concat(_table(one, self.columns, now) for one in asked)
        newest = brought.group_by(SERIES).agg(pl.col(TIMESTAMP).max().alias("__newest"))
        known = self.versions.join(newest, on=SERIES).filter(pl.col(TIMESTAMP) <= pl.col("__newest"))
        latest = known.unique([SERIES, TIMESTAMP], keep="last").select(SERIES, TIMESTAMP, *self.columns)
        completed = brought.join(latest, on=[SERIES, TIMESTAMP], how="left", suffix="__known").with_columns(
            pl.coalesce(name, f"{name}__known").alias(name) for name in self.columns
        )
        rows = pl.concat([known.select(brought.columns), completed.select(brought.columns)])
        panel = build_panel(rows, self.task, columns=self.columns, ahead=self.issued)
        last = panel.last_rows
        examples = make_examples(self.bundle.recipe, panel, last, np.full(len(last), micros(now)))
        predictor.require_features(self.bundle, examples)
        return examples

    def _told(
        self, examples: Examples, made: Made, missing: Sequence[int], masked: dict[str, int], now: datetime
    ) -> list[Predicted]:
        outside = self._drifted(examples.origin)
        found = []
        for place in range(len(examples)):
            series_id, origin = examples.series_ids[examples.series[place]], int(examples.origins[place])
            age = self.task.age(moment(origin), now)
            found.append(
                Predicted(
                    series_id=series_id,
                    origin=origin,
                    times=tuple(examples.times[place].tolist()),
                    value=made.value[place].tolist(),
                    lower=made.lower[place].tolist(),
                    upper=made.upper[place].tolist(),
                    drifted=outside[place],
                    digest=_digest(examples.origin[place], examples.step[:, place]),
                    data_age=int(age.total_seconds()),
                    reason=self._reason(series_id, age, missing[place], masked.get(series_id, 0)),
                )
            )
        return found

    def _reason(self, series_id: str, age: timedelta, missing: int, masked: int) -> str | None:
        reasons = []
        if series_id not in self.learnt:
            reasons.append("the model has not learnt this series")
        if age > (limit := self.task.patience(self.task.monitoring.stale_after)):
            reasons.append(f"the newest observation is {age_text(age)} old, and {age_text(limit)} is the task's limit")
        if masked:
            reasons.append(f"{masked} values outside what the task's columns can be count as missing")
        if missing:
            width = self.present.width if self.present else 0
            reasons.append(f"{missing} of the {width} values of {self.task.target} looked back on are missing")
        return "; ".join(reasons) or None


def build(settings: Settings, task: Task, bundle: Bundle, journal: Journal, now: datetime) -> Workbench:
    """Build the workbench of a task's champion from what the stores know now."""
    recipe = bundle.recipe
    versions = _versions(settings, task, bundle, now)
    first: Any = versions[TIMESTAMP].min()
    issued = ahead.read(task_stores(settings, task.name) / "history", recipe.ahead, now, first)
    present = Present(recipe)
    fits = present.names == bundle.features
    recent = NOTHING
    if fits and not versions.is_empty():
        recent = make_recent(build_panel(versions, task, columns=recipe.columns))
    ranges = [task.columns.get(name) for name in recipe.columns]
    kept = [one if one is not None and one.outside != "warn" else None for one in ranges]
    lowest = [-np.inf if one is None or one.minimum is None else one.minimum for one in kept]
    highest = [np.inf if one is None or one.maximum is None else one.maximum for one in kept]
    widths = predictor.widths(bundle, journal.tally(task.name, bundle.version, now, bundle.model.coverage))
    return Workbench(
        task=task,
        bundle=bundle,
        usual=drift.limits(Reference.from_dict(bundle.reference)) if bundle.reference else None,
        widths=widths,
        versions=versions,
        issued=issued,
        recent=recent,
        present=present if fits else None,
        learnt=frozenset(recipe.series_ids),
        lowest=np.array(lowest)[:, None],
        highest=np.array(highest)[:, None],
        gapless=Gapless(present) if fits else None,
        shortcut=shortcut(bundle, widths) if fits else None,
    )


def _digest(origin: Matrix, step: Matrix) -> str:
    """Return what is the same for the same features alone, to the bit."""
    return hashlib.blake2b(origin.tobytes() + step.tobytes(), digest_size=16).hexdigest()


def _versions(settings: Settings, task: Task, bundle: Bundle, now: datetime) -> pl.DataFrame:
    """Return the history as far back as the model's features look, in the model's columns."""

    def place(name: str) -> Any:
        return task_stores(settings, name) / "history"

    recipe, history = bundle.recipe, open_history(task, place(task.name), beside=place)
    gone = [name for name in recipe.columns if name not in task.columns]
    if gone and not task.is_derived:  # what a source says goes on being stored
        history, gone = History(place(task.name), recipe.columns), []
    newest = history.newest()
    start = None if newest is None or recipe.lookback is None else newest - recipe.lookback
    versions = roster.in_service(task, history.versions(as_of=now, start=start))
    return versions.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in gone)


def _table(one: Asked, columns: tuple[str, ...], now: datetime) -> pl.DataFrame:
    """Return what a request brings of a series as versions of observations, known from now."""
    times = pl.Series(TIMESTAMP, one.times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIME)
    data = {SERIES: [one.series_id] * len(one.times), TIMESTAMP: times}
    data |= {name: values for name, values in zip(columns, one.values, strict=True)}
    moments = [pl.lit(now, dtype=TIME).alias(name) for name in (AVAILABLE_AT, COLLECTED_AT)]
    return conform(pl.DataFrame(data).with_columns(moments), columns).with_columns(pl.col(columns).fill_nan(None))
