"""Draw docs/architecture.png from docs/architecture.toml and the flows of the code: `make architecture`.

    python tools/architecture.py            draws it
    python tools/architecture.py --check    only says what the source claims and the repository does not bear out

It needs Debian's chromium. Columns stand side by side, boxes below each other, arrows are curves between them.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from forecastle.pipeline import FLOWS
from forecastle.reporting.printing import ARGUMENTS, browser

ROOT = Path(__file__).resolve().parent.parent
SOURCE, PICTURE = ROOT / "docs" / "architecture.toml", ROOT / "docs" / "architecture.png"
WIDTH, HEIGHT, TOP = 1620, 980, 128
BOX, TALL, STEP = 224, 62, 38
XS = (48, 352, 676, 1016, 1348)
FLOW_COLUMN = 1
FLOWS_AT = {"train": TOP + 34, "live": TOP + 34 + 430}


@dataclass(frozen=True)
class Box:
    """A box on the picture: where it stands, what it says, of which kind it is."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str
    kind: str


def main(arguments: list[str]) -> int:
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    wrong = unfounded(source)
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong or "--check" in arguments:
        return 1 if wrong else 0
    photograph(draw(source), PICTURE)
    print(f"wrote {PICTURE.relative_to(ROOT)} ({PICTURE.stat().st_size // 1024} KiB)")
    return 0


def unfounded(source: dict[str, Any]) -> list[str]:
    """Return what the source claims that the repository does not bear out."""
    boxes = set(source["boxes"]) | {name for flow in FLOWS.values() for name in (step.name for step in flow)}
    wrong = [
        f"box {name}: there is no {one['code']}"
        for name, one in source["boxes"].items()
        if not (ROOT / one["code"]).exists()
    ]
    for arrow in source["arrows"]:
        named = f"arrow {arrow['from']} → {arrow['to']}"
        wrong += [
            f"{named}: there is no box {end}" for end in (arrow["from"], arrow["to"]) if end.split(".")[-1] not in boxes
        ]
        file, words = arrow["wired"]
        if not (ROOT / file).is_file() or words not in (ROOT / file).read_text(encoding="utf-8"):
            wrong.append(f"{named}: {file} does not hold {words!r}")
    return wrong


def place(source: dict[str, Any]) -> dict[str, Box]:
    """Return every box by its name; a step of a flow by its name and by ``flow.name``."""
    placed: dict[str, Box] = {}
    for column in range(len(XS)):
        own = {name: one for name, one in source["boxes"].items() if one["column"] == column}
        room = (HEIGHT - TOP - 60) / max(len(own), 1)
        for number, (name, one) in enumerate(own.items()):
            y = TOP + room * (number + 0.5) - TALL / 2
            placed[name] = Box(XS[column], y, BOX, TALL, one["title"], one["text"], one.get("kind", "part"))
    for flow, steps in FLOWS.items():
        for number, step in enumerate(steps):
            box = Box(
                XS[FLOW_COLUMN] + 16, FLOWS_AT[flow] + 26 + number * (STEP + 16), BOX - 32, STEP, step.name, "", "step"
            )
            placed.setdefault(step.name, box)
            placed[f"{flow}.{step.name}"] = box
    return placed


def draw(source: dict[str, Any]) -> str:
    """Return the picture as SVG."""
    boxes = place(source)
    parts = [
        f'<text class="title" x="48" y="52">{escape(source["title"])}</text>',
        '<text class="about" x="48" y="78">Every arrow is held against the file that wires it; '
        "what comes back (dashed: an incident that asks for training) comes back through something stored.</text>",
    ]
    for x, name in zip(XS, source["columns"], strict=True):
        parts.append(f'<text class="column" x="{x}" y="{TOP - 8}">{escape(name)}</text>')
    for flow, steps in FLOWS.items():
        tall = 26 + len(steps) * (STEP + 16)
        top = FLOWS_AT[flow]
        parts.append(f'<rect class="flow" x="{XS[1]}" y="{top - 6}" width="{BOX}" height="{tall + 4}" rx="14"/>')
        parts.append(f'<text class="flow" x="{XS[1] + 16}" y="{top + 13}">{flow.upper()}</text>')
        for step in steps:
            for before in step.after:
                parts.append(_arrow(boxes[f"{flow}.{before}"], boxes[f"{flow}.{step.name}"], "inner"))
    parts += [
        _arrow(boxes[one["from"]], boxes[one["to"]], "outer loop" if one.get("loop") else "outer")
        for one in source["arrows"]
    ]
    parts += [_box(one) for one in dict.fromkeys(boxes.values())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"<style>{STYLE}</style>{MARKER}{''.join(parts)}</svg>"
    )


