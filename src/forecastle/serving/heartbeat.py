"""The service's sign of life: every fifteen seconds a heartbeat in the journal, which uptime is told from.

A journal that does not take one leaves a gap, as a service that is down does: without its journal it forecasts nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from forecastle.errors import ForecastleError
from forecastle.monitoring import uptime
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings

LOG = logging.getLogger(__name__)


def now_in_utc() -> datetime:
    """Return the real time."""
    return datetime.now(UTC)


@contextmanager
def beating(
    settings: Settings, clock: Callable[[], datetime] = now_in_utc, every: timedelta = uptime.EVERY
) -> Iterator[None]:
    """Write a heartbeat at once, and then at every turn, while the block runs; ``clock`` tells the real time."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(settings, clock, every, stop), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(every.total_seconds())


def _beat(settings: Settings, clock: Callable[[], datetime], every: timedelta, stop: threading.Event) -> None:
    journal: Journal | None = None
    try:
        while True:
            try:
                journal = journal or Journal(settings.journal_url)
                uptime.beat(journal, clock())
            except ForecastleError as silent:
                LOG.info("no heartbeat: %s", silent)
            if stop.wait(every.total_seconds()):
                return
    finally:
        if journal is not None:
            journal.close()
