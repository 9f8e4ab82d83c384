"""Local clocks and holidays, a million times at once: offsets from UTC and public holidays, looked up in small
tables."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from forecastle.data.panel import Booleans, Integers

_MINUTE = 60_000_000
_DAY = 86_400_000_000


def utc_offsets(times: Integers, zone: str) -> Integers:
    """Return the zone's offset from UTC at each time, in microseconds, daylight saving included."""
    if zone == "UTC" or not len(times):
        return np.zeros(len(times), dtype=np.int64)
    changes, offsets = _offset_table(zone, int(times.min()) // (366 * _DAY), int(times.max()) // (366 * _DAY))
    return offsets[np.searchsorted(changes, times, side="right") - 1]


def stands_still(first: int, last: int, zone: str) -> bool:
    """Tell whether a zone's offset from UTC is the same at all times from first to last, in microseconds."""
    if zone == "UTC":
        return True
    changes, _ = _offset_table(zone, first // (366 * _DAY), last // (366 * _DAY))
    before, after = np.searchsorted(changes, (first, last), side="right")
    return bool(before == after)


def public_holidays(days: Integers, country: str) -> Booleans:
    """Return which local days (days since 1970) are public holidays of a country, such as ``US`` or ``DE-BY``."""
    years = 1970 + days // 366, 1971 + days // 365
    known = _holiday_table(country, int(years[0].min()), int(years[1].max())) if len(days) else np.empty(0, np.int64)
    return np.isin(days, known)


@lru_cache(maxsize=64)
def _offset_table(zone: str, first: int, last: int) -> tuple[Integers, Integers]:
    """Return the moments at which a zone's offset changes and the offsets from then on, by bisection over hours."""
    info, epoch = ZoneInfo(zone), datetime.fromisoformat("1970-01-01T00:00:00+00:00")

    def offset(quarter: int) -> int:
        local = (epoch + timedelta(minutes=15 * quarter)).astimezone(info)
        return int((local.utcoffset() or timedelta(0)) / timedelta(microseconds=1))

    start, end = first * 366 * 96 - 96 * 400, (last + 1) * 366 * 96 + 96 * 400
    changes, offsets = [start], [offset(start)]
    for week in range(start, end, 96 * 7):
        low, high = week, week + 96 * 7
        while offset(high) != offsets[-1]:
            left, right = low, high
            while right - left > 1:
                middle = (left + right) // 2
                left, right = (middle, right) if offset(middle) == offsets[-1] else (left, middle)
            changes.append(right)
            offsets.append(offset(right))
            low = right
    return np.array(changes, dtype=np.int64) * 15 * _MINUTE, np.array(offsets, dtype=np.int64)


@lru_cache(maxsize=64)
def _holiday_table(country: str, first: int, last: int) -> Integers:
    import holidays

    code, _, region = country.partition("-")
    known = holidays.country_holidays(code, subdiv=region or None, years=range(first - 1, last + 2))
    return np.array(sorted((day - date(1970, 1, 1)).days for day in known), dtype=np.int64)
