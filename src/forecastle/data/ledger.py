"""What collecting has to remember between processes: one small SQLite file in the home folder.

    calls       when whom was asked, and what it counted for     (data.budget)
    holds       until when a source wants to be left alone       (data.budget)
    breakers    how often in a row a host has failed             (data.budget)
    schedules   which task is collected how often, and until when that counts     (data.budget)
    answers     the last answer of an address that can be asked for conditionally
    stretches   what of a task's past is in the history      (data.backfill)

Every use is a transaction of its own that holds the file's lock from its start, so that tasks and processes may share
it; it is on the disk when the transaction ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forecastle.errors import StorageUnavailable, UserError

LOCK_SECONDS = 60.0
FORGOTTEN = timedelta(days=40)
"""After so long an address that was not asked again is not remembered."""

_FIRST = """
CREATE TABLE calls (account TEXT NOT NULL, at REAL NOT NULL, cost INTEGER NOT NULL);
CREATE INDEX calls_by_time ON calls (account, at);
CREATE TABLE holds (account TEXT PRIMARY KEY, until REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE breakers (host TEXT PRIMARY KEY, failures INTEGER NOT NULL, until REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE answers (task TEXT NOT NULL, address TEXT NOT NULL, etag TEXT NOT NULL, modified TEXT NOT NULL,
    archived TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (task, address));
CREATE TABLE stretches (task TEXT NOT NULL, asked TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL);
"""
_SECOND = """
CREATE TABLE schedules (account TEXT NOT NULL, task TEXT NOT NULL, period REAL NOT NULL, rate REAL NOT NULL,
    until REAL NOT NULL, PRIMARY KEY (account, task));
"""
_FORMATS = (_FIRST, _SECOND)  # what each format adds to the one before
FORMAT = len(_FORMATS)


@dataclass(frozen=True)
class LastAnswer:
    """The last answer of an address: by what it can be asked for again, and its name in the archive."""

    etag: str
    modified: str
    archived: str

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask for another answer than this one."""
        given = {"if-none-match": self.etag, "if-modified-since": self.modified}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Ledger:
    """The ledger of one home folder; the file is made by its first use."""

    path: Path

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the ledger for one transaction.

        Raises StorageUnavailable where it cannot be read or written, or stays locked for a minute, and UserError where
        a newer forecastle has written it.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                with db:
                    self._prepare(db)
                    yield db
        except (sqlite3.Error, OSError) as error:
            raise StorageUnavailable(
                f"the ledger of collections {self.path}",
                str(error),
                "Mend the folder; a ledger that is broken may be removed: counts of calls begin anew.",
            ) from error

    def last_answer(self, task: str, address: str) -> LastAnswer | None:
        """Return the last answer a task got from an address, if that can be asked for conditionally."""
        with self.transaction() as db:
            query = "SELECT etag, modified, archived FROM answers WHERE task = ? AND address = ?"
            row = db.execute(query, (task, address)).fetchone()
        return LastAnswer(*row) if row else None

    def remember(self, task: str, address: str, last: LastAnswer, now: datetime) -> None:
        """Keep the last answer of an address; those of addresses no longer asked are forgotten."""
        at = now.timestamp()
        row = (task, address, last.etag, last.modified, last.archived, at)
        with self.transaction() as db:
            db.execute("DELETE FROM answers WHERE at < ?", (at - FORGOTTEN.total_seconds(),))
            db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def stretches(self, task: str, asked: str) -> list[tuple[datetime, datetime]]:
        """Return what of a task's past was brought by asking so: stretches from a start up to but without an end."""
        with self.transaction() as db:
            query = "SELECT first, last FROM stretches WHERE task = ? AND asked = ? ORDER BY first"
            rows = db.execute(query, (task, asked)).fetchall()
        return [(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)) for first, last in rows]

    def cover(self, task: str, asked: str, start: datetime, end: datetime) -> None:
        """Note that asking so has brought a stretch of a task's past; stretches that touch become one."""
        first, last = start.timestamp(), end.timestamp()
        touching = "FROM stretches WHERE task = ? AND asked = ? AND first <= ? AND last >= ?"
        which = (task, asked, last, first)
        with self.transaction() as db:
            known, least, most = db.execute(f"SELECT count(), min(first), max(last) {touching}", which).fetchone()
            if known == 1 and least <= first and last <= most:
                return  # nothing to write, so nothing to wait for the disk for
            whole = (first, last) if least is None else (min(first, least), max(last, most))
            db.execute(f"DELETE {touching}", which)
            db.execute("INSERT INTO stretches VALUES (?, ?, ?, ?)", (task, asked, *whole))

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise UserError(
                f"a ledger of collections of format {FORMAT} at most in {self.path}",
                f"format {version}",
                "Use the forecastle that wrote it, or a newer one.",
            )
        if version < FORMAT:
            for added in _FORMATS[version:]:
                for statement in added.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
