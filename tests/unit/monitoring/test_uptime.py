"""The service's heartbeats and the uptime they tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.monitoring import uptime
from forecastle.monitoring.journal import Journal

START = datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(f"sqlite:///{tmp_path}/journal.db") as opened:
        yield opened


def test_nothing_is_said_of_a_service_that_never_was(journal: Journal) -> None:
    assert uptime.uptime(journal) is None


def test_uptime_is_the_share_of_slots_with_a_heartbeat(journal: Journal) -> None:
    for slot in (0, 1, 2, 5, 9):
        uptime.beat(journal, START + slot * uptime.EVERY)
    found = uptime.uptime(journal)
    assert found is not None and (found.seen, found.slots, found.share) == (5, 10, 0.5)
    assert found.first == datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_two_services_in_one_slot_count_once(journal: Journal) -> None:
    for seconds in (0, 4, 11.9):
        uptime.beat(journal, START + timedelta(seconds=seconds))
    found = uptime.uptime(journal)
    assert found is not None and (found.seen, found.slots) == (1, 1)


def test_uptime_can_be_asked_since_a_time(journal: Journal) -> None:
    for slot in (0, 8, 9):
        uptime.beat(journal, START + slot * uptime.EVERY)
    found = uptime.uptime(journal, START + 8 * uptime.EVERY)
    assert found is not None and found.share == 1


def test_old_heartbeats_are_forgotten(journal: Journal) -> None:
    for slot in range(4):
        uptime.beat(journal, START + slot * uptime.EVERY)
    assert uptime.forget(journal, START + 2 * uptime.EVERY) == 3
    found = uptime.uptime(journal)
    assert found is not None and found.seen == 1
