"""Forecasts made on request, on their way into the journal: an answer never waits for the database.

They are kept apart from the live ones (table ``predictions``, one row for a series that was asked about): what somebody
asks with observations of his own is neither the current forecast of a series nor scored as one, but counts in drift.

Rows wait in memory for at most FLUSH_SECONDS and are then written together. Where the database does not answer they
go, flushed to the disk, into a file of the home folder, from which this or any later process brings them in. So a
process that is killed loses the answers of its last FLUSH_SECONDS from the journal, and no more; one that is told to
stop, none.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from forecastle.errors import ForecastleError, StorageUnavailable
from forecastle.frame import to_json, write_text
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tables import PREDICTIONS

LOG = logging.getLogger("forecastle.service")

FLUSH_SECONDS = 1.0
MOST_AT_ONCE = 5_000  # rows of one transaction
MOST_WAITING = 50_000  # rows in memory, where neither database nor disk takes any
FOLDER = "answered"
SUFFIX = ".jsonl"
_MOMENTS = ("origin", "issued_at")

Row = Mapping[str, Any]


def asked(journal: Journal, task: str, limit: int = 1000) -> tuple[dict[str, Any], ...]:
    """Return the newest predictions made on request, at most so many, the newest first."""
    query = sql.select(PREDICTIONS).where(PREDICTIONS.c.task == task).order_by(PREDICTIONS.c.issued_at.desc())
    with journal.transaction() as connection:
        return tuple(dict(row) for row in connection.execute(query.limit(limit)).mappings())


class PredictionLog:
    """Take rows of the journal's table ``predictions`` at once, and bring them into the journal soon after."""

    def __init__(self, journal: Callable[[], Journal], home: Path, every: float = FLUSH_SECONDS) -> None:
        self._journal, self._folder, self._every = journal, home / FOLDER, every
        self._waiting: list[Row] = []
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows to be journalled. Raises StorageUnavailable where too many wait that nothing takes."""
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                raise StorageUnavailable(
                    "to journal what is answered", f"{len(self._waiting)} rows that wait", "Look at the journal."
                )
            self._waiting.extend(rows)
            if self._thread is None or not self._thread.is_alive():  # a fault ends it, once the rows are set aside
                self._thread = threading.Thread(target=self._go_on, name="predictions", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Bring everything that waits into the journal, or into a file where it does not answer."""
        with self._flushing:
            with self._lock:
                rows, self._waiting = self._waiting, []
            try:
                journal = self._journal()
                for start in range(0, len(rows), MOST_AT_ONCE):
                    journal.record_predictions(rows[start : start + MOST_AT_ONCE])
                self._bring_in(journal)
            except ForecastleError as error:  # rows that are in already are known by their id
                LOG.warning("predictions wait for the journal: %s", error)
                self._set_aside(rows)
            except BaseException:
                self._set_aside(rows)
                raise

    def close(self) -> None:
        """Flush, and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _go_on(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()

    def _bring_in(self, journal: Journal) -> None:
        """Journal what was set aside, by whomever; bringing it in twice does no harm."""
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                continue  # another process was there first
            if lines:
                journal.record_predictions([_read(line) for line in lines])
            file.unlink(missing_ok=True)

    def _set_aside(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            write_text(self._folder / f"{uuid.uuid4().hex}{SUFFIX}", "".join(f"{to_json(dict(row))}\n" for row in rows))
        except StorageUnavailable as error:
            LOG.warning("predictions wait in memory: %s", error)
            with self._lock:
                self._waiting[:0] = rows


def _read(line: str) -> Row:
    row: dict[str, Any] = json.loads(line)
    return row | {name: datetime.fromisoformat(row[name]) for name in _MOMENTS}
