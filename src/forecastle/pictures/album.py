"""Which pictures were taken, of what, and why the others were not; kept beside them as JSON and as a page."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from forecastle.errors import ForecastleError
from forecastle.frame import write_json, write_text
from forecastle.reporting.evidence.pictures import FIGURES, INDEX

COLOURS = 128  # of a saved picture: what screens show needs no more, and it makes them a third as large


@dataclass
class Album:
    """The pictures of one report, in the folder it lies in."""

    folder: Path
    say: Callable[[str], None]
    at: datetime
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def shot(self, number: int, shows: str) -> Iterator[Path]:
        """Give the path at which the picture of a figure is to be saved; what hinders it is noted, and the next taken.

        A picture of an earlier report gives way, so that none shows what does not run any more.
        """
        from playwright.sync_api import Error

        picture = FIGURES[number - 1]
        path = self.folder / picture.path
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        why = ""
        try:
            yield path
            shrink(path)
        except (ForecastleError, OSError, subprocess.SubprocessError, Error) as error:
            path.unlink(missing_ok=True)
            why = str(error).strip().splitlines()[0]
        self.taken[picture.path] = {"captured": not why, "shows": shows, "at": self.at, "why": why}
        self.say(f"{'taken    ' if not why else 'not taken'} {picture.path}{f': {why}' if why else ''}")

    def path(self, number: int) -> Path:
        """Return where the picture of a figure is saved."""
        return self.folder / FIGURES[number - 1].path

    def miss(self, number: int, why: str) -> None:
        """Note that a picture cannot be had here, and why."""
        picture = FIGURES[number - 1]
        (self.folder / picture.path).unlink(missing_ok=True)
        self.taken[picture.path] = {"captured": False, "shows": "", "at": self.at, "why": why}
        self.say(f"not taken {picture.path}: {why}")

    def save(self) -> Path:
        """Write the index: as JSON for the report, as a page for people."""
        write_json(self.folder / INDEX, self.taken)
        lines = [
            "# The report's pictures",
            "",
            "| Figure | Picture | What it shows, or how to capture it |",
            "|---|---|---|",
        ]
        for number, picture in enumerate(FIGURES, start=1):
            said = self.taken.get(picture.path, {})
            told = (
                said.get("shows")
                if said.get("captured")
                else f"not captured: {said.get('why') or 'not tried'}. {picture.how}"
            )
            lines.append(f"| {number}: {picture.title} | `{picture.path}` | {str(told).replace('|', '/')} |")
        return write_text(self.folder / "screenshots" / "index.md", "\n".join(lines) + "\n")


def shrink(path: Path) -> None:
    """Save a picture with fewer colours, so that a whole report stays small."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
