"""Budgets and circuit breakers: counted before asking, kept over restarts, shared by processes, never overdrawn."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecastle.data import ledger
from forecastle.data.archive import Archive
from forecastle.data.budget import (
    FAILURES,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    BudgetGuard,
    budget_of,
    check_schedule,
    hold_schedule,
    limits,
    open_ledger,
)
from forecastle.data.ingestion import fetch
from forecastle.data.providers import PROVIDERS
from forecastle.errors import OutsideError, SourceUnavailable, StorageUnavailable, TaskError, UserError
from forecastle.http import REPLAY_NOW, Client, Request
from forecastle.settings import Settings
from forecastle.task import Task, load_task, make_task

NOON = datetime(2026, 7, 16, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=one) for one in (1, 60, 3600, 86400))
SPENT = {
    "Information": "Our standard API rate limit is 25 requests per day. Subscribe to remove all daily rate limits."
}
BURST = {
    "Information": "Please spread out your requests (1 request per second), or subscribe to lift 25 requests per day."
}
Reply = Callable[[httpx.Request], httpx.Response]


@dataclass
class Desk:
    """A home folder, a clock that waiting turns, and a source that counts what it is asked."""

    home: Path
    now: datetime = NOON
    asked: list[datetime] = field(default_factory=list)
    reply: Reply = lambda request: httpx.Response(200, json={})

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds <= 60
        self.now += timedelta(seconds=seconds)

    def settings(self, **chosen: Any) -> Settings:
        return Settings(home=self.home, _env_file=None, **chosen)  # type: ignore[call-arg]

    def client(self, task: Task, **chosen: Any) -> Client:
        """Return what a new process would ask with."""

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(self.now)
            return self.reply(request)

        settings = self.settings(**{"http_attempts": 1} | chosen)
        guard = BudgetGuard.of(task, settings, self.clock)
        return Client(settings, httpx.MockTransport(answer), self.sleep, guard)

    def ask(self, task: Task, request: Request, **chosen: Any) -> None:
        with self.client(task, **chosen) as client:
            client.get(request)

    def refusal(self, task: Task, request: Request, **chosen: Any) -> SourceUnavailable:
        """Ask, and return why that was refused."""
        with pytest.raises(SourceUnavailable) as refused:
            self.ask(task, request, **chosen)
        return refused.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "home")


@pytest.fixture
def equity(root: Path) -> Task:
    return load_task(root / "tasks" / "equity-volatility.toml")


@pytest.fixture
def crypto(root: Path) -> Task:
    return load_task(root / "tasks" / "crypto-volatility.toml")


def share(key: str = "KEY") -> Request:
    return Request("https://www.alphavantage.co/query", {"symbol": "IBM", "apikey": key}, frozenset({"apikey"}))


CANDLES = Request("https://api.binance.com/api/v3/klines", {"symbol": "BTCUSDT"})


def declared(**budget: Any) -> Task:
    """Return a task of an API of its own, with that budget."""
    api = {"url": "https://api.example/data", "rows": "@", "time": "t", "values": {"y": "v"}, "budget": budget}
    return make_task(
        {
            "name": "own",
            "domain": "logistics",
            "frequency": "10m",
            "horizon": "1h",
            "target": "y",
            "source": {"provider": "http-json", "http_json": api},
            "columns": {"y": {}},
            "series": [{"id": "a"}],
        }
    )


OWN = Request("https://api.example/data")


def test_the_calls_of_a_day_are_asked_and_not_one_more_and_the_message_says_when(desk, equity):
    for _ in range(25):
        desk.ask(equity, share())
    refused = desk.refusal(equity, share())
    assert len(desk.asked) == 25
    assert isinstance(refused, OutsideError) and refused.exit_code == 4
    assert "25 of 25 calls a day are used" in refused.found
    assert "It can be asked again at 2026-07-17T12:00:00Z" in refused.action


def test_a_budget_is_counted_over_restarts_and_slides(desk, equity):
    for _ in range(25):
        desk.ask(equity, share())
    desk.now = NOON + 23 * HOUR
    desk.refusal(equity, share())
    desk.now = NOON + DAY
    desk.ask(equity, share())
    assert len(desk.asked) == 26


def test_a_limit_of_a_minute_is_waited_for(desk, equity):
    with desk.client(equity) as client:
        for _ in range(11):
            client.get(share())
    waits = [later - earlier for earlier, later in zip(desk.asked, desk.asked[1:], strict=False)]
    assert min(waits) >= SECOND
    assert desk.asked[5] - desk.asked[0] >= MINUTE and desk.asked[10] - desk.asked[5] >= MINUTE


def test_every_attempt_counts_and_a_budget_that_ends_between_two_ends_the_trying(desk, equity):
    desk.reply = lambda request: httpx.Response(503)
    for _ in range(FAILURES - 1):
        desk.refusal(equity, share(), http_attempts=6)
    assert "calls a day are used" in desk.refusal(equity, share(), http_attempts=6).found
    assert len(desk.asked) == 25


def test_a_call_is_counted_before_it_is_made(desk, equity):
    def die(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    desk.reply = die
    for _ in range(25):
        with pytest.raises(KeyboardInterrupt):
            desk.ask(equity, share())
    desk.refusal(equity, share())


def test_each_key_has_a_budget_of_its_own_and_the_ledger_holds_none(desk, equity):
    for _ in range(25):
        desk.ask(equity, share("SECRETKEY1"))
    desk.ask(equity, share("SECRETKEY2"))
    assert all(b"SECRETKEY" not in path.read_bytes() for path in desk.home.iterdir())


def test_another_host_than_the_providers_has_a_budget_of_its_own(desk, equity):
    for _ in range(25):
        desk.ask(equity, Request("http://127.0.0.1:9999/query"))
    desk.ask(equity, share())


def test_what_a_replay_is_asked_is_not_counted(desk, equity):
    desk.reply = lambda request: httpx.Response(200, headers={REPLAY_NOW: "2013-12-01T00:00:00Z"})
    for _ in range(40):
        desk.ask(equity, share())
    desk.reply = lambda request: httpx.Response(200)
    for _ in range(25):
        desk.ask(equity, share())


def test_a_replays_faults_open_no_breaker(desk, equity):
    desk.reply = lambda request: httpx.Response(503, headers={REPLAY_NOW: "2013-12-01T00:00:00Z", "retry-after": "99"})
    for _ in range(2 * FAILURES):
        assert "HTTP 503" in desk.refusal(equity, share()).found


def test_what_others_used_of_a_shared_limit_counts_as_the_answer_says_it(desk, crypto):
    desk.reply = lambda request: httpx.Response(200, headers={"X-MBX-USED-WEIGHT-1M": "5999"})
    desk.ask(crypto, CANDLES)
    desk.ask(crypto, CANDLES)
    assert desk.asked[1] - desk.asked[0] == MINUTE


def test_a_weight_counts_as_so_many_calls(desk, crypto):
    with desk.client(crypto) as client:
        client.get(CANDLES)
    with open_ledger(desk.settings()).transaction() as db:
        assert db.execute("SELECT account, cost FROM calls").fetchall() == [("binance", 2)]


@pytest.mark.parametrize(
    ("days", "columns", "places", "cost"), [(7, 3, 1, 1), (28, 15, 1, 3), (14, 15, 1, 2), (7, 4, 3, 3)]
)
def test_open_meteo_counts_long_windows_many_columns_and_places_as_several_calls(days, columns, places, cost):
    params = {"hourly": ",".join("x" * columns), "latitude": ",".join("1" * places)}
    past = Request(
        "https://api.open-meteo.com/v1/forecast", {**params, "past_days": f"{days - 1}", "forecast_days": "1"}
    )
    dated = {"start_date": "2026-01-01", "end_date": f"{datetime(2026, 1, 1) + (days - 1) * DAY:%Y-%m-%d}"}
    archive = Request("https://archive-api.open-meteo.com/v1/archive", {**params, **dated})
    assert PROVIDERS["open-meteo"].cost(past) == PROVIDERS["open-meteo"].cost(archive) == cost


def test_both_hosts_of_a_provider_share_its_budget(desk, task):
    guard = BudgetGuard.of(task, desk.settings(), desk.clock)
    params = {"hourly": "a", "latitude": ",".join(["1"] * 400), "past_days": "1", "forecast_days": "1"}
    assert guard.charge(Request("https://api.open-meteo.com/v1/forecast", params)) == 0
    assert guard.charge(Request("https://archive-api.open-meteo.com/v1/archive", params)) == 60


def test_a_call_that_counts_for_more_than_a_limit_is_made_when_nothing_else_was_asked(desk):
    task = declared(per_minute=3, call=7)
    with desk.client(task) as client:
        client.get(OWN)
        client.get(OWN)
    assert desk.asked == [NOON, NOON + MINUTE]


def test_a_task_declares_the_budget_of_its_own_api(desk):
    task = declared(per_hour=2)
    desk.ask(task, OWN)
    desk.ask(task, OWN)
    assert "2 of 2 calls a hour are used" in desk.refusal(task, OWN).found


def test_without_a_declared_budget_nothing_is_limited(desk):
    with desk.client(declared()) as client:
        for _ in range(200):
            client.get(OWN)
    assert desk.now == NOON


def test_a_setting_raises_the_limits_of_a_paid_key(desk, equity):
    paid = {"budgets": '{"alpha-vantage": {"per_minute": 75}}'}
    with desk.client(equity, **paid) as client:
        for _ in range(75):
            client.get(share())
    assert desk.now == NOON
    assert dict(limits(budget_of(equity, desk.settings(**paid)))) == {"minute": 75}


def collect(desk: Desk, task: Task) -> SourceUnavailable:
    """Collect a task's last days, and return why that failed."""
    settings = desk.settings(alpha_vantage_key="KEY", http_attempts=1)
    archive, start = Archive(desk.home / "archive"), desk.now - 2 * DAY
    with desk.client(task) as client, pytest.raises(SourceUnavailable) as refused:
        fetch(task, settings, client, archive, start, desk.now, desk.now, True, desk.clock)
    return refused.value


