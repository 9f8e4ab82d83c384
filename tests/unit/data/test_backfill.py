"""A backfill: a past in pieces, each through archive, gate and history; what is there is not asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from forecastle.data.backfill import Brought, Stretch, asked, bring, note, plan
from forecastle.data.budget import BudgetGuard, open_ledger
from forecastle.data.derivation import open_history
from forecastle.errors import QualityGateFailed, SourceUnavailable, StorageUnavailable, UserError
from forecastle.http import Client
from forecastle.settings import Settings
from forecastle.task import Task, load_task, make_task

NOW = datetime(2026, 7, 16, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Span = tuple[datetime, datetime]


def at(month: int, day: int = 1, year: int = 2026) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


@dataclass
class Market:
    """A source of hourly rows that counts which windows it is asked for; ``spoil`` changes an answer's rows."""

    home: Path
    task: Task
    now: datetime = NOW
    asked: list[Span] = field(default_factory=list)
    spoil: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda rows: rows

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, http_attempts=1, _env_file=None)  # type: ignore[call-arg]

    def clock(self) -> datetime:
        return self.now

    def answer(self, request: httpx.Request) -> httpx.Response:
        start, end = (datetime.fromtimestamp(int(request.url.params[name]), UTC) for name in ("from", "to"))
        self.asked.append((start, end))
        first = start.replace(minute=0, second=0) + (HOUR if start != start.replace(minute=0, second=0) else 0 * HOUR)
        hours = [first + HOUR * number for number in range(int((end - first) / HOUR) + 1)]
        rows = [{"at": f"{one:%Y-%m-%dT%H:%M:%SZ}", "value": one.hour + one.day / 100} for one in hours]
        return httpx.Response(200, json=self.spoil(rows))

    def plan(self, start: datetime | None = None, end: datetime | None = None) -> tuple[Stretch, ...]:
        return plan(self.task, self.settings, start, end or self.now, self.now)

    def bring(self, pieces: tuple[Stretch, ...], keep_going: bool = False) -> list[Brought]:
        """Do as a new process would."""
        guard = BudgetGuard.of(self.task, self.settings, self.clock)
        transport = httpx.MockTransport(self.answer)
        with Client(self.settings, transport, self._sleep, guard) as client:
            return list(bring(self.task, self.settings, client, pieces, keep_going, self.clock, self.clock))

    def hours(self) -> int:
        return open_history(self.task, self.settings.task_folder(self.task.name) / "history").read().height

    def _sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def described(**changes: Any) -> dict[str, Any]:
    api = {
        "url": "https://market.example/hours",
        "params": {"from": "{start_s}", "to": "{end_s}", "of": "{series}"},
        "rows": "@",
        "time": "at",
        "values": {"y": "value"},
    }
    return {
        "name": "hours",
        "domain": "financial",
        "frequency": "1h",
        "horizon": "3h",
        "target": "y",
        "source": {"provider": "http-json", "start": date(2026, 1, 1), "http_json": api, "window": "48h"},
        "columns": {"y": {"minimum": 0, "maximum": 100}},
        "series": [{"id": "a"}],
    } | changes


@pytest.fixture
def market(tmp_path: Path) -> Market:
    return Market(tmp_path / "home", make_task(described()))


def test_a_past_is_cut_into_months_from_the_sources_start_to_now(market):
    assert market.plan() == (*((at(month), at(month + 1)) for month in range(1, 7)), (at(7), NOW))


def test_a_stretch_may_begin_and_end_within_a_month(market):
    assert market.plan(at(2, 10), at(4, 2)) == ((at(2, 10), at(3)), (at(3), at(4)), (at(4), at(4, 2)))


def test_nothing_after_now_is_planned(market):
    assert market.plan(at(7), at(12))[-1] == (at(7), NOW)


def test_a_fine_step_is_cut_so_that_no_piece_has_a_million_rows(market):
    task = make_task(described(frequency="1s", horizon="3s"))
    pieces = plan(task, market.settings, at(1), at(2), NOW)
    assert max(end - start for start, end in pieces) == 11 * DAY
    assert (pieces[0][0], pieces[-1][1]) == (at(1), at(2))


