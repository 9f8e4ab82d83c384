"""The flows as a picture, drawn from the steps of the pipeline: what comes after what is read, never repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from forecastle.pipeline import FLOWS, Step

WIDTH, HEIGHT, GAP, LANE, MARGIN = 118, 38, 30, 62, 28
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #14212b; text-anchor: middle; }
.flow { font-weight: 650; text-anchor: start; fill: #0b566b; letter-spacing: .04em; }
.loop { font-size: 12px; text-anchor: start; fill: #a4622a; }
.ground { fill: #f4f6f7; }
.step { fill: #fff; stroke: #0b6f88; stroke-width: 1.4; }
.gate { fill: #fff4d8; stroke: #8a5a00; }
.way { fill: none; stroke: #55646f; stroke-width: 1.4; marker-end: url(#tip); }
.back { fill: none; stroke: #a4622a; stroke-width: 1.4; stroke-dasharray: 5 4; marker-end: url(#tip-back); }
""".strip()
Place = tuple[float, float]


def flows_picture() -> str:
    """Return the two flows as SVG: a box a step, an arrow for what it waits for, and the loop between the flows."""
    train, below = _flow("train", FLOWS["train"], 0)
    live, end = _flow("live", FLOWS["live"], below + 40)
    columns = max(x for x, _ in (*train.values(), *live.values())) + WIDTH + MARGIN
    parts = [_lane("train", FLOWS["train"], train), _lane("live", FLOWS["live"], live)]
    parts.append(_loop(train["promote"], live["forecast"], "the champion serves"))
    parts.append(_loop(live["watch"], train["train"], "an incident asks for a retrain", up=True))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {columns:.0f} {end:.0f}" role="img">\n'
        f"<!-- Written by `make docs` from src/forecastle/pipeline.py; change it there. -->\n"
        "<title>The flows: TRAIN and LIVE, step by step, and the loop between them</title>\n"
        f"<style>{STYLE}</style>\n<defs>{_tip('tip', '#55646f')}{_tip('tip-back', '#a4622a')}</defs>\n"
        f'<rect class="ground" width="100%" height="100%" rx="12"/>\n{"".join(parts)}</svg>\n'
    )


def _flow(name: str, steps: Sequence[Step], top: float) -> tuple[dict[str, Place], float]:
    """Return where each step stands: as far right as its longest way, one lane below where its column is taken."""
    column: dict[str, int] = {}
    places: dict[str, Place] = {}
    for step in steps:
        column[step.name] = max((column[before] + 1 for before in step.after), default=0)
        lane = sum(column[other] == column[step.name] for other in places)
        places[step.name] = (MARGIN + column[step.name] * (WIDTH + GAP), top + 52 + lane * LANE)
    return places, max(y for _, y in places.values()) + HEIGHT + 22


def _lane(name: str, steps: Sequence[Step], places: Mapping[str, Place]) -> str:
    first = places[steps[0].name]
    parts = [f'<text class="flow" x="{first[0]:.0f}" y="{first[1] - 18:.0f}">{name.upper()}</text>\n']
    for step in steps:
        x, y = places[step.name]
        for before in step.after:
            fx, fy = places[before][0] + WIDTH, places[before][1] + HEIGHT / 2
            tx, ty = x - 5, y + HEIGHT / 2
            bend = fx + GAP * 0.45 if fy <= ty else tx - GAP * 0.3
            parts.append(f'<path class="way" d="M{fx:.0f},{fy:.0f}H{bend:.0f}V{ty:.0f}H{tx:.0f}"/>\n')
        kind = "step gate" if step.name == "quality-check" else "step"
        parts.append(f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="9"/>')
        label = escape(step.name)
        parts.append(f'<text x="{x + WIDTH / 2:.0f}" y="{y + HEIGHT / 2 + 4.5:.0f}">{label}</text>\n')
    return "".join(parts)


def _loop(start: Place, end: Place, text: str, up: bool = False) -> str:
    sx, ex = start[0] + WIDTH / 2, end[0] + WIDTH / 2
    sy, ey = (start[1], end[1] + HEIGHT + 5) if up else (start[1] + HEIGHT, end[1] - 5)
    middle = (sy + ey) / 2 + (12 if up else -12)
    spot = (sx + 8, middle + 22) if up else (ex + 8, middle + 18)
    return (
        f'<path class="back" d="M{sx:.0f},{sy:.0f}V{middle:.0f}H{ex:.0f}V{ey:.0f}"/>'
        f'<text class="loop" x="{spot[0]:.0f}" y="{spot[1]:.0f}">{escape(text)}</text>\n'
    )


def _tip(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0L8,4L0,8Z" fill="{colour}"/></marker>'
    )