def test_a_spent_day_that_comes_with_http_200_counts_as_spent_until_the_operators_midnight(desk, equity):
    desk.reply = lambda request: httpx.Response(200, json=SPENT)
    assert "25 requests per day" in collect(desk, equity).found
    again = collect(desk, equity)
    assert len(desk.asked) == 1
    assert "it said" in again.found and "2026-07-17T04:00:00Z" in again.action  # midnight in New York
    desk.now = datetime(2026, 7, 17, 4, 0, 1, tzinfo=UTC)
    collect(desk, equity)
    assert len(desk.asked) == 2


def test_of_several_limits_a_refusal_names_the_shortest_is_waited_for_and_if_it_is_said_again_the_longest(desk, equity):
    desk.reply = lambda request: httpx.Response(200, json=BURST)
    collect(desk, equity)
    collect(desk, equity)
    assert desk.asked[1] - desk.asked[0] <= 2 * SECOND
    assert "2026-07-17T04:00:00Z" in collect(desk, equity).action
    assert len(desk.asked) == 2


def test_a_good_answer_makes_the_next_refusal_a_first_one(desk, equity):
    guard = BudgetGuard.of(equity, desk.settings(), desk.clock)
    for _ in range(2):
        assert guard.refused(share(), BURST["Information"], None) == 1
        desk.now += 5 * SECOND
        guard.answered(share())