def test_weather_is_cut_into_quarters_and_what_the_forecast_api_still_holds(task, market):
    pieces = plan(task, market.settings, at(11, year=2025), NOW, NOW)
    assert pieces == (
        (at(11, year=2025), at(1)),
        (at(1), at(4)),
        (at(4), at(4, 17)),
        (at(4, 17), NOW),
    )


def test_shares_are_cut_into_new_yorks_months(root, market):
    pieces = plan(load_task(root / "tasks" / "equity-volatility.toml"), market.settings, at(3), at(5), NOW)
    assert pieces[1] == (at(3) + 5 * HOUR, at(4) + 4 * HOUR)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"provider": "gbfs", "url": "https://bikes.example/{feed}"}, "the present alone"),
        ({"provider": "file", "path": "t.csv"}, "reads whole"),
    ],
)
def test_a_source_without_a_past_to_ask_for_is_a_mistake_of_the_user(market, source, said):
    market.task = make_task(described(source=source))
    with pytest.raises(UserError, match=said):
        market.plan(at(1))


def test_without_a_start_the_user_is_asked_for_one(market):
    data = described()
    del data["source"]["start"]
    market.task = make_task(data)
    with pytest.raises(UserError, match="--from"):
        market.plan()
    assert market.plan(at(7))


def test_a_stretch_that_ends_before_it_begins_is_a_mistake(market):
    with pytest.raises(UserError, match="--from before --to"):
        market.plan(at(5), at(4))


def test_every_piece_goes_through_archive_and_gate_into_the_history(market):
    ended = market.bring(market.plan(at(3), at(6)))
    assert [(one.rows, one.new, one.answers) for one in ended] == [(24 * days, 24 * days, 1) for days in (31, 30, 31)]
    assert market.hours() == 24 * 92
    folder = market.settings.task_folder("hours")
    assert len(list((folder / "archive").glob("2026/**/*.json"))) == 3
    reports = [json.loads(path.read_bytes()) for path in folder.glob("reports/intake/*/quality.json")]
    assert [report["verdict"] for report in reports] == ["pass"] * 3


def test_backfilled_rows_count_as_known_when_they_were_published(market):
    market.bring(market.plan(at(3), at(4)))
    rows = open_history(market.task, market.settings.task_folder("hours") / "history").read()
    assert rows["available_at"].equals(rows["timestamp"] + HOUR)
    assert rows["collected_at"].unique().to_list() == [NOW]


def test_what_is_there_is_not_asked_for_again_but_for_the_newest_days(market):
    market.bring(market.plan())
    asked = len(market.asked)
    assert market.plan(at(2), at(5)) == ()
    market.now += HOUR
    assert market.plan() == ((NOW - DAY, NOW + HOUR),)
    assert market.plan(at(12, year=2025)) == ((at(12, year=2025), at(1)), (NOW - DAY, NOW + HOUR))
    market.bring(market.plan())
    assert len(market.asked) == asked + 1


def test_what_live_collections_have_brought_is_not_asked_for_either(market):
    for _ in range(5):
        note(market.task, market.settings, market.now - 2 * DAY, market.now, market.now)
        market.now += DAY
    assert market.plan(NOW - 3 * DAY) == ((NOW - 3 * DAY, NOW - 2 * DAY), (NOW + 3 * DAY, NOW + 5 * DAY))
    note(market.task, market.settings, market.now + DAY, market.now + 3 * DAY, market.now + 3 * DAY)
    assert len(open_ledger(market.settings).stretches("hours", asked(market.task))) == 2


@pytest.mark.parametrize("hours", [1, 7, 12, 16, 24])
def test_collections_up_to_half_a_window_apart_leave_no_hole_between_them(market, hours):
    market.now += timedelta(seconds=30)
    for _ in range(20):
        note(market.task, market.settings, market.now - 2 * DAY, market.now, market.now)
        market.now += timedelta(hours=hours)
    assert len(open_ledger(market.settings).stretches("hours", asked(market.task))) == 1


