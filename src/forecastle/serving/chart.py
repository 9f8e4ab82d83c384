"""The picture of one series, drawn as SVG: what was measured, what was forecast, and what had been forecast.

The drawing is fluid without scripts: times are percentages of the width, values are pixels of a fixed height, and the
lines lie in an inner picture that stretches. Colours, dashes and light or dark come from the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

HEIGHT = 252
TOP, BOTTOM = 22, 206
WIDTH = 1000
EDGE = 0.94  # a day's name beyond that share of the width ends where it stands
FEW_TICKS = 5  # as many are named where there is little room, too

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_INTRADAY = tuple(_MINUTE * step for step in (1, 2, 5, 10, 15, 30)) + tuple(_HOUR * step for step in (1, 2, 3, 6, 12))
_DAYS = (1, 2, 7, 14, 28, 56, 91, 182, 364)

Point = tuple[datetime, float | None]
Interval = tuple[datetime, float | None, float | None]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it stands, what it says, and whether it opens a day."""

    at: datetime
    text: str
    day: bool


@dataclass(frozen=True)
class Drawing:
    """What is drawn for one series; times are UTC and ascending, a missing value is None.

    ``observed`` is what was measured. ``forecast`` (with ``band``) is what is expected; its first point may be the
    origin. ``promised`` (with ``promised_band``) is what had been forecast for times that have come, ``missed`` the
    observations that fell outside their interval.
    """

    title: str
    description: str
    zone: ZoneInfo
    unit: str
    step: timedelta
    now: datetime
    start: datetime
    end: datetime
    observed: Sequence[Point]
    forecast: Sequence[Point] = ()
    band: Sequence[Interval] = ()
    promised: Sequence[Point] = ()
    promised_band: Sequence[Interval] = ()
    missed: Sequence[Point] = ()
    most_ticks: int = 9


def draw(drawing: Drawing, name: str) -> Markup:
    """Return the drawing as one ``<svg>`` element; ``name`` makes the ids of its title and description unique."""
    low, high = _extent(drawing)
    margin = (high - low) * 0.06 or abs(low) * 0.05 or 1.0
    low, high = low - margin, high + margin
    values = [value for value in value_ticks(low, high) if low <= value <= high]
    canvas = _Canvas(drawing.start, drawing.end, low, high)
    parts = [
        f'<svg class="chart" width="100%" height="{HEIGHT}" role="img" aria-labelledby="{name}-title {name}-desc">',
        f'<title id="{name}-title">{escape(drawing.title)}</title>',
        f'<desc id="{name}-desc">{escape(drawing.description)}</desc>',
        *_axes(drawing, canvas, values),
        f'<svg class="plot" width="100%" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">',
        *_bands(canvas, drawing.promised_band, drawing.step, "band past"),
        *_bands(canvas, drawing.band, drawing.step, "band"),
        *_lines(canvas, drawing.promised, drawing.step, "line past"),
        *_lines(canvas, drawing.observed, drawing.step, "line observed"),
        *_lines(canvas, drawing.forecast, drawing.step, "line forecast"),
        "</svg>",
        *_marks(drawing, canvas),
        "</svg>",
    ]
    return Markup("".join(parts))


def value_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose low to high."""
    if not high > low:
        margin = abs(low) * 0.05 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / wanted
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, 2 - math.floor(math.log10(step)))
    return [round(index * step, decimals) for index in range(first, last + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Return the ticks as text with the same number of decimals, just enough to tell them apart."""
    step = min((after - before for before, after in pairwise(values)), default=1.0)
    decimals = next((count for count in range(6) if math.isclose(step * 10**count, round(step * 10**count))), 6)
    return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]


def time_ticks(
    start: datetime, end: datetime, zone: ZoneInfo, wanted: int = 9, finest: timedelta = timedelta(0)
) -> list[Tick]:
    """Return at most ``wanted`` marks at round local times of the zone; every local midnight among them is a day.

    Marks are not closer than ``finest``.

    Around a change of daylight saving the marks keep their local clock, so their distance varies by that hour.
    """
    seconds = max((end - start).total_seconds(), 1.0)
    fine = (step for step in _INTRADAY if step >= finest.total_seconds() and seconds / step <= wanted)
    step = next(fine, None)
    days = 1 if step else next((days for days in _DAYS if seconds / _DAY / days <= wanted), _DAYS[-1])
    day = start.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if days > 1:
        day -= timedelta(days=day.toordinal() % days)
    ticks: list[Tick] = []
    while day.replace(tzinfo=zone) <= end:
        for second in range(0, _DAY, step or _DAY):
            local = (day + timedelta(seconds=second)).replace(tzinfo=zone)
            moment = local.astimezone(UTC)
            if start <= moment <= end and (not ticks or moment > ticks[-1].at):
                ticks.append(Tick(moment, f"{local:%H:%M}" if step else f"{local.day} {local:%b}", not second))
        day += timedelta(days=days)
    return ticks


def runs(points: Sequence[Point], step: timedelta) -> list[list[tuple[datetime, float]]]:
    """Split points where a value is missing or a step was left out, so that a gap in the data stays a gap."""
    pieces: list[list[tuple[datetime, float]]] = []
    open_piece = False
    for moment, value in points:
        if value is None or not math.isfinite(value):
            open_piece = False
            continue
        if not open_piece or moment - pieces[-1][-1][0] > 1.5 * step:
            pieces.append([])
        pieces[-1].append((moment, value))
        open_piece = True
    return pieces


