"""What can be wrong with an answer of Open-Meteo's layout, on purpose: for the demo's bad hour and for tests.

A fault takes the blocks a healthy answer would hold, an object a place, and returns the answer sent instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from starlette.responses import JSONResponse, Response

Block = dict[str, Any]
Fault = Literal["nulls", "html", "empty", "unequal", "unit", "429", "503"]

_LOST_HOURS = (1, 4, 7)  # of every ten: 30 %


def wire(blocks: list[Block]) -> Response:
    """Return the healthy answer: an object for one place, a list for several."""
    return JSONResponse(blocks[0] if len(blocks) == 1 else blocks)


def error_body(status: int, reason: str) -> Response:
    """Return the API's own error answer."""
    return JSONResponse({"error": True, "reason": reason}, status)


def nulls(blocks: list[Block]) -> Response:
    """Lose 30 % of the first asked variable, at every place."""
    for block in blocks:
        values = block["hourly"][_first_variable(block)]
        values[:] = [None if at % 10 in _LOST_HOURS else value for at, value in enumerate(values)]
    return wire(blocks)


def html(blocks: list[Block]) -> Response:
    """Answer a page for people, with status 200."""
    return Response("<!DOCTYPE html><html><body>We are down for maintenance.</body></html>", media_type="text/html")


def empty(blocks: list[Block]) -> Response:
    """Answer nothing, with status 200."""
    return Response(b"", media_type="application/json")


def unequal(blocks: list[Block]) -> Response:
    """Leave out the last value of the first variable of the first place."""
    blocks[0]["hourly"][_first_variable(blocks[0])].pop()
    return wire(blocks)


def unit(blocks: list[Block]) -> Response:
    """Answer the first variable of the first place in a unit nobody agreed on."""
    blocks[0]["hourly_units"][_first_variable(blocks[0])] = "°Ré"
    return wire(blocks)


def limit(blocks: list[Block]) -> Response:
    """Answer that too much was asked for."""
    return error_body(429, "Minutely API request limit exceeded. Please try again in one minute.")


def down(blocks: list[Block]) -> Response:
    """Answer as a gateway whose service is gone."""
    page = "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>"
    return Response(page, 503, media_type="text/html")


FAULTS: dict[Fault, Callable[[list[Block]], Response]] = {
    "nulls": nulls,
    "html": html,
    "empty": empty,
    "unequal": unequal,
    "unit": unit,
    "429": limit,
    "503": down,
}


def _first_variable(block: Block) -> str:
    name: str = next(name for name in block["hourly"] if name != "time")
    return name
