"""Where a long past is cut into what a few calls answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo


def months(start: datetime, end: datetime, zone: tzinfo = UTC, length: int = 1) -> Iterator[tuple[datetime, datetime]]:
    """Yield start to end (UTC) in pieces that end with a month of a zone, or with every third (``length=3``)."""
    while start < end:
        local = start.astimezone(zone)
        month = length * ((local.month - 1) // length) + length  # of the year, counted from 0: the one after the piece
        following = datetime(local.year + month // 12, month % 12 + 1, 1, tzinfo=zone).astimezone(UTC)
        yield start, min(following, end)
        start = following
