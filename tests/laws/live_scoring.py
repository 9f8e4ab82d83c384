"""A story of live scoring, drawn at random: forecasts, truths that come late, twice or revised, crashes and restarts.

It runs on any database (see test_live_scoring_laws.py, and tests/e2e/test_journal_postgresql.py for a real PostgreSQL).
"""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forecastle.frame import conform
from forecastle.monitoring.journal import FORECAST, LATEST_TRUTH, Journal
from forecastle.monitoring.outcomes import GIVE_UP_AFTER, settle
from forecastle.task import make_task

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = START - timedelta(days=1)
series = st.sampled_from(["a", "b"])
hours = st.integers(0, 8)
values = st.integers(-3, 3).map(float)


class Killed(BaseException):
    """The process was killed."""


class Fragile(Journal):
    """A journal whose process is killed at its n-th write of what came true, before or after the write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.dies_at: int | None = None
        self.after = False
        self.writes = itertools.count()

    def _write(self, write: Any, *arguments: Any) -> int:
        dies = self.dies_at is not None and next(self.writes) == self.dies_at
        if dies and not self.after:
            raise Killed
        count: int = write(*arguments)
        if dies:
            raise Killed
        return count

    def score(self, outcomes: pl.DataFrame) -> int:
        return self._write(super().score, outcomes)

    def rescore(self, outcomes: pl.DataFrame) -> int:
        return self._write(super().rescore, outcomes)

    def give_up(self, task: str, before: datetime) -> int:
        return self._write(super().give_up, task, before)


def machine(url: str) -> type[RuleBasedStateMachine]:
    """Return the story on the database at a URL; each telling of it is a task of its own there."""

    class LiveScoring(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            source = {"provider": "file", "path": "x.parquet", "instantaneous": True}
            data = {"domain": "environmental", "frequency": "1h", "horizon": "2h", "target": "y", "columns": {"y": {}}}
            self.task = make_task({**data, "name": f"t{uuid.uuid4().hex[:12]}", "source": source})
            self.journal = Fragile(url)
            self.now = START
            self.issued: dict[tuple[str, int, int], float] = {}  # series, origin, step: value
            self.truth: dict[tuple[str, int], list[float]] = {}  # series, hour: every version, in the order they came
            self.scored_by: dict[tuple[str, int, int], list[float]] = {}  # the truths each was scored by, one a pass

        @rule(name=series, origin=hours, value=values)
        def forecast(self, name: str, origin: int, value: float) -> None:
            rows = [
                ("", self.task.name, name, START + origin * HOUR, START + (origin + step) * HOUR, step)
                + (value, value - 1, value + 1, 0.0, "1", "d", self.now, False, "x")
                for step in (1, 2)
            ]
            self.journal.record(pl.DataFrame(rows, schema=FORECAST, orient="row"))
            for step in (1, 2):
                self.issued.setdefault((name, origin, step), value)

        @rule(name=series, hour=hours, value=values, twice=st.booleans())
        def truth_comes(self, name: str, hour: int, value: float, twice: bool) -> None:
            self.truth.setdefault((name, hour), []).extend([value] * (2 if twice else 1))

        @rule(by=st.sampled_from([1, 1, 1, 3]))
        def time_passes(self, by: int) -> None:
            self.now += by * HOUR

        @precondition(lambda self: self.now < START + LATEST_TRUTH / 2)  # later no truth is looked for
        @rule()
        def a_week_passes(self) -> None:
            self.now += GIVE_UP_AFTER + 12 * HOUR

        @rule()
        def restart(self) -> None:
            self.journal.close()
            self.journal = Fragile(url)

        @rule(write=st.integers(0, 2), after=st.booleans())
        def pass_is_killed(self, write: int, after: bool) -> None:
            self.journal.dies_at, self.journal.after = write, after
            try:
                settle(self.journal, self.task, self._read, LONG_AGO, self.now)
            except Killed:
                self.restart()

        @rule(times=st.integers(1, 2))
        def pass_(self, times: int) -> None:
            for _ in range(times):
                settle(self.journal, self.task, self._read, LONG_AGO, self.now)
            self._agrees()

        @invariant()
        def nothing_is_scored_twice_or_forgotten(self) -> None:
            if not hasattr(self, "journal"):
                return
            counts = self.journal.counts(self.task.name)
            outcomes = self.journal.outcomes(self.task.name)
            assert outcomes["forecast_id"].n_unique() == outcomes.height == counts["scored"]
            assert sum(counts.values()) == len(self.issued)

        def teardown(self) -> None:
            if hasattr(self, "journal"):
                self.journal.close()

        def _agrees(self) -> None:
            """After a whole pass the journal says what a dictionary says."""
            there = self._due_with_truth()
            found = self.journal.outcomes(self.task.name)
            delivered = {
                (name, (origin - START) // HOUR, step): (value, actual)
                for name, origin, step, value, actual in found.select(
                    "series_id", "origin", "horizon", "value", "actual"
                ).iter_rows()
            }
            assert delivered == {key: (self.issued[key], truth) for key, truth in there.items()}
            for key, truth in there.items():
                if self.scored_by.get(key, [None])[-1] != truth:
                    self.scored_by.setdefault(key, []).append(truth)
            late = self.now - GIVE_UP_AFTER
            lost = {key for key in self.issued if key not in there and START + (key[1] + key[2]) * HOUR < late}
            assert self.journal.counts(self.task.name)["never_came"] == len(lost)
            assert self.journal.revised(self.task.name) >= sum(len(ways) > 1 for ways in self.scored_by.values())

        def _due_with_truth(self) -> dict[tuple[str, int, int], float]:
            due = {
                key: (key[0], key[1] + key[2]) for key in self.issued if START + (key[1] + key[2]) * HOUR <= self.now
            }
            return {key: self.truth[at][-1] for key, at in due.items() if at in self.truth}

        def _read(self, start: datetime) -> pl.DataFrame:
            rows = [
                (name, START + hour * HOUR, START + hour * HOUR, START + hour * HOUR, ways[-1])
                for (name, hour), ways in self.truth.items()
                if start <= START + hour * HOUR <= self.now
            ]
            schema = ["series_id", "timestamp", "available_at", "collected_at", "y"]
            return conform(pl.DataFrame(rows, schema=schema, orient="row") if rows else _nothing(), ["y"])

    return LiveScoring


def _nothing() -> pl.DataFrame:
    times = {name: pl.Datetime("us", "UTC") for name in ("timestamp", "available_at", "collected_at")}
    return pl.DataFrame(schema={"series_id": pl.String, **times, "y": pl.Float64})