def test_a_spent_limit_is_not_asked_again_and_again_in_one_call(desk, task):
    said = {"error": True, "reason": "Daily API request limit exceeded. Please try again tomorrow."}
    desk.reply = lambda request: httpx.Response(429, json=said)
    params = {"hourly": "a", "latitude": "1", "past_days": "1", "forecast_days": "1"}
    request = Request("https://api.open-meteo.com/v1/forecast", params)
    assert "try again tomorrow" in desk.refusal(task, request, http_attempts=4).found
    assert "2026-07-17T00:00:00Z" in desk.refusal(task, request, http_attempts=4).action
    assert len(desk.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_pause_a_source_asks_for_is_kept_by_the_next_process(desk, crypto, status):
    desk.reply = lambda request: httpx.Response(status, headers={"Retry-After": "600"})
    desk.refusal(crypto, CANDLES)
    desk.now += 5 * MINUTE
    assert "2026-07-16T12:10:00Z" in desk.refusal(crypto, CANDLES).action
    assert len(desk.asked) == 1


@pytest.mark.parametrize("said", ["999999999", "9" * 400])
def test_a_pause_that_cannot_be_meant_is_a_day_at_most(desk, crypto, said):
    desk.reply = lambda request: httpx.Response(429, headers={"Retry-After": said, "X-MBX-USED-WEIGHT-1M": "9" * 400})
    desk.refusal(crypto, CANDLES)
    desk.now += DAY
    desk.refusal(crypto, CANDLES)
    assert len(desk.asked) == 2


def test_what_was_written_while_the_clock_was_wrong_holds_nobody(desk, crypto):
    guard = BudgetGuard.of(crypto, desk.settings(), desk.clock)
    desk.now = NOON + 400 * DAY
    guard.refused(CANDLES, "wait", 600)
    for _ in range(FAILURES):
        guard.failed(CANDLES, "broken")
    desk.now = NOON
    assert guard.check(CANDLES)
    assert guard.charge(CANDLES) == 0


def test_a_host_that_fails_again_and_again_is_left_alone_over_restarts_and_the_message_says_until_when(desk):
    task = declared()
    desk.reply = lambda request: httpx.Response(500, content=b"out of order")
    for _ in range(FAILURES):
        assert "HTTP 500" in desk.refusal(task, OWN).found
    refused = desk.refusal(task, OWN)
    assert len(desk.asked) == FAILURES
    assert f"{FAILURES} failures in a row, the last: HTTP 500: out of order" in refused.found
    assert "left alone until 2026-07-16T12:01:00Z" in refused.action


def test_after_the_pause_one_trial_is_made_and_each_that_fails_doubles_it_up_to_half_an_hour(desk):
    task, pauses = declared(), []
    desk.reply = lambda request: httpx.Response(500)
    for _ in range(FAILURES):
        desk.refusal(task, OWN)
    for _ in range(8):
        made, since = len(desk.asked), desk.now
        while len(desk.asked) == made:
            desk.now += 10 * SECOND
            desk.refusal(task, OWN, http_attempts=4)
        assert len(desk.asked) == made + 1
        pauses.append(desk.now - since)
    assert pauses[:5] == [FIRST_PAUSE * 2**one for one in range(5)]
    assert pauses[-1] == LONGEST_PAUSE < HOUR


def test_while_one_tries_a_failing_host_no_other_does(desk):
    task = declared()
    guard = BudgetGuard.of(task, desk.settings(), desk.clock)
    for _ in range(FAILURES):
        guard.failed(OWN, "broken")
    desk.now += 2 * MINUTE
    assert guard.check(OWN)
    with pytest.raises(SourceUnavailable):
        guard.check(OWN)


def test_a_trial_that_succeeds_ends_the_pause(desk, crypto):
    guard = BudgetGuard.of(crypto, desk.settings(), desk.clock)
    for _ in range(FAILURES):
        guard.failed(CANDLES, "broken")
    desk.now += 2 * MINUTE
    desk.reply = lambda request: httpx.Response(200, json=[])
    with desk.client(crypto) as client:
        with client.judging(CANDLES, client.get(CANDLES)):
            pass
    assert not guard.check(CANDLES)


def test_answers_without_anything_in_them_count_as_failures(desk, crypto):
    desk.reply = lambda request: httpx.Response(200, content=b"")
    for _ in range(FAILURES):
        assert "an empty body" in collect(desk, crypto).found
    assert "failures in a row" in collect(desk, crypto).found


def test_one_host_that_fails_keeps_no_other_from_being_asked(desk):
    guard = BudgetGuard.of(declared(), desk.settings(), desk.clock)
    for _ in range(FAILURES):
        guard.failed(OWN, "broken")
    assert not guard.check(Request("https://other.example/data"))


def test_processes_that_ask_at_once_do_not_overdraw(tmp_path, root):
    program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from forecastle.data.budget import BudgetGuard
from forecastle.declaration import Budget
from forecastle.data.ledger import Ledger
from forecastle.errors import SourceUnavailable
from forecastle.http import Request
guard = BudgetGuard("x", Budget(per_day=50), lambda _: 1, Ledger(Path(sys.argv[1])), lambda: datetime.now(UTC))
passed = 0
for _ in range(40):
    try:
        passed += guard.charge(Request("https://api.example")) == 0
    except SourceUnavailable:
        pass
print(passed)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "ledger.db")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(one.communicate()[0]) for one in running) == 50


