"""The recorded weather and departures as APIs of their own, with a clock that runs as fast as one likes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from forecastle.console import OUT
from forecastle.data.replay import load_nyc_flights, load_nyc_weather, replay_app
from forecastle.frame import iso
from forecastle.serving.server import listen, serve


def running_clock(start: datetime, speed: float) -> Callable[[], datetime]:
    """Return a clock that shows ``start`` now and from then on runs ``speed`` times as fast as time."""
    began = time.monotonic()
    return lambda: start + timedelta(seconds=speed * (time.monotonic() - began))


def replay_forever(start: datetime, speed: float, host: str, port: int) -> None:
    """Serve the recorded weather as Open-Meteo would, and departures, until stopped.

    Raises SettingsError where the port is taken.
    """
    app = replay_app(load_nyc_weather(), running_clock(start, speed), flights=load_nyc_flights)
    with listen(host, port) as (socket, address):
        OUT.print(f"Replaying from {iso(start)}, {speed:g} simulated seconds a second, at {address}")
        OUT.print(
            f"Point tasks at it: FORECASTLE_OPEN_METEO_URL={address} FORECASTLE_OPEN_METEO_ARCHIVE_URL={address} "
            f"FORECASTLE_DEPARTURES_URL={address}",
            soft_wrap=True,
        )
        OUT.print("Give every command --now, such as the time above: a task that is replayed acts in its past.")
        serve(app, socket)
