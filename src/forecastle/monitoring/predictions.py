"""Forecasts made on request, on their way into the journal: an answer never waits for the database.

They are kept apart from the live ones (table ``predictions``, one row for a series that was asked about): what somebody
asks with observations of his own is neither the current forecast of a series nor scored as one, but counts in drift.

Rows wait in memory for at most FLUSH_SECONDS and are then written together. What the database has not taken after as
long again goes, flushed to the disk, into a file of the home folder, from which this or any later process brings it in;
so does what comes while it refuses or hangs. A row that comes twice is the same by its id. So a process that is killed
loses the answers of its last second from the journal, and no more; one that is told to stop, none. What no journal can
hold is kept in a file beside, and holds up nothing else.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DataError, IntegrityError

from forecastle.errors import ForecastleError, StorageUnavailable
from forecastle.frame import to_json, write_text
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tables import PREDICTIONS

LOG = logging.getLogger("forecastle.service")

FLUSH_SECONDS = 0.5
STOP_SECONDS = 5.0  # for which whoever stops waits for the database, before the disk has to do
MOST_AT_ONCE = 5_000  # rows of one transaction
MOST_WAITING = 50_000  # rows in memory, where neither database nor disk takes any
FOLDER = "answered"
SUFFIX, REFUSED = ".jsonl", ".refused"
_COLUMNS = frozenset(PREDICTIONS.columns.keys())
_MOMENTS = ("origin", "issued_at")
_ILL = (DataError, IntegrityError, ValueError, OverflowError)  # what is said of a row, not of the database

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
        self._going: list[Row] = []  # into the journal just now, and not on the disk
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
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._go_on, name="predictions", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Bring everything that waits into the journal, or into a file where it does not answer."""
        with self._flushing:
            with self._lock:
                rows = self._going = self._waiting
                self._waiting = []
            try:
                journal = self._journal()
                for start in range(0, len(rows), MOST_AT_ONCE):
                    self._record(journal, rows[start : start + MOST_AT_ONCE])
                    with self._lock:
                        self._going = self._going[MOST_AT_ONCE:]
                self._bring_in(journal)
            except ForecastleError as error:
                LOG.warning("predictions wait for the journal: %s", error)
                self._set_aside()
            except BaseException:
                self._set_aside()
                raise

    def close(self) -> None:
        """Flush, and stop; where the database takes long, the disk has to do."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._flush_within(STOP_SECONDS)

    def _go_on(self) -> None:
        while not self._stop.wait(self._every):
            flushing = self._flush_within(self._every)
            while flushing.is_alive() and not self._stop.wait(self._every):
                self._set_aside()

    def _flush_within(self, seconds: float) -> threading.Thread:
        """Flush, in a thread that the database may hold up: then, after so many seconds, all is set aside as well."""
        flushing = threading.Thread(target=self.flush, name="journalling", daemon=True)
        flushing.start()
        flushing.join(seconds)
        if flushing.is_alive():
            LOG.warning("predictions wait on the disk: the journal has not taken them in %g seconds", seconds)
            self._set_aside()
        return flushing

    def _record(self, journal: Journal, rows: Sequence[Row]) -> None:
        """Journal rows; one among them that no journal can hold is kept beside, and the others are journalled."""
        try:
            journal.record_predictions(rows)
        except _ILL as error:
            if len(rows) > 1:
                for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                    self._record(journal, half)
                return
            kept = self._write(rows, REFUSED)
            LOG.error("a prediction that the journal cannot hold is kept in %s: %s", kept, error)

    def _bring_in(self, journal: Journal) -> None:
        """Journal what was set aside, by whomever; bringing it in twice does no harm."""
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                rows = _read(file)
                for start in range(0, len(rows), MOST_AT_ONCE):
                    self._record(journal, rows[start : start + MOST_AT_ONCE])
                file.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # another process was there first
            except OSError as error:
                LOG.warning("predictions stay in %s: %s", file, error)

    def _set_aside(self) -> None:
        """Put what is in memory alone into a file; what a flush is at may come into the journal as well."""
        with self._lock:
            rows, self._going, self._waiting = [*self._going, *self._waiting], [], []
        if not rows:
            return
        try:
            self._write(rows, SUFFIX)
        except StorageUnavailable as error:
            LOG.warning("predictions wait in memory: %s", error)
            with self._lock:
                self._waiting[:0] = rows

    def _write(self, rows: Iterable[Row], suffix: str) -> Path:
        lines = "".join(f"{to_json(dict(row))}\n" for row in rows)
        return write_text(self._folder / f"{uuid.uuid4().hex}{suffix}", lines)


def _read(file: Path) -> list[Row]:
    """Return the rows of a file that was set aside; one that holds anything else is renamed, and has none."""
    try:
        return [_row(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (ValueError, TypeError) as error:
        kept = file.rename(file.with_suffix(REFUSED))
        LOG.error("a file of predictions that cannot be read is kept as %s: %s", kept, error)
        return []


def _row(line: str) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict) or row.keys() != _COLUMNS:
        raise ValueError(f"expected the columns of a prediction, found {line[:100]}")
    return row | {name: datetime.fromisoformat(row[name]) for name in _MOMENTS}
