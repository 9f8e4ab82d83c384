"""Open-Meteo: hourly weather and air quality of many places in one call, without a key
(https://open-meteo.com/en/docs).

The last days come from ``/v1/forecast`` with ``past_days``, older ones from ``/v1/archive``, a quarter a call. Columns
of air quality (https://open-meteo.com/en/docs/air-quality-api) come from a host of their own, recent and older ones
alike, and join those of the weather by place and hour. All answer the same layout: one object a place, a list of them
for several. Times carry no zone; they are local to ``utc_offset_seconds``. An hour in which every one of several asked
values is null is one the source does not have: it is no observation, and the gate counts it as absent. With a single
column that cannot be told from a missing value, so it is kept as one, up to the last hour that has a value: the hours
after it have not come yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn

import polars as pl

from forecastle.data.providers.answers import read_json, spelling
from forecastle.data.providers.pieces import months
from forecastle.errors import AnswerChanged, SourceUnavailable
from forecastle.frame import KEYS, SERIES, TIME, TIMESTAMP
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import DAY, Series, Task, nearest

RECENT = timedelta(days=90)
"""How far back ``/v1/forecast`` is asked for; the API allows 92 days."""

PLACES_PER_CALL = 100

MOST_DAYS, MOST_AIR_DAYS = 16, 7
"""How many days from today the two APIs forecast."""

AIR_QUALITY = frozenset(
    ["pm10", "pm2_5", "carbon_monoxide", "carbon_dioxide", "nitrogen_dioxide", "sulphur_dioxide", "ozone"]
    + ["aerosol_optical_depth", "dust", "ammonia", "methane", "nitrogen_monoxide", "formaldehyde", "glyoxal"]
    + ["non_methane_volatile_organic_compounds", "pm10_wildfires", "peroxyacyl_nitrates", "sea_salt_aerosol"]
    + [
        "secondary_inorganic_aerosol",
        "residential_elementary_carbon",
        "total_elementary_carbon",
        "pm2_5_total_organic_matter",
    ]
    + [f"{plant}_pollen" for plant in ("alder", "birch", "grass", "mugwort", "olive", "ragweed")]
)
"""The columns that are air quality, beside those that begin with ``european_aqi`` or ``us_aqi``."""

_AIR_PATH = "/v1/air-quality"

UNITS = frozenset(
    [
        "°C",
        "%",
        "m/s",
        "hPa",
        "kPa",
        "mm",
        "cm",
        "m",
        "°",
        "W/m²",
        "MJ/m²",
        "J/kg",
        "μg/m³",
        "grains/m³",
        "EAQI",
        "USAQI",
    ]
    + ["m³/m³", "wmo code", "s", ""]
)
"""The units Open-Meteo answers in when it is asked for SI; a unit outside is one it did not have before."""

_HOURLY = "%Y-%m-%dT%H:%M"
_COMPARE = "The answer is archived; compare it with https://open-meteo.com/en/docs."


def requests(task: Task, settings: Settings, start: datetime, end: datetime, now: datetime) -> tuple[Request, ...]:
    """Return the calls whose answers hold every hour from start to end, as far as there is a past at ``now``.

    Days are asked for whole (UTC), and no day is asked for in two calls of one place.
    """
    today = now.astimezone(UTC).date()
    first, last = start.astimezone(UTC).date(), min(end, now).astimezone(UTC).date()
    turn = max(first, today - RECENT)
    weather, air = f"{settings.open_meteo_url}/v1/forecast", f"{settings.open_meteo_air_quality_url}{_AIR_PATH}"
    calls = []
    for recent, older in ((weather, f"{settings.open_meteo_archive_url}/v1/archive"), (air, air)):
        calls += [
            Request(older, {**asked, "start_date": begin.isoformat(), "end_date": finish.isoformat()})
            for begin, finish in _quarters(first, min(last, turn - DAY))
            for asked in _asked(task, older)
        ]
        if last >= turn:
            days = {"past_days": str((today - turn).days), "forecast_days": str(_days_ahead(task, recent))}
            calls += [Request(recent, {**asked, **days}) for asked in _asked(task, recent)]
    return tuple(calls)


def parse(task: Task, request: Request, body: bytes) -> pl.DataFrame:
    """Return the observations of one answer.

    Raises AnswerChanged for what is not the agreed layout (HTML, an error body, another number of places, unequal
    arrays, text for numbers, another unit than the task's), SourceUnavailable for an empty answer or a spent limit.
    """
    answer = read_json(request, body)
    if answer == []:
        raise SourceUnavailable(f"an answer from {request.source}", "an empty list", "Ask again later.")
    blocks = answer if isinstance(answer, list) else [answer]
    for block in blocks:
        if isinstance(block, dict) and block.get("error"):
            _refuse(request, str(block.get("reason", "no reason given")))
    series = _series_asked(task, request)
    if len(blocks) != len(series):
        places = ", ".join(one.id for one in series)
        raise AnswerChanged(f"{len(series)} places ({places})", f"{len(blocks)} in the answer", _COMPARE)
    names = _columns(task, request.url)
    table = pl.concat([_observations(task, one.id, names, block) for one, block in zip(series, blocks, strict=True)])
    if table.is_empty():
        raise SourceUnavailable(f"hours of weather from {request.source}", "none", "Ask again later.")
    some = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    last = pl.col(TIMESTAMP).filter(some).max().over(SERIES)
    told = table.filter(some if len(names) > 1 else pl.col(TIMESTAMP) <= last)
    nothing = [pl.lit(None, dtype=pl.Float64).alias(name) for name in task.columns if name not in names]
    return told.with_columns(nothing).select(SERIES, TIMESTAMP, *task.columns)


def join(task: Task, tables: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
    """Return the hours with their weather and their air quality in one row; what one of them lacks is missing."""
    air = [name for name in task.columns if _is_air_quality(name)]
    weather = [name for name in task.columns if name not in air]
    if not air or not weather or not tables:
        return tables
    told = pl.concat(tables)
    parts = [
        told.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names)).select(*KEYS, *names)
        for names in (weather, air)
    ]
    return [parts[0].join(parts[1], on=KEYS, how="full", coalesce=True).select(told.columns)]


def cost(request: Request) -> int:
    """Return how many calls one counts for: a call for each place, more for over ten columns or over two weeks."""
    asked = request.params
    columns, places = len(asked["hourly"].split(",")), len(asked["latitude"].split(","))
    if "start_date" in asked:
        days = (date.fromisoformat(asked["end_date"]) - date.fromisoformat(asked["start_date"])).days + 1
    else:
        days = int(asked["past_days"]) + int(asked["forecast_days"])
    return math.ceil(max(columns / 10, 1.0) * max(days / 14, 1.0) * places)


def pieces(start: datetime, end: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut a past into quarters of the year for the archive, and what the forecast API still holds, in one."""
    turn = (now - RECENT).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yield from months(start, min(end, turn), length=3)
    if end > turn:
        yield max(start, turn), end


def _days_ahead(task: Task, url: str) -> int:
    """Return how many days from today an address is asked for: today, and where forecasts of one of its columns are
    used those that the task forecasts, as far as the API does."""
    if not any(task.columns[name].ahead for name in _columns(task, url)):
        return 1
    return min(1 - (-task.horizon // DAY), MOST_AIR_DAYS if url.endswith(_AIR_PATH) else MOST_DAYS)


def _is_air_quality(name: str) -> bool:
    return name in AIR_QUALITY or name.startswith(("european_aqi", "us_aqi"))


def _columns(task: Task, url: str) -> list[str]:
    """Return the task's columns that an address answers."""
    return [name for name in task.columns if _is_air_quality(name) == url.endswith(_AIR_PATH)]


def _asked(task: Task, url: str) -> Iterator[dict[str, str]]:
    """Yield the parameters every call has, for as many places as one call may ask for; none where no column is
    asked."""
    names = _columns(task, url)
    for places in _calls(task) if names else ():
        yield {
            **_coordinates(places),
            "hourly": ",".join(names),
            "timezone": "GMT",
            **({} if url.endswith(_AIR_PATH) else {"wind_speed_unit": "ms"}),
        }


def _calls(task: Task) -> list[tuple[Series, ...]]:
    return [task.series[at : at + PLACES_PER_CALL] for at in range(0, len(task.series), PLACES_PER_CALL)]


def _coordinates(places: Iterable[Series]) -> dict[str, str]:
    places = tuple(places)
    return {
        "latitude": ",".join(f"{one.latitude}" for one in places),
        "longitude": ",".join(f"{one.longitude}" for one in places),
    }


def _series_asked(task: Task, request: Request) -> tuple[Series, ...]:
    """Return the series a call asked for, in the order in which the answer lists them."""
    for places in _calls(task):
        if _coordinates(places).items() <= request.params.items():
            return places
    raise AnswerChanged(
        f"a call for places of task {task.name!r}", request.address, "Collect again; the task's places have changed."
    )


def _quarters(first: date, last: date) -> Iterator[tuple[date, date]]:
    """Yield the days from first to last (both included) as pieces that end with a quarter of the year."""
    while first <= last:
        month = 3 * ((first.month - 1) // 3) + 4
        following = date(first.year + month // 13, (month - 1) % 12 + 1, 1)
        yield first, min(last, following - DAY)
        first = following


def _refuse(request: Request, reason: str) -> NoReturn:
    if "limit exceeded" in reason.casefold():
        raise SourceUnavailable(f"weather from {request.source}", reason, "Ask again when the limit allows it.")
    raise AnswerChanged(f"weather from {request.source}", f"an error: {reason}", "Mend what the reason names.")


def _observations(task: Task, series_id: str, names: list[str], block: Any) -> pl.DataFrame:
    """Return one place's hours, every agreed part of the layout checked."""
    hourly, units, offset = (
        block.get(key) if isinstance(block, dict) else None for key in ("hourly", "hourly_units", "utc_offset_seconds")
    )
    if not isinstance(hourly, dict) or not isinstance(units, dict) or type(offset) is not int:
        there = ", ".join(block) if isinstance(block, dict) else type(block).__name__
        raise AnswerChanged(
            f"hourly, hourly_units and utc_offset_seconds for series {series_id}", there or "an empty object", _COMPARE
        )
    _check_arrays(names, series_id, hourly)
    _check_units(task, names, series_id, units)
    times = _times(series_id, hourly["time"], offset)
    values = [_numbers(series_id, name, hourly["time"], hourly[name]) for name in names]
    return pl.DataFrame([times, *values]).select(pl.lit(series_id).alias(SERIES), pl.all())


def _check_arrays(names: list[str], series_id: str, hourly: dict[str, Any]) -> None:
    for name in ("time", *names):
        if not isinstance(hourly.get(name), list):
            raise AnswerChanged(
                f"an array {name!r} for series {series_id}", f"{', '.join(hourly)}{nearest(name, hourly)}", _COMPARE
            )
    steps = len(hourly["time"])
    for name in names:
        if len(hourly[name]) != steps:
            raise AnswerChanged(
                f"arrays of one length for series {series_id}",
                f"{steps} times but {len(hourly[name])} values of {name}"
                + (f", from {hourly['time'][0]}" if steps else ""),
                _COMPARE,
            )


def _check_units(task: Task, names: list[str], series_id: str, units: dict[str, Any]) -> None:
    for name in names:
        column = task.columns[name]
        unit = spelling(units.get(name))
        if unit == spelling(column.unit):
            continue
        strange = "" if unit in {spelling(known) for known in UNITS} else ", a unit it did not have before"
        raise AnswerChanged(
            f"{name} of series {series_id} in {column.unit!r}, as the task says",
            f"{units.get(name)!r}{strange}",
            f"If the source's unit is right, write it as unit in [columns.{name}] of the task file.",
        )


def _times(series_id: str, texts: list[Any], offset: int) -> pl.Series:
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    times = pl.Series(TIMESTAMP, [] if wrong is not None else texts, dtype=pl.String)
    moments = times.str.to_datetime(_HOURLY, time_unit="us", strict=False)
    if wrong is None and moments.null_count():
        wrong = times.filter(moments.is_null())[0]
    if wrong is not None:
        raise AnswerChanged(f"times such as 2013-01-31T06:00 for series {series_id}", f"{wrong!r}", _COMPARE)
    return (moments - timedelta(seconds=offset)).dt.replace_time_zone("UTC").cast(TIME)


def _numbers(series_id: str, name: str, times: list[Any], values: list[Any]) -> pl.Series:
    for time, value in zip(times, values, strict=True):
        if type(value) not in (float, int, type(None)):
            raise AnswerChanged(f"numbers in {name} of series {series_id}", f"{value!r} at {time}", _COMPARE)
    return pl.Series(name, [None if value != value else value for value in values], dtype=pl.Float64, strict=False)
