"""What can be wrong with an answer of Open-Meteo's layout, on purpose: for the demo's bad hour and for tests.

A fault takes the blocks a healthy answer would hold, an object a place, and returns the answer sent instead. FAULTS
says of each what must catch it: a check of the gate and what becomes of the batch, or the error that refuses the
answer. docs/quality-gate.md shows the same table, and the tests hold all three together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from starlette.responses import JSONResponse, Response

Block = dict[str, Any]
Fault = str
Answer = Callable[[list[Block]], Response]
Becomes = str  # warn, mask, withhold (a series), fail (the batch); or the exit code an error ends with

_LOST_HOURS = (1, 4, 7)  # of every ten: 30 %


@dataclass(frozen=True)
class Injected:
    """A fault: what makes the answer, what it is in words, what catches it, and what becomes of the batch."""

    answer: Answer
    what: str
    caught: str
    becomes: Becomes


def wire(blocks: list[Block]) -> Response:
    """Return the healthy answer: an object for one place, a list for several."""
    return JSONResponse(blocks[0] if len(blocks) == 1 else blocks)


def in_the_sun(blocks: list[Block], since: datetime, timezone: str, kelvin: float) -> Response:
    """Send the first place's target as a sensor measures it that stands in the sun since a time: warmer by ``kelvin``
    times the sine of the local day, from six in the morning to six in the evening.

    No check of the gate is to find it, for every value may as well be true: its forecasts' errors tell.
    """
    block, zone = blocks[0], ZoneInfo(timezone)
    values, offset = block["hourly"][_first_variable(block)], timedelta(seconds=block["utc_offset_seconds"])
    for at, text in enumerate(block["hourly"]["time"]):
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC) - offset
        if moment >= since and values[at] is not None:
            local = moment.astimezone(zone)
            height = math.sin(2 * math.pi * (local.hour + local.minute / 60 - 6) / 24)
            values[at] = round(values[at] + kelvin * max(0.0, height), 1)
    return wire(blocks)


def error_body(status: int, reason: str) -> Response:
    """Return the API's own error answer."""
    return JSONResponse({"error": True, "reason": reason}, status)


def _page(blocks: list[Block]) -> Response:
    page = "<!DOCTYPE html><html><body>We are down for maintenance.</body></html>"
    return Response(page, media_type="text/html")


def _empty(blocks: list[Block]) -> Response:
    return Response(b"", media_type="application/json")


