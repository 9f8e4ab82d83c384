"""The static timetable of GTFS: when a trip should be where (https://gtfs.org/documentation/schedule/reference/).

Times of ``stop_times.txt`` count from noon minus twelve hours of the service day in the agency's zone, which is
midnight except on the days the clocks change; 25:10:00 is ten past one of the next day.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from forecastle.errors import AnswerChanged
from forecastle.http import Request, excerpt
from forecastle.task import nearest

COMPARE = "The answer is archived; compare it with https://gtfs.org/documentation/schedule/reference/."
MOST_BYTES = 4_000_000_000
"""A table that unpacks to more is refused."""


class Call(NamedTuple):
    """A trip's stay at a stop: seconds of the service day, None where the timetable leaves them open."""

    stop_id: str
    arrival: int | None
    departure: int | None


@dataclass(frozen=True)
class Trip:
    """One trip of the timetable: its route, and its calls by ``stop_sequence``, in order.

    ``exact`` is None for a trip that runs once; of one that ``frequencies.txt`` repeats it says whether at exact times.
    """

    route_id: str
    calls: dict[int, Call] = field(default_factory=dict)
    exact: bool | None = None

    def call(self, sequence: int | None, stop_id: str, from_the_end: int) -> Call | None:
        """Return the call an update means: by its sequence, else by its stop, counted from the end where the trip
        stops there more than once."""
        if sequence is not None and sequence in self.calls:
            return self.calls[sequence]
        there = [call for call in self.calls.values() if call.stop_id == stop_id]
        return there[-1 - from_the_end] if from_the_end < len(there) else None

    @property
    def begins(self) -> int | None:
        """The second of the service day at which the timetable lets the trip begin."""
        first = next(iter(self.calls.values()), Call("", None, None))
        return first.departure if first.departure is not None else first.arrival


@dataclass(frozen=True)
class Timetable:
    """The trips of the routes that matter."""

    zone: ZoneInfo
    version: str
    trips: dict[str, Trip]

    def moment(self, day: date, seconds: int) -> float:
        """Return a time of a service day as seconds since 1970."""
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=self.zone).astimezone(UTC)
        return (noon - timedelta(hours=12) + timedelta(seconds=seconds)).timestamp()

    def nearest_day(self, seconds: int, near: float) -> date:
        """Return the service day on which that time comes nearest to a moment (seconds since 1970)."""
        here = datetime.fromtimestamp(near, self.zone).date()
        days = [here + timedelta(days=shift) for shift in (0, -1, 1, -2)]
        return min(days, key=lambda day: abs(self.moment(day, seconds) - near))


def read_timetable(request: Request, body: bytes, pairs: Collection[str]) -> Timetable:
    """Return the timetable in a zip, of the routes in ``pairs`` (route/stop) alone.

    Raises AnswerChanged for what is no GTFS, and where it has none of the pairs: the nearest is named.
    """
    tables = _Tables(request, body)
    zones = tables.read("agency.txt", ("agency_timezone",))["agency_timezone"].drop_nulls().unique().sort().to_list()
    try:
        zone = ZoneInfo(zones[0])
    except (IndexError, ValueError, KeyError, OSError):
        raise AnswerChanged(f"a time zone in agency.txt of {request.source}", f"{zones}", COMPARE) from None
    every = tables.read("trips.txt", ("trip_id", "route_id"))
    routes = sorted(every["route_id"].drop_nulls().unique())
    wanted = [route for route in routes if any(pair.startswith(f"{route}/") for pair in pairs)]
    trips = every.filter(pl.col("route_id").is_in(wanted))
    columns = ("trip_id", "arrival_time", "departure_time", "stop_id", "stop_sequence")
    calls = tables.read("stop_times.txt", columns).join(trips, on="trip_id")
    known = set(calls.select(pl.concat_str("route_id", "stop_id", separator="/")).unique().to_series())
    if not known & set(pairs):
        near = [nearest(pair, known or routes) for pair in pairs]
        raise AnswerChanged(
            f"stops of the task ({', '.join(pairs)}) in {request.source}",
            f"none of them among {len(routes)} routes{next(filter(None, near), '')}",
            "Write route_id/stop_id of the timetable as source_id of each [[series]].",
        )
    exact = tables.read("frequencies.txt", ("trip_id", "exact_times"), needed=False)
    repeated = {str(trip): times == "1" for trip, times in exact.select("trip_id", "exact_times").iter_rows()}
    info = tables.read("feed_info.txt", ("feed_version",), needed=False)["feed_version"].drop_nulls()
    return Timetable(zone, str(info[0]) if len(info) else "", _trips(request, trips, calls, repeated))