def _box(box: Box) -> str:
    middle = box.y + box.height / 2
    shape = f'<rect class="{box.kind}" x="{box.x}" y="{box.y:.1f}" width="{box.width}" height="{box.height}" rx="10"/>'
    if not box.text:
        return f'{shape}<text class="name" x="{box.x + 14}" y="{middle + 5:.1f}">{escape(box.title)}</text>'
    lines = _wrapped(box.text, 32)
    first = middle - 3 - 7 * (len(lines) - 1)
    told = "".join(
        f'<text class="text" x="{box.x + 14}" y="{first + 17 + 14 * number:.1f}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return f'{shape}<text class="name" x="{box.x + 14}" y="{first:.1f}">{escape(box.title)}</text>{told}'


def _arrow(start: Box, end: Box, kind: str) -> str:
    """Return a curve from one box to another: between columns sidewards, within a column downwards or along its "
    "side."""
    a, b = start.y + start.height / 2, end.y + end.height / 2
    if abs(start.x - end.x) > BOX / 2:
        left = start.x < end.x
        x1, x2 = (start.x + start.width, end.x - 4) if left else (start.x, end.x + end.width + 4)
        bend = (x2 - x1) * 0.5
        path = f"M{x1} {a:.1f}C{x1 + bend:.1f} {a:.1f} {x2 - bend:.1f} {b:.1f} {x2} {b:.1f}"
    elif abs(a - b) <= start.height / 2 + end.height / 2 + 24 or (kind == "outer" and abs(a - b) < 220):
        down = a < b
        y1, y2 = (start.y + start.height, end.y - 4) if down else (start.y, end.y + end.height + 4)
        x = start.x + start.width / 2
        path = f"M{x} {y1:.1f}L{x} {y2:.1f}"
    else:
        x, out = start.x + start.width, 26
        path = f"M{x} {a:.1f}C{x + out} {a:.1f} {x + out} {b:.1f} {x + 4} {b:.1f}"
    return f'<path class="arrow {kind}" d="{path}" marker-end="url(#head)"/>'


def _wrapped(text: str, most: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def photograph(svg: str, path: Path) -> None:
    """Let Chromium paint the SVG."""
    import subprocess

    program = browser()
    if program is None:
        raise SystemExit("There is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as aside:
        page = Path(aside) / "page.html"
        page.write_text(f'<!doctype html><meta charset="utf-8"><style>body{{margin:0}}</style>{svg}', encoding="utf-8")
        own = (f"--user-data-dir={aside}/profile", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}")
        subprocess.run(
            [program, *ARGUMENTS, *own, f"--screenshot={path}", page.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )


STYLE = """
text{font-family:'DejaVu Sans',sans-serif;fill:#16232d} .title{font-size:27px;font-weight:700;letter-spacing:-.4px}
.about,.text{fill:#55646f;font-size:14px} .text{font-size:11.5px} .name{font-size:14px;font-weight:700}
.column{font-size:14px;font-weight:700;fill:#0b6f88} text.flow{font-size:12px;font-weight:700;fill:#0b6f88}
svg{background:#f4f6f7} rect.part{fill:#fff;stroke:#c6d0d5;stroke-width:1.3}
rect.store{fill:#fff7ee;stroke:#dfb88d;stroke-width:1.3}
rect.flow{fill:#e4f0f3;stroke:#0b6f88;stroke-width:1.3} rect.step{fill:#fff;stroke:#0b6f88;stroke-width:1.2}
.arrow{fill:none;stroke:#7e919c;stroke-width:1.6} .arrow.inner{stroke:#0b6f88}
.arrow.loop{stroke:#c2571a;stroke-dasharray:6 4}
"""
MARKER = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="6.5" markerHeight="6.5" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#5f727d"/></marker></defs>'
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