def _truncated(blocks: list[Block]) -> Response:
    body = bytes(wire(blocks).body)
    return Response(body[: 2 * len(body) // 3], media_type="application/json")


def _binary(blocks: list[Block]) -> Response:
    return Response(b"\x1f\x8b\x08\x00\xff\xfe\x00\x00", media_type="application/json")


def _limit(blocks: list[Block]) -> Response:
    return error_body(429, "Minutely API request limit exceeded. Please try again in one minute.")


def _limit_with_200(blocks: list[Block]) -> Response:
    return error_body(200, "Daily API request limit exceeded. Please try again tomorrow.")


def _error_with_200(blocks: list[Block]) -> Response:
    return error_body(200, "Cannot initialize WeatherVariable from invalid String value temperature")


def _down(blocks: list[Block]) -> Response:
    page = "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>"
    return Response(page, 503, media_type="text/html")


def _no_list(blocks: list[Block]) -> Response:
    return JSONResponse([])


def _place_left_out(blocks: list[Block]) -> Response:
    return JSONResponse(blocks[:-1])


def _without(blocks: list[Block], *path: str) -> Response:
    for block in blocks:
        holder = block
        for name in path[:-1]:
            holder = holder[name]
        holder.pop(path[-1])
    return wire(blocks)


def _unequal(blocks: list[Block]) -> Response:
    blocks[0]["hourly"][_first_variable(blocks[0])].pop()
    return wire(blocks)


def _strange_unit(blocks: list[Block]) -> Response:
    blocks[0]["hourly_units"][_first_variable(blocks[0])] = "°Ré"
    return wire(blocks)


def _text(blocks: list[Block]) -> Response:
    blocks[0]["hourly"][_first_variable(blocks[0])][_last(blocks[0])] = "n/a"
    return wire(blocks)


def _epochs(blocks: list[Block]) -> Response:
    for block in blocks:
        block["hourly"]["time"] = [1_360_000_000 + 3600 * at for at in range(len(block["hourly"]["time"]))]
    return wire(blocks)


def _of_another_year(blocks: list[Block]) -> Response:
    for block in blocks:
        block["hourly"]["time"] = [f"1999{time[4:]}" for time in block["hourly"]["time"]]
    return wire(blocks)


def _nothing(blocks: list[Block]) -> Response:
    for block in blocks:
        _lose(block, range(len(block["hourly"]["time"])))
    return wire(blocks)


def _nulls(blocks: list[Block]) -> Response:
    for block in blocks:
        values = block["hourly"][_first_variable(block)]
        values[:] = [None if at % 10 in _LOST_HOURS else value for at, value in enumerate(values)]
    return wire(blocks)


def _nulls_at_one_place(blocks: list[Block]) -> Response:
    _nulls(blocks[:1])
    return wire(blocks)


def _nan(blocks: list[Block]) -> Response:
    """Send NaN, which is no JSON, but which some servers write and some parsers read."""
    for block in blocks:
        _put(block, _first_variable(block), _back(block, 9, 12), float("nan"))
    return _loose(blocks)


def _infinite(blocks: list[Block]) -> Response:
    _put(blocks[0], _first_variable(blocks[0]), _back(blocks[0], 3, 4), float("inf"))
    return _loose(blocks)


def _infinite_for_hours(blocks: list[Block]) -> Response:
    _put(blocks[0], _first_variable(blocks[0]), _back(blocks[0], 3, 9), float("inf"))
    return _loose(blocks)


def _gust(blocks: list[Block]) -> Response:
    _put(blocks[0], "wind_speed_10m", _back(blocks[0], 3, 4), 468.66)
    return wire(blocks)


def _sentinel(blocks: list[Block]) -> Response:
    _put(blocks[0], _first_variable(blocks[0]), _back(blocks[0], 3, 9), -999.9)
    return wire(blocks)


def _scaled(name: str, factor: float, shift: float = 0.0, places: slice = slice(None)) -> Callable[..., Response]:
    """Send a variable in another unit under the label of the agreed one."""

    def answer(blocks: list[Block]) -> Response:
        for block in blocks[places]:
            values = block["hourly"][name]
            values[:] = [None if value is None else round(factor * value + shift, 2) for value in values]
        return wire(blocks)

    return answer


def _lost(first: int, last: int, places: slice = slice(None)) -> Callable[[list[Block]], Response]:
    """Send no value of any variable from ``first`` (inclusive) to ``last`` (exclusive) hours before the newest."""

    def answer(blocks: list[Block]) -> Response:
        for block in blocks[places]:
            _lose(block, _back(block, first, last))
        return wire(blocks)

    return answer


def _every_other_hour(blocks: list[Block]) -> Response:
    for block in blocks:
        _lose(block, range(_last(block) - 1, -1, -2))
    return wire(blocks)


def _half_past(blocks: list[Block]) -> Response:
    for block in blocks:
        block["hourly"]["time"] = [f"{time[:-2]}30" for time in block["hourly"]["time"]]
    return wire(blocks)


def _quarters(blocks: list[Block]) -> Response:
    """Send four rows an hour of the first place, each with the hour's values."""
    hourly = blocks[0]["hourly"]
    hourly["time"] = [f"{time[:-2]}{minute}" for time in hourly["time"] for minute in ("00", "15", "30", "45")]
    for name in (name for name in hourly if name != "time"):
        hourly[name] = [value for value in hourly[name] for _ in range(4)]
    return wire(blocks)


def _repeated(blocks: list[Block]) -> Response:
    at = _last(blocks[0]) - 4
    for values in blocks[0]["hourly"].values():
        values.insert(at, values[at])
    return wire(blocks)


def _two_values(places: slice = slice(None)) -> Callable[[list[Block]], Response]:
    def answer(blocks: list[Block]) -> Response:
        for block in blocks[places]:
            at = _last(block) - 4
            for name, values in block["hourly"].items():
                values.insert(at, values[at] + 1 if name == _first_variable(block) else values[at])
        return wire(blocks)

    return answer


def _jumbled(blocks: list[Block]) -> Response:
    at = _last(blocks[0]) - 4
    for values in blocks[0]["hourly"].values():
        values[at], values[at - 9] = values[at - 9], values[at]
    return wire(blocks)


def _stuck(blocks: list[Block]) -> Response:
    name = _first_variable(blocks[0])
    _put(blocks[0], name, _back(blocks[0], 0, 16), blocks[0]["hourly"][name][_last(blocks[0]) - 16])
    return wire(blocks)


_ONE = slice(1)

FAULTS: dict[Fault, Injected] = {
    "html": Injected(_page, "a page for people, with status 200", "AnswerChanged", "exit 3"),
    "empty": Injected(_empty, "nothing, with status 200", "SourceUnavailable", "exit 4"),
    "truncated": Injected(_truncated, "JSON that ends in the middle", "AnswerChanged", "exit 3"),
    "binary": Injected(_binary, "compressed bytes that nobody unpacked", "AnswerChanged", "exit 3"),
    "429": Injected(_limit, "the limit is spent", "SourceUnavailable", "exit 4"),
    "429-as-200": Injected(_limit_with_200, "the limit is spent, with status 200", "SourceUnavailable", "exit 4"),
    "error-as-200": Injected(_error_with_200, "the API's error body, with status 200", "AnswerChanged", "exit 3"),
    "503": Injected(_down, "a gateway whose service is gone", "SourceUnavailable", "exit 4"),
    "no-list": Injected(_no_list, "an empty list", "SourceUnavailable", "exit 4"),
    "place-left-out": Injected(_place_left_out, "one place fewer than asked for", "AnswerChanged", "exit 3"),
    "no-variable": Injected(
        lambda blocks: _without(blocks, "hourly", "temperature_2m"), "a variable is gone", "AnswerChanged", "exit 3"
    ),
    "no-units": Injected(
        lambda blocks: _without(blocks, "hourly_units"), "no units are told", "AnswerChanged", "exit 3"
    ),
    "no-offset": Injected(
        lambda blocks: _without(blocks, "utc_offset_seconds"), "no time zone is told", "AnswerChanged", "exit 3"
    ),
    "unequal": Injected(_unequal, "one value fewer than times", "AnswerChanged", "exit 3"),
    "unit": Injected(_strange_unit, "a unit nobody agreed on", "AnswerChanged", "exit 3"),
    "text": Injected(_text, "text for a number", "AnswerChanged", "exit 3"),
    "epochs": Injected(_epochs, "times as seconds since 1970", "AnswerChanged", "exit 3"),
    "old": Injected(_of_another_year, "the answer of another year", "NothingThere", "exit 4"),
    "nothing": Injected(_nothing, "no hour has a value", "NothingThere", "exit 4"),
    "nulls": Injected(_nulls, "30 % of the target is null, at every place", "null-share", "fail"),
    "nulls-at-one-place": Injected(_nulls_at_one_place, "30 % of the target is null, at one", "null-share", "withhold"),
    "nan": Injected(_nan, "NaN for three hours, at every place", "null-share", "fail"),
    "infinite": Injected(_infinite, "1e999 in one hour", "finite", "mask"),
    "infinite-for-hours": Injected(_infinite_for_hours, "1e999 for six hours, at one place", "finite", "withhold"),
    "gust": Injected(_gust, "a wind of 1 048 miles an hour", "range", "mask"),
    "sentinel": Injected(_sentinel, "-999.9 for six hours, at one place", "range", "withhold"),
    "kelvin": Injected(_scaled("temperature_2m", 1, 273.15), "the target in kelvin, as °C", "range", "fail"),
    "kilopascal": Injected(_scaled("pressure_msl", 0.1), "pressure in kPa, as hPa", "range", "fail"),
    "stale": Injected(_lost(0, 8), "the newest eight hours are missing, everywhere", "freshness", "fail"),
    "silent-place": Injected(_lost(0, 8, _ONE), "the newest eight hours are missing, at one", "freshness", "warn"),
    "every-other-hour": Injected(_every_other_hour, "every other hour is missing", "volume", "fail"),
    "place-gone": Injected(_lost(-99, 999, _ONE), "one place has no values at all", "volume", "warn"),
    "absent-hour": Injected(_lost(5, 6), "an hour is missing", "gaps", "warn"),
    "outage": Injected(_lost(5, 13), "eight hours are missing, everywhere", "gaps", "fail"),
    "outage-at-one-place": Injected(_lost(5, 13, _ONE), "eight hours are missing, at one place", "gaps", "warn"),
    "half-past": Injected(_half_past, "hours that begin at half past", "cadence", "fail"),
    "quarters": Injected(_quarters, "four rows an hour, at one place", "cadence", "withhold"),
    "repeated": Injected(_repeated, "an hour twice, with the same values", "duplicates", "warn"),
    "two-values-at-one-place": Injected(_two_values(_ONE), "an hour with two values, at one", "duplicates", "withhold"),
    "two-values": Injected(_two_values(), "an hour with two values, at every place", "duplicates", "fail"),
    "jumbled": Injected(_jumbled, "two hours that changed places", "time-order", "warn"),
    "stuck": Injected(_stuck, "a thermometer that stands still, at one place", "flatline", "warn"),
    "fahrenheit": Injected(_scaled("temperature_2m", 1.8, 32), "the target in °F, as °C", "unit-jump", "fail"),
    "fahrenheit-at-one-place": Injected(
        _scaled("temperature_2m", 1.8, 32, _ONE), "the same, at one place", "unit-jump", "withhold"
    ),
    "km/h": Injected(_scaled("wind_speed_10m", 3.6), "wind in km/h, as m/s", "unit-jump", "fail"),
    "knots": Injected(_scaled("wind_speed_10m", 1.944), "wind in knots, as m/s", "unit-jump", "fail"),
    "fraction": Injected(_scaled("relative_humidity_2m", 0.01), "humidity from 0 to 1, as %", "unit-jump", "fail"),
    "station-pressure": Injected(
        _scaled("pressure_msl", 1, -30), "pressure at the station's height, not at the sea's", "unit-jump", "fail"
    ),
}


def _first_variable(block: Block) -> str:
    name: str = next(name for name in block["hourly"] if name != "time")
    return name


def _last(block: Block) -> int:
    """Return the place of the newest hour that has a value."""
    values = block["hourly"][_first_variable(block)]
    return max((at for at, value in enumerate(values) if value is not None), default=0)


def _back(block: Block, first: int, last: int) -> range:
    """Return the places of the hours from ``first`` (inclusive) to ``last`` (exclusive) before the newest."""
    newest = _last(block)
    return range(max(newest - last + 1, 0), min(newest - first + 1, len(block["hourly"]["time"])))


def _put(block: Block, name: str, places: Iterable[int], value: float) -> None:
    for at in places:
        block["hourly"][name][at] = value


def _lose(block: Block, places: Iterable[int]) -> None:
    places = list(places)
    for name in (name for name in block["hourly"] if name != "time"):
        for at in places:
            block["hourly"][name][at] = None


def _loose(blocks: list[Block]) -> Response:
    """Return an answer with numbers that JSON does not have."""
    return Response(json.dumps(blocks).replace("Infinity", "1e999"), media_type="application/json")