class _Tables:
    """The tables of a zip, every value as text."""

    def __init__(self, request: Request, body: bytes) -> None:
        self._request = request
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(body))
        except zipfile.BadZipFile:
            kind = "HTML" if body.lstrip().startswith(b"<") else "something else"
            raise AnswerChanged(
                f"a zip of GTFS tables from {request.source}", f"{kind}: {excerpt(body)}", COMPARE
            ) from None

    def read(self, name: str, columns: tuple[str, ...], needed: bool = True) -> pl.DataFrame:
        """Return these columns of a table, stripped; one that is not there is null, the first must be."""
        schema = dict.fromkeys(columns, pl.String())
        if name not in self._zip.namelist():
            if not needed:
                return pl.DataFrame(schema=schema)
            raise AnswerChanged(f"{name} in {self._request.source}", f"{', '.join(self._zip.namelist()[:20])}", COMPARE)
        try:
            if self._zip.getinfo(name).file_size > MOST_BYTES:
                raise AnswerChanged(f"{name} of at most {MOST_BYTES} bytes", "more", COMPARE)
            text = self._zip.read(name).removeprefix(b"\xef\xbb\xbf")
            there = pl.read_csv(text, infer_schema=False, n_rows=0).columns
            read = [number for number, column in enumerate(there) if column.strip() in columns]
            table = pl.read_csv(text, infer_schema=False, columns=read)
        except pl.exceptions.NoDataError:
            return pl.DataFrame(schema=schema)
        except (pl.exceptions.PolarsError, zipfile.BadZipFile, RuntimeError, OSError) as error:
            raise AnswerChanged(
                f"{name} of {self._request.source} as a table", str(error).splitlines()[0], COMPARE
            ) from None
        table = table.rename({column: column.strip() for column in table.columns})
        if needed and columns[0] not in table.columns:
            raise AnswerChanged(f"{columns[0]} in {name} of {self._request.source}", f"{', '.join(there)}", COMPARE)
        return table.select(
            (
                pl.col(column).str.strip_chars().replace("", None)
                if column in table.columns
                else pl.lit(None, dtype=pl.String).alias(column)
            )
            for column in columns
        )


def _trips(request: Request, trips: pl.DataFrame, calls: pl.DataFrame, repeated: dict[str, bool]) -> dict[str, Trip]:
    found = {trip: Trip(route, exact=repeated.get(trip)) for trip, route in trips.iter_rows()}
    numbered = calls.with_columns(
        pl.col("stop_sequence").cast(pl.Int64, strict=False),
        *(_seconds(name).alias(f"{name}_s") for name in ("arrival_time", "departure_time")),
    ).sort("trip_id", "stop_sequence")
    for name in ("arrival_time", "departure_time"):
        bad = numbered.filter(pl.col(name).is_not_null() & pl.col(f"{name}_s").is_null())
        if bad.height:
            raise AnswerChanged(
                f"times such as 25:10:00 in stop_times.txt of {request.source}",
                f"{bad[name][0]!r} in {name} of trip {bad['trip_id'][0]!r}",
                COMPARE,
            )
    columns = ("trip_id", "stop_sequence", "stop_id", "arrival_time_s", "departure_time_s")
    for trip, sequence, stop, arrival, departure in numbered.select(columns).iter_rows():
        if sequence is not None and stop is not None:
            found[trip].calls[sequence] = Call(stop, arrival, departure)
    return found


def _seconds(name: str) -> pl.Expr:
    """Return a time of day, hours beyond 24 included, as seconds; null where it is none."""
    parts = pl.col(name).str.extract_groups(r"^(\d{1,3}):(\d{2}):(\d{2})$")
    hours, minutes, seconds = (parts.struct.field(str(number)).cast(pl.Int64) for number in (1, 2, 3))
    return hours * 3600 + minutes * 60 + seconds
