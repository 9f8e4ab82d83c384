"""Charts of facts as SVG without scripts: lines over a common axis with an optional band, and bars side by side.

Colours are classes of the page's style; a chart in a file of its own carries the few rules it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 22, 34
COLOURS = ("#0b6f88", "#c2571a", "#6a4fa3", "#2f7d4f", "#7b8794")
STYLE = (
    "text{font:11px 'DejaVu Sans',system-ui,sans-serif;fill:#55646f}.grid{stroke:#dfe5e8}.base{stroke:#aab6bd}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
)


@dataclass(frozen=True)
class Line:
    """A line of a chart: what it is, a value (or None: a gap) at each mark, and whether it is dashed."""

    name: str
    values: Sequence[float | None]
    dashed: bool = False


def lines(
    marks: Sequence[str],
    drawn: Sequence[Line],
    unit: str,
    band: Sequence[tuple[float | None, float | None]] = (),
    from_zero: bool = False,
    most_marks: int = 8,
) -> str:
    """Return lines over the marks of an axis, which are spread evenly; the band lies below all of them."""
    known = [value for line in drawn for value in line.values if value is not None]
    known += [edge for pair in band for edge in pair if edge is not None]
    scale = _Scale.of(known, from_zero)
    step = (WIDTH - LEFT - RIGHT) / max(len(marks) - 1, 1)
    at = [LEFT + step * number for number in range(len(marks))]
    every = max(1, math.ceil(len(marks) / most_marks))
    parts = [*_axis(scale, unit)]
    parts += [
        f'<text x="{at[number]:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(marks[number])}</text>'
        for number in range(0, len(marks), every)
    ]
    parts += _band(at, band, scale)
    for number, line in enumerate(drawn):
        path = _path(at, line.values, scale)
        dash = ' stroke-dasharray="4 4"' if line.dashed else ""
        parts.append(f'<path class="line" d="{path}" stroke="{COLOURS[number]}"{dash}/>')
    return _svg(parts)


def bars(marks: Sequence[str], drawn: Sequence[Line], unit: str) -> str:
    """Return bars from zero, those of one mark side by side."""
    known = [value for line in drawn for value in line.values if value is not None]
    scale = _Scale.of(known, True)
    room = (WIDTH - LEFT - RIGHT) / max(len(marks), 1)
    width = min(0.8 * room / max(len(drawn), 1), 46)
    parts = [*_axis(scale, unit)]
    for place, mark in enumerate(marks):
        middle = LEFT + room * (place + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(mark)}</text>')
        first = middle - width * len(drawn) / 2
        for number, line in enumerate(drawn):
            value = line.values[place]
            if value is None:
                continue
            top, bottom = sorted((scale.y(value), scale.y(0.0)))
            parts.append(
                f'<rect x="{first + width * number + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
                f'height="{max(bottom - top, 0.5):.1f}" rx="2" fill="{COLOURS[number]}"/>'
            )
    return _svg(parts)


def key(drawn: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    """Return what each colour stands for."""
    return tuple((COLOURS[number], line.name) for number, line in enumerate(drawn))


@dataclass(frozen=True)
class _Scale:
    ticks: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], from_zero: bool) -> _Scale:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        low = min(low, 0.0) if from_zero else low
        size = max(abs(low), abs(high))
        if high - low <= 1e-9 * size or size < 1e-100:  # one value, as far as a float can tell
            high = low + (size if size > 1e-100 else 1.0)
        raw = (high - low) / 5
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(one * size for one in (1, 2, 2.5, 5, 10) if one * size >= raw * 0.999)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        decimals = max(0, 2 - math.floor(math.log10(step)))
        ticks = tuple(round(number * step, decimals) for number in range(first, last + 1))
        return cls(ticks, ticks[0], ticks[-1])

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low)


def _axis(scale: _Scale, unit: str) -> Iterator[str]:
    for tick in scale.ticks:
        y = scale.y(tick)
        kind = "base" if tick == 0 or tick == scale.low else "grid"
        yield f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        said = f"{tick:,.10g}".replace("-", "−")
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{said}</text>'
    yield f'<text x="{LEFT - 8}" y="{TOP - 10}" text-anchor="end">{escape(unit)}</text>'


def _path(at: Sequence[float], values: Sequence[float | None], scale: _Scale) -> str:
    parts, open_ = [], False
    for x, value in zip(at, values, strict=True):
        if value is None:
            open_ = False
            continue
        parts.append(f"{'L' if open_ else 'M'}{x:.1f} {scale.y(value):.1f}")
        open_ = True
    return "".join(parts)


def _band(at: Sequence[float], band: Sequence[tuple[float | None, float | None]], scale: _Scale) -> list[str]:
    known = [(x, low, high) for x, (low, high) in zip(at, band, strict=False) if low is not None and high is not None]
    if not known:
        return []
    there = [f"{x:.1f} {scale.y(high):.1f}" for x, _, high in known]
    back = [f"{x:.1f} {scale.y(low):.1f}" for x, low, _ in reversed(known)]
    return [f'<path d="M{"L".join(there + back)}Z" fill="{COLOURS[0]}" opacity="0.16"/>']


def _svg(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>"
