"""What each provider and key may still be asked, and whom to leave alone for a while.

Every attempt is counted in the ledger before it is made, so that a crash never counts too few, and none is made that
would go over a limit: a wait of seconds is waited for, a longer one is a SourceUnavailable that says until when. What
is declared in ``providers/budgets.toml`` (or by a task's own API, or in FORECASTLE_BUDGETS) holds for an account: the
provider's hosts and one key. A replay says that it is one, and what it was asked is not counted.

A host that fails FAILURES times in a row is left alone: for a minute, then for twice as long after each trial that
fails too, at most half an hour. These counts too outlive the process.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from forecastle.data.ledger import Ledger
from forecastle.data.providers import PROVIDERS
from forecastle.declaration import Budget
from forecastle.errors import SourceUnavailable, TaskError
from forecastle.frame import iso
from forecastle.http import LONGEST_WAIT, REPLAY_NOW, Request
from forecastle.settings import Settings
from forecastle.task import DAY, Task, duration_text

FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=30)
"""The longest is below an hour, so that an hourly task tries at each of its passes."""

SPANS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": DAY,
    "month": 31 * DAY,
}
UNLIMITED = Budget()

OVERDUE = timedelta(minutes=15)
"""By so much a pass may be late before its schedule counts as no longer followed."""

LONGEST_HOLD = DAY
"""For no longer is a source left alone because it says so; what lies further ahead is a mistake, or a clock's."""

