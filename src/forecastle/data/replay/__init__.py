"""Recorded data behind the wire format of live APIs, as of a clock that the caller holds.

``weather`` answers as Open-Meteo does, ``flights`` as an airport's board of departures might. A provider cannot tell
either from a live service: only the client's transport differs (or, with ``forecastle replay``, an address in the
settings).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import polars as pl
from starlette.applications import Starlette

from forecastle.data.faults import Answer, Fault
from forecastle.data.replay.flights import flight_routes, load_nyc_flights
from forecastle.data.replay.weather import AIRPORTS, VARIABLES, Location, load_nyc_weather, weather_routes

__all__ = ["AIRPORTS", "VARIABLES", "load_nyc_flights", "load_nyc_weather", "replay_app"]


def replay_app(
    weather: pl.DataFrame,
    now: Callable[[], datetime],
    locations: Mapping[str, Location] | None = None,
    faults: Callable[[], Fault | Answer | None] = lambda: None,
    forecast_values: bool = False,
    flights: Callable[[], pl.DataFrame] | None = None,
) -> Starlette:
    """Return an ASGI application that answers from recorded weather and, where there are any, recorded flights.

    Neither shows what lies after ``now()``. See ``weather_routes`` and ``flight_routes`` for the arguments; faults are
    the weather's.
    """
    routes = weather_routes(weather, now, locations, faults, forecast_values)
    return Starlette(routes=[*routes, *(() if flights is None else flight_routes(flights, now))])