def test_a_clock_that_was_wrong_once_blocks_nothing_for_ever(desk, equity):
    desk.now = NOON + 400 * DAY
    for _ in range(25):
        desk.ask(equity, share())
    desk.now = NOON
    assert "2026-07-17" in desk.refusal(equity, share()).action


def test_a_ledger_of_a_newer_forecastle_is_refused_and_a_broken_one_is_named(desk, crypto):
    desk.home.mkdir()
    with sqlite3.connect(desk.home / "collecting.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="format 99"):
        desk.ask(crypto, CANDLES)
    (desk.home / "collecting.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageUnavailable, match="collecting.db"):
        desk.ask(crypto, CANDLES)


def test_one_hourly_share_fits_a_free_key_and_two_do_not(equity, desk):
    check_schedule([equity], desk.settings(), NOON)
    other = equity.model_copy(update={"name": "other"})
    with pytest.raises(TaskError) as refused:
        check_schedule([equity, other], desk.settings(), NOON)
    assert "at most 25 calls a day of alpha-vantage" in refused.value.expected
    assert "48 calls a day by 'equity-volatility' every 1h, 'other' every 1h" in refused.value.found


def test_processes_of_one_home_that_share_a_key_are_checked_together_whichever_comes_last_is_refused(equity, desk):
    other = equity.model_copy(update={"name": "other"})
    hold_schedule(equity, desk.settings(), NOON)
    hold_schedule(equity, desk.settings(), NOON)  # the same one again is not another
    with pytest.raises(TaskError, match="48 calls a day by 'other' every 1h, 'equity-volatility' every 1h"):
        hold_schedule(other, desk.settings(), NOON + MINUTE)
    hold_schedule(equity, desk.settings(), NOON + HOUR)  # the one that is there goes on
    hold_schedule(other, desk.settings(alpha_vantage_key="another"), NOON + HOUR)  # a key of its own


def test_a_schedule_counts_until_its_next_step_is_overdue_and_each_call_holds_it(equity, desk):
    other = equity.model_copy(update={"name": "other"})
    settings = desk.settings(alpha_vantage_key="KEY")
    hold_schedule(equity, settings, desk.now)
    desk.now += HOUR
    guard = BudgetGuard.of(equity, settings, desk.clock, at_every_step=True)
    assert guard.charge(share()) == 0.0
    desk.now += HOUR + MINUTE
    with pytest.raises(TaskError, match="equity-volatility"):
        hold_schedule(other, settings, desk.now)
    desk.now += 15 * MINUTE
    hold_schedule(other, settings, desk.now)


def test_a_call_beside_a_schedule_holds_none(equity, desk):
    settings = desk.settings(alpha_vantage_key="KEY")
    hold_schedule(equity, settings, desk.now)
    desk.now += HOUR + 14 * MINUTE
    assert BudgetGuard.of(equity, settings, desk.clock).charge(share()) == 0.0  # as a training does
    hold_schedule(equity.model_copy(update={"name": "other"}), settings, desk.now + 2 * MINUTE)


def test_a_ledger_of_the_first_format_goes_on_with_what_it_holds(desk, equity):
    desk.home.mkdir()
    with sqlite3.connect(desk.home / "collecting.db") as db:
        db.executescript(ledger._FIRST)
        db.execute("PRAGMA user_version = 1")
        db.executemany("INSERT INTO calls VALUES (?, ?, 1)", [("alpha-vantage", NOON.timestamp())] * 25)
    assert "25 of 25 calls a day" in desk.refusal(equity, Request(share().url)).found
    hold_schedule(equity, desk.settings(), NOON)


@pytest.mark.parametrize("day", [datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 3, tzinfo=UTC), NOON])
def test_a_pass_is_one_call_of_a_share_at_the_turn_of_the_month_too(equity, desk, day):
    check_schedule([equity], desk.settings(), day)


def test_two_series_of_an_hourly_share_are_too_many_and_a_paid_key_makes_them_fit(equity, desk):
    data = equity.model_dump(mode="json") | {"series": [{"id": "IBM"}, {"id": "MSFT"}]}
    with pytest.raises(TaskError, match="48 calls a day"):
        check_schedule([make_task(data)], desk.settings(), NOON)
    check_schedule([make_task(data)], desk.settings(budgets='{"alpha-vantage": {"per_minute": 75}}'), NOON)


def test_all_shipped_tasks_fit_together(root, desk):
    tasks = [load_task(path) for path in sorted((root / "tasks").glob("*.toml"))]
    check_schedule(tasks, desk.settings(), NOON)


def test_a_schedule_is_checked_against_the_budget_a_task_declares(desk):
    check_schedule([declared(per_day=144)], desk.settings(), NOON)
    with pytest.raises(TaskError, match="144 calls a day"):
        check_schedule([declared(per_day=143)], desk.settings(), NOON)