def test_one_that_was_stopped_goes_on_with_what_is_left(market):
    market.bring(market.plan()[:3])
    assert market.plan()[0] == (at(4), at(5))


def test_another_series_or_column_is_asked_for_anew(market):
    market.bring(market.plan())
    market.task = make_task(described(series=[{"id": "a"}, {"id": "b"}]))
    assert market.plan()[0] == (at(1), at(2))


def test_a_piece_the_gate_refuses_stops_the_rest_and_lies_in_quarantine(market):
    market.spoil = lambda rows: [row | {"value": None} for row in rows] if rows[0]["at"] < "2026-03" else rows
    ended = market.bring(market.plan(at(1), at(5)))
    assert len(ended) == 1 and isinstance(ended[0].error, QualityGateFailed)
    assert market.hours() == 0
    assert len(list(market.settings.task_folder("hours").glob("quarantine/*/batch.parquet"))) == 1


def test_told_to_keep_going_it_brings_the_others_and_asks_again_for_the_refused_one(market):
    market.spoil = lambda rows: [row | {"value": None} for row in rows] if rows[0]["at"][:7] == "2026-02" else rows
    ended = market.bring(market.plan(at(1), at(5)), keep_going=True)
    assert [one.error is None for one in ended] == [True, False, True, True]
    market.spoil = lambda rows: rows
    assert market.plan(at(1), at(5)) == ((at(2), at(3)),)
    market.bring(market.plan(at(1), at(5)))
    assert market.hours() == 24 * 120


def test_a_spent_budget_stops_it_even_if_told_to_keep_going_and_the_next_day_it_goes_on(market):
    data = described()
    data["source"]["http_json"]["budget"] = {"per_day": 4}
    market.task = make_task(data)
    ended = market.bring(market.plan(), keep_going=True)
    assert [one.error is None for one in ended] == [True] * 4 + [False]
    assert isinstance(ended[-1].error, SourceUnavailable)
    assert "can be asked again at 2026-07-17T12:00:00Z" in str(ended[-1].error)
    market.now += DAY
    assert all(one.error is None for one in market.bring(market.plan()))
    assert len({start for start, _ in market.asked}) == len(market.asked) == 7


def test_a_limit_of_a_minute_is_waited_for(market):
    data = described()
    data["source"]["http_json"]["budget"] = {"per_minute": 2}
    market.task = make_task(data)
    assert all(one.error is None for one in market.bring(market.plan()))
    assert market.now - NOW == timedelta(minutes=3)


def test_a_source_that_is_down_stops_it(market):
    market.answer = lambda request: httpx.Response(503)  # type: ignore[method-assign]
    ended = market.bring(market.plan(), keep_going=True)
    assert len(ended) == 1 and isinstance(ended[0].error, SourceUnavailable)


def test_an_old_stretch_the_source_has_nothing_of_is_empty_and_not_asked_for_again(market):
    market.spoil = lambda rows: [row for row in rows if row["at"] >= "2026-02-10"]
    ended = market.bring(market.plan(), keep_going=True)
    assert (ended[0].error, ended[0].rows) == (None, 0)
    assert market.plan(at(1), at(2)) == ()


def test_a_few_days_without_a_row_are_no_fault_where_markets_close(market):
    market.task = make_task(described(grid="observed"))
    market.spoil = lambda rows: []
    stretch = (NOW - 2 * DAY, NOW)
    assert [(one.error, one.rows) for one in market.bring((stretch,))] == [(None, 0)]
    assert market.plan(NOW - 2 * DAY)
    market.task = make_task(described())
    assert isinstance(market.bring((stretch,))[0].error, SourceUnavailable)


def test_two_at_once_are_one_too_many(market):
    path = market.settings.task_folder("hours") / "backfill.lock"
    path.parent.mkdir(parents=True)
    with FileLock(path), pytest.raises(StorageUnavailable, match="another process"):
        market.bring(market.plan())
    assert market.asked == []
