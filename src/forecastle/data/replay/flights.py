"""Recorded departures as an API tells them: a row a flight, from the moment it has left.

    GET /v1/departures?airports=EWR,JFK&start=2013-12-01T00:00:00Z&end=2013-12-01T06:00:00Z&page=1&per_page=1000
    {"departures": [{"airport": "EWR", "flight": "UA1545", "slot": "2013-12-01T05:15:01Z",
                     "departed_at": "2013-12-01T05:17:00Z", "delay_minutes": 2}, …]}

``slot`` is the flight's own place in the schedule: its scheduled minute, and where several flights of an airport share
that minute, the seconds count them (UTC). ``delay_minutes`` is below zero for a flight that left early. Flights that
were cancelled, or have not left, are not there; so an hour without flights has no rows. Rows come by slot and airport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from io import BytesIO

import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from forecastle.data.replay.recording import read_recorded, stamped
from forecastle.frame import SERIES, TIME

MOST_A_PAGE = 20_000


def load_nyc_flights() -> pl.DataFrame:
    """Return the departures from EWR, JFK and LGA in 2013: series_id, flight, slot, departed_at (UTC), delay_minutes.

    A cancelled flight has neither departed_at nor delay_minutes. The recording's local clock times are not used: when a
    flight left is its scheduled time, which ``time_hour`` gives in UTC, and its delay, so that 24:00, flights that left
    after midnight and the days the clocks change need no care. Raises UserError where the package is not installed.
    """
    wanted = ["time_hour", "minute", "origin", "carrier", "flight", "tailnum", "dep_delay"]
    table = pl.read_csv(
        BytesIO(read_recorded("flights.csv")), columns=wanted, null_values="NA", schema_overrides={"tailnum": pl.String}
    )
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")
    scheduled = (hour + pl.duration(minutes="minute")).cast(TIME)
    delay = pl.col("dep_delay").cast(pl.Int64)
    return (
        table.with_columns(scheduled.alias("scheduled"))
        .sort("origin", "scheduled", "carrier", "flight", "tailnum")
        .with_columns(pl.int_range(pl.len()).over("origin", "scheduled").alias("number"))
        .select(
            pl.col("origin").alias(SERIES),
            pl.format("{}{}", "carrier", "flight").alias("flight"),
            (pl.col("scheduled") + pl.duration(seconds="number")).alias("slot"),
            (pl.col("scheduled") + pl.duration(minutes=delay)).alias("departed_at"),
            delay.alias("delay_minutes"),
        )
        .sort("slot", SERIES)
    )


def flight_routes(flights: Callable[[], pl.DataFrame], now: Callable[[], datetime]) -> list[Route]:
    """Return the route ``/v1/departures`` over a table as ``load_nyc_flights`` returns it, as of ``now()``.

    The table is asked for with the first request.
    """

    @cache
    def recorded() -> tuple[pl.DataFrame, frozenset[str]]:
        table = flights()
        left = table.filter(pl.col("departed_at").is_not_null()).sort("slot", SERIES)
        return left, frozenset(table[SERIES].unique())

    async def departures(request: Request) -> Response:
        left, airports = recorded()
        try:
            asked = _asked(request.query_params, airports)
        except ValueError as error:
            return stamped(JSONResponse({"error": str(error)}, 400), now())
        return stamped(JSONResponse({"departures": _rows(left, asked, now().astimezone(UTC))}), now())

    return [Route("/v1/departures", departures)]


_Asked = tuple[list[str], datetime, datetime, int, int]


def _asked(params: Mapping[str, str], airports: frozenset[str]) -> _Asked:
    names = [name for name in params.get("airports", "").split(",") if name]
    if not names or (strange := sorted(set(names) - airports)):
        raise ValueError(f"airports: unknown {strange[0]!r}" if names else "airports: missing")
    start, end = (_time(params, name) for name in ("start", "end"))
    if end < start:
        raise ValueError("end: before start")
    return names, start, end, _count(params, "page", 1, 1_000_000), _count(params, "per_page", 1_000, MOST_A_PAGE)


def _time(params: Mapping[str, str], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(params.get(name, ""))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{name}: expected a time such as 2013-12-01T00:00:00Z, found {params.get(name)!r}")
    return moment


def _count(params: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = params.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ValueError(f"{name}: expected a number from 1 to {most}, found {text!r}")
    return int(text)


def _rows(left: pl.DataFrame, asked: _Asked, now: datetime) -> list[dict[str, object]]:
    names, start, end, page, size = asked
    text = "%Y-%m-%dT%H:%M:%SZ"
    first, after = left["slot"].search_sorted(start, "left"), left["slot"].search_sorted(end, "right")
    told = left.slice(first, after - first).filter(pl.col(SERIES).is_in(names), pl.col("departed_at") <= now)
    return (
        told.slice((page - 1) * size, size)
        .select(
            pl.col(SERIES).alias("airport"),
            "flight",
            pl.col("slot", "departed_at").dt.strftime(text),
            "delay_minutes",
        )
        .to_dicts()
    )