LEDGER = "collecting.db"
_MOST = 10**9
_TRIAL = timedelta(minutes=2)  # for so long the one that tries a failing host is the only one
_KEPT = max(SPANS.values()).total_seconds() + 60
_NAMED = {span: re.compile(rf"\b{span}(ly)?\b", re.IGNORECASE) for span in SPANS} | {
    "day": re.compile(r"\b(day|daily|tomorrow)\b", re.IGNORECASE)
}


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of the home folder."""
    return Ledger(settings.home / LEDGER)


@cache
def shipped() -> dict[str, Budget]:
    """Return what each provider publishes that it may be asked."""
    text = (Path(__file__).parent / "providers" / "budgets.toml").read_text(encoding="utf-8")
    return {name: Budget.model_validate(one) for name, one in tomllib.loads(text).items()}


def budget_of(task: Task, settings: Settings) -> Budget:
    """Return what a task's source may be asked: what the settings, the task's own declaration or the provider says."""
    known, name = shipped().get(task.source.provider, UNLIMITED), task.source.provider
    if name in settings.budgets:
        kept = {field: getattr(known, field) for field in ("hosts", "call", "used_header")}
        return settings.budgets[name].model_copy(update=kept)
    declared = task.source.http_json.budget if task.source.http_json else None
    return declared or known


def limits(budget: Budget) -> Iterator[tuple[str, int]]:
    """Yield the spans a budget limits, the shortest first, and what may be asked in each."""
    for span in SPANS:
        most = getattr(budget, f"per_{span}")
        if most is not None:
            yield span, most


def account(provider: str, budget: Budget, request: Request) -> str:
    """Return the name a call is counted under: the provider, its host unless it is one of those that share, the key."""
    host = urlsplit(request.url).netloc.rpartition("@")[2]
    where = provider if host in budget.hosts else f"{provider} at {host}"
    return f"{where} {hashlib.sha256(request.key.encode()).hexdigest()[:12]}" if request.key else where


def check_schedule(tasks: Iterable[Task], settings: Settings, now: datetime) -> None:
    """Raise TaskError where collecting at every step of these tasks would ask a source for more than it allows.

    Tasks that share an account are counted together. What counts is an ordinary pass: the window, without any gap.
    """
    shares: dict[str, list[_Share]] = {}
    budgets: dict[str, Budget] = {}
    for task in tasks:
        for name, share in _shares(task, settings, now).items():
            shares.setdefault(name, []).append(share)
            budgets[name] = budget_of(task, settings)
    for name, sharing in shares.items():
        _require_room(name, budgets[name], sharing)


def hold_schedule(task: Task, settings: Settings, now: datetime) -> None:
    """Note in the home's ledger that a process collects a task at every step, from now until its next step is overdue.

    Raises TaskError, and notes nothing, where a source does not allow that beside what other processes have noted so.
    """
    budget, until = budget_of(task, settings), _followed_until(task, now)
    with open_ledger(settings).transaction() as db:
        db.execute("DELETE FROM schedules WHERE task = ? OR until < ?", (task.name, now.timestamp() - _KEPT))
        for name, share in _shares(task, settings, now).items():
            query = "SELECT task, period, rate FROM schedules WHERE account = ? AND until >= ? ORDER BY task"
            others = [_Share(*row) for row in db.execute(query, (name, now.timestamp()))]
            _require_room(name, budget, [share, *others])
            db.execute("INSERT INTO schedules VALUES (?, ?, ?, ?, ?)", (name, *share, until))


class _Share(NamedTuple):
    """What collecting a task at every step asks of an account: how often (seconds), and calls a second."""

    task: str
    period: float
    rate: float


def _shares(task: Task, settings: Settings, now: datetime) -> dict[str, _Share]:
    """Return what an ordinary pass of a task at every step asks of each account that has a limit."""
    provider, budget = PROVIDERS[task.source.provider], budget_of(task, settings)
    if not any(limits(budget)):
        return {}
    asking = settings.model_copy(update={name: SecretStr("none") for name in _empty_keys(settings)})
    window, period = max(task.source.window, task.gate.window), _period(task).total_seconds()
    costs: dict[str, int] = {}
    for request in provider.requests(task.measured, asking, now - window, now, now):
        name = account(task.source.provider, budget, request)
        costs[name] = costs.get(name, 0) + provider.cost(request) * budget.call
    return {name: _Share(task.name, period, cost / period) for name, cost in costs.items()}


def _require_room(name: str, budget: Budget, shares: Sequence[_Share]) -> None:
    for span, most in limits(budget):
        needed = sum(one.rate for one in shares) * SPANS[span].total_seconds()
        if needed > most and span != "second":  # within a minute, calls wait for each other
            listed = ", ".join(f"{one.task!r} every {duration_text(timedelta(seconds=one.period))}" for one in shares)
            raise TaskError(
                f"at most {most} calls a {span} of {_without_digest(name)}",
                f"{needed:.0f} calls a {span} by {listed}",
                "Choose a longer frequency or fewer series, or stop one of them (it counts until its next step is "
                "overdue); FORECASTLE_BUDGETS raises the limit of a paid key.",
            )


def _period(task: Task) -> timedelta:
    return task.source.every or task.frequency


def _followed_until(task: Task, now: datetime) -> float:
    """Return until when a schedule counts that was followed just now."""
    return (now + _period(task) + OVERDUE).timestamp()


def used(task: Task, settings: Settings, now: datetime) -> tuple[tuple[str, int, int], ...]:
    """Return of each span of an hour and more that limits the task's source: its name, the calls used, those allowed.

    Of several accounts (keys, hosts) the one that has used most counts. Without a ledger there is nothing to tell.
    """
    spans = [(span, most) for span, most in limits(budget_of(task, settings)) if SPANS[span] >= SPANS["hour"]]
    if not spans or not (settings.home / LEDGER).exists():
        return ()
    moment, name = now.timestamp(), task.source.provider
    query = "SELECT sum(cost) FROM calls WHERE at > ? AND (account = ? OR account LIKE ?) GROUP BY account"
    with open_ledger(settings).transaction() as db:
        sums = {
            span: [row[0] for row in db.execute(query, (moment - SPANS[span].total_seconds(), name, f"{name} %"))]
            for span, _ in spans
        }
    return tuple((span, max(sums[span], default=0), most) for span, most in spans)


@dataclass(frozen=True)
class BudgetGuard:
    """Who lets a task's calls pass or not; see the top. ``clock`` is the real time, whatever moment is acted as.

    ``schedule`` is the task whose schedule is followed, where one is: its note holds on with every call.
    """

    provider: str
    budget: Budget
    cost: Callable[[Request], int]
    ledger: Ledger
    clock: Callable[[], datetime]
    schedule: Task | None = None

    @classmethod
    def of(
        cls, task: Task, settings: Settings, clock: Callable[[], datetime], at_every_step: bool = False
    ) -> BudgetGuard:
        """Return the guard of a task's source, whether it is asked once or at every step."""
        provider, budget = PROVIDERS[task.source.provider], budget_of(task, settings)
        followed = task if at_every_step else None
        return cls(task.source.provider, budget, provider.cost, open_ledger(settings), clock, followed)

    def check(self, request: Request) -> bool:
        """Tell whether this is the one trial of a host that has failed; raise SourceUnavailable while it is left
        alone."""
        now = self.clock()
        with self.ledger.transaction() as db:
            row = db.execute(
                "SELECT failures, until, reason FROM breakers WHERE host = ?", (_host(request),)
            ).fetchone()
            failures, until, reason = row or (0, 0.0, "")
            if failures < FAILURES:
                return False
            if not 0 < until - now.timestamp() <= LONGEST_PAUSE.total_seconds():
                after = (now + _TRIAL).timestamp()
                db.execute("UPDATE breakers SET until = ? WHERE host = ?", (after, _host(request)))
                return True
        raise SourceUnavailable(
            f"an answer from {request.source}",
            f"{failures} failures in a row, the last: {reason}",
            f"It is left alone until {iso(_whole(until))}; ask again then.",
        )

    def charge(self, request: Request) -> float:
        """Count an attempt and return 0, or return the seconds to wait; raise SourceUnavailable for a long wait."""
        name, moment = self._account(request), self.clock()
        now, cost = moment.timestamp(), self.cost(request) * self.budget.call
        with self.ledger.transaction() as db:
            db.execute("DELETE FROM calls WHERE at < ?", (now - _KEPT,))
            db.execute("UPDATE calls SET at = ? WHERE at > ?", (now, now + 60))  # written while the clock was wrong
            if self.schedule is not None:
                row = (_followed_until(self.schedule, moment), self.schedule.name, name)
                db.execute("UPDATE schedules SET until = ? WHERE task = ? AND account = ?", row)
            until, found = self._held(db, name, now)
            for span, most in limits(self.budget):
                free = _free_at(db, name, now, SPANS[span].total_seconds(), most, cost)
                if free > until:
                    until, found = free, f"{_used(db, name, now, span)} of {most} calls a {span} are used"
            if until <= now:
                if any(limits(self.budget)):
                    db.execute("INSERT INTO calls VALUES (?, ?, ?)", (name, now, cost))
                return 0.0
        if until - now <= LONGEST_WAIT:
            return until - now
        raise SourceUnavailable(
            f"leave to ask {request.source}", found, f"It can be asked again at {iso(_whole(until))}."
        )

    def told(self, request: Request, headers: Mapping[str, str]) -> None:
        """Take back what a replay was asked; count what others used of the same limit, where the answer says it."""
        name, now = self._account(request), self.clock().timestamp()
        used = headers.get((self.budget.used_header or "").lower(), "")
        if REPLAY_NOW not in headers and not used.isdecimal():
            return
        with self.ledger.transaction() as db:
            if REPLAY_NOW in headers:
                last = "SELECT rowid FROM calls WHERE account = ? ORDER BY at DESC, rowid DESC LIMIT 1"
                db.execute(f"DELETE FROM calls WHERE rowid = ({last})", (name,))
            elif (missing := min(int(used), _MOST) - _used(db, name, now, "minute")) > 0:
                db.execute("INSERT INTO calls VALUES (?, ?, ?)", (name, now, missing))

    def refused(self, request: Request, said: str, seconds: float | None) -> float | None:
        """Leave the source alone for as long as it asks: so many seconds, or until the limit it names allows more."""
        moment, name = self.clock(), self._account(request)
        with self.ledger.transaction() as db:
            again = db.execute("SELECT 1 FROM holds WHERE account = ?", (name,)).fetchone() is not None
            if seconds is not None:
                until: datetime | None = moment + timedelta(seconds=min(seconds, LONGEST_HOLD.total_seconds()))
            else:
                until = self._reset(said, moment, again)
            if until is None:
                return None
            longer = "ON CONFLICT DO UPDATE SET until = excluded.until, reason = excluded.reason"
            row = (name, until.timestamp(), f"it said: {said}")
            db.execute(f"INSERT INTO holds VALUES (?, ?, ?) {longer} WHERE excluded.until > until", row)
        return (until - moment).total_seconds()

    def failed(self, request: Request, said: str) -> None:
        """Count a failure; from FAILURES in a row on the host is left alone, each time for twice as long."""
        now = self.clock()
        with self.ledger.transaction() as db:
            row = db.execute("SELECT failures FROM breakers WHERE host = ?", (_host(request),)).fetchone()
            failures = (row[0] if row else 0) + 1
            pause = min(FIRST_PAUSE * 2 ** min(max(failures - FAILURES, 0), 10), LONGEST_PAUSE)
            values = (_host(request), failures, (now + pause).timestamp(), said)
            db.execute("INSERT OR REPLACE INTO breakers VALUES (?, ?, ?, ?)", values)

    def answered(self, request: Request) -> None:
        """Forget the failures of a host that has answered, and that it wanted to be left alone."""
        with self.ledger.transaction() as db:
            db.execute("DELETE FROM holds WHERE account = ?", (self._account(request),))
            db.execute("DELETE FROM breakers WHERE host = ?", (_host(request),))

    def _account(self, request: Request) -> str:
        return account(self.provider, self.budget, request)

    def _held(self, db: sqlite3.Connection, name: str, now: float) -> tuple[float, str]:
        query = "SELECT until, reason FROM holds WHERE account = ? AND until > ? AND until < ?"
        row = db.execute(query, (name, now, now + 2 * LONGEST_HOLD.total_seconds())).fetchone()
        return row if row else (now, "")

    def _reset(self, said: str, now: datetime, again: bool) -> datetime | None:
        """Return when the limit that a refusal names allows more; None where it names none.

        Of several (the operators list all that a key has) the shortest counts, and where it was said ``again`` after
        that the longest. A day and a month end at midnight where the operator is.
        """
        named = [span for span, name in _NAMED.items() if name.search(said)]
        if not named:
            return None
        span = named[-1] if again else named[0]
        if span in ("day", "month"):
            local = now.astimezone(ZoneInfo(self.budget.zone))
            return datetime.combine(local.date() + DAY, time(), local.tzinfo).astimezone(UTC)
        return now + SPANS[span]


