"""The service writes its heartbeats while it is there, whatever else is slow or down."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forecastle.monitoring import uptime
from forecastle.monitoring.journal import Journal
from forecastle.serving.heartbeat import beating
from forecastle.settings import Settings

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def counted(settings: Settings) -> int:
    with Journal(settings.journal_url) as journal:
        found = uptime.uptime(journal)
    return 0 if found is None else found.seen


def test_a_heartbeat_is_written_at_once_and_at_every_turn(tmp_path: Path) -> None:
    settings, slots = Settings(home=tmp_path), iter(range(1000))
    patience = time.monotonic() + 60
    with beating(settings, lambda: START + next(slots) * uptime.EVERY, timedelta(seconds=0.02)):
        while counted(settings) < 3 and time.monotonic() < patience:
            time.sleep(0.02)
    after = counted(settings)
    assert after >= 3
    time.sleep(0.1)
    assert counted(settings) == after  # the block has ended, and so have the heartbeats


def test_a_journal_that_is_down_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = Settings(home=tmp_path, journal=f"sqlite:///{tmp_path}/file/journal.db")
    with beating(settings, lambda: START, timedelta(seconds=0.01)):
        time.sleep(0.05)