@dataclass(frozen=True)
class _Canvas:
    start: datetime
    end: datetime
    low: float
    high: float

    def share(self, moment: datetime) -> float:
        return (moment - self.start) / max(self.end - self.start, timedelta(seconds=1))

    def x(self, moment: datetime) -> str:
        return f"{WIDTH * self.share(moment):.1f}"

    def percent(self, moment: datetime) -> str:
        return f"{100 * self.share(moment):.2f}%"

    def y(self, value: float) -> str:
        return f"{BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low):.1f}"


def _extent(drawing: Drawing) -> tuple[float, float]:
    lines = (drawing.observed, drawing.forecast, drawing.promised)
    numbers = [value for line in lines for _, value in line]
    numbers += [edge for band in (drawing.band, drawing.promised_band) for _, *edges in band for edge in edges]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    if not finite:
        return 0.0, 1.0
    return min(finite), max(finite)


def _axes(drawing: Drawing, canvas: _Canvas, values: Sequence[float]) -> Iterable[str]:
    yield '<g class="axis" aria-hidden="true">'
    for value, text in zip(values, tick_texts(values), strict=True):
        yield f'<line class="grid" x1="0" x2="100%" y1="{canvas.y(value)}" y2="{canvas.y(value)}"/>'
        yield f'<text class="value" x="-8" y="{canvas.y(value)}" dy="0.32em">{text}</text>'
    ticks = time_ticks(drawing.start, drawing.end, drawing.zone, drawing.most_ticks, drawing.step)
    hours = any(not tick.day for tick in ticks)
    first_day = next((number for number, tick in enumerate(ticks) if tick.day), 0)
    for number, tick in enumerate(ticks):
        at, opens_day = canvas.percent(tick.at), hours and tick.day
        odd = " odd" if (number - first_day) % 2 and len(ticks) > FEW_TICKS else ""
        kind, top = ("tick day", TOP) if opens_day else ("tick", BOTTOM)
        yield f'<line class="{kind}" x1="{at}" x2="{at}" y1="{top}" y2="{BOTTOM + 5}"/>'
        yield f'<text class="time{odd}" x="{at}" y="{BOTTOM + 19}">{tick.text}</text>'
        if opens_day:
            local = tick.at.astimezone(drawing.zone)
            edge = " edge" if canvas.share(tick.at) > EDGE else ""
            yield f'<text class="day{edge}" x="{at}" y="{BOTTOM + 36}">{local:%a} {local.day} {local:%b}</text>'
    yield f'<text class="value unit" x="-8" y="{TOP - 13}">{escape(drawing.unit)}</text>'
    yield f'<line class="base" x1="0" x2="100%" y1="{BOTTOM}" y2="{BOTTOM}"/></g>'


def _bands(canvas: _Canvas, band: Sequence[Interval], step: timedelta, kind: str) -> Iterable[str]:
    uppers = runs([(moment, upper if lower is not None else None) for moment, lower, upper in band], step)
    lowers = {moment: lower for moment, lower, _ in band}
    for piece in uppers:
        there = [f"{canvas.x(moment)},{canvas.y(upper)}" for moment, upper in piece]
        back = [f"{canvas.x(moment)},{canvas.y(lowers[moment] or 0.0)}" for moment, _ in reversed(piece)]
        yield f'<path class="{kind}" d="M{"L".join(there + back)}Z"/>'


def _lines(canvas: _Canvas, points: Sequence[Point], step: timedelta, kind: str) -> Iterable[str]:
    for piece in runs(points, step):
        if len(piece) == 1:  # a zero-length line with round ends is a dot that keeps its shape when stretched
            piece = piece * 2
        path = "L".join(f"{canvas.x(moment)},{canvas.y(value)}" for moment, value in piece)
        yield f'<path class="{kind}" d="M{path}"/>'


def _marks(drawing: Drawing, canvas: _Canvas) -> Iterable[str]:
    for moment, value in drawing.missed:
        if value is not None:
            yield f'<circle class="missed" cx="{canvas.percent(moment)}" cy="{canvas.y(value)}" r="3.5"/>'
    if drawing.start <= drawing.now <= drawing.end:
        at = canvas.percent(drawing.now)
        yield f'<line class="now" x1="{at}" x2="{at}" y1="{TOP}" y2="{BOTTOM}"/>'
        yield f'<text class="now" x="{at}" y="{TOP - 7}" aria-hidden="true">now</text>'
    for (moment, value), (_, lower, upper) in zip(drawing.forecast, drawing.band, strict=True):
        if value is None or moment <= drawing.now:
            continue
        local = moment.astimezone(drawing.zone)
        span = "" if lower is None or upper is None else f" ({_number(lower)} to {_number(upper)})"
        yield (
            f'<circle class="forecast" cx="{canvas.percent(moment)}" cy="{canvas.y(value)}" r="3.5">'
            f"<title>{local:%a %H:%M}: {_number(value)}{span}</title></circle>"
        )
    last = next(((moment, value) for moment, value in reversed(drawing.observed) if value is not None), None)
    if last is not None:
        local = last[0].astimezone(drawing.zone)
        yield (
            f'<circle class="observed" cx="{canvas.percent(last[0])}" cy="{canvas.y(last[1])}" r="4">'
            f"<title>{local:%a %H:%M}: {_number(last[1])} measured</title></circle>"
        )


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