def _used(db: sqlite3.Connection, name: str, now: float, span: str) -> int:
    since = now - SPANS[span].total_seconds()
    query = "SELECT coalesce(sum(cost), 0) FROM calls WHERE account = ? AND at > ?"
    return int(db.execute(query, (name, since)).fetchone()[0])


def _free_at(db: sqlite3.Connection, name: str, now: float, seconds: float, most: int, cost: int) -> float:
    """Return when a call may be made; one that counts for more than the limit may when nothing else was asked."""
    query = "SELECT at, cost FROM calls WHERE account = ? AND at > ? ORDER BY at DESC"
    room = most - min(cost, most)
    for at, spent in db.execute(query, (name, now - seconds)):
        room -= spent
        if room < 0:
            return float(at) + seconds
    return now


def _empty_keys(settings: Settings) -> list[str]:
    keys = [name for name in type(settings).model_fields if name.endswith("_key")]
    return [name for name in keys if not getattr(settings, name).get_secret_value().strip()]


def _host(request: Request) -> str:
    return urlsplit(request.url).netloc.rpartition("@")[2]


def _whole(moment: float) -> datetime:
    """Return a time at or just after a moment, to the second."""
    return datetime.fromtimestamp(-(-moment // 1), UTC)


def _without_digest(account: str) -> str:
    """Return an account as a message may show it: without the digest of its key."""
    return re.sub(r" [0-9a-f]{12}$", "", account)
