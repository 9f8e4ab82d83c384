"""Chromium as a camera: a page that is served, a file, or what a command really printed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from forecastle.errors import OutsideError, UserError
from forecastle.frame import to_json
from forecastle.reporting.printing import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 1280, 860
PATIENCE = 30_000  # milliseconds
COMMAND_SECONDS = 300
MOST_LINES = 46  # of a command's output that a picture holds
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")


@dataclass(frozen=True)
class Command:
    """A command as it is shown, what is run for it, where, and which exit codes are as they should be."""

    shown: str
    argv: Sequence[str]
    folder: Path
    environment: Mapping[str, str] | None = None
    fine: Sequence[int] = (0,)
    first_lines: int = MOST_LINES

    @classmethod
    def of(cls, text: str, folder: Path, **options: object) -> Command:
        """Return a command that is run as it is shown."""
        return cls(text, shlex.split(text), folder, **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Camera:
    """A browser that takes pictures."""

    browser: Browser

    def page(
        self,
        address: str,
        path: Path,
        see: str = "",
        before: Callable[[Page], None] | None = None,
        whole: bool = False,
        settle: float = 0.8,
        height: int = HEIGHT,
        remembered: Mapping[str, str] | None = None,
    ) -> None:
        """Open an address and save what it shows, once ``see`` (a selector) is there and ``before`` was done to it.

        ``remembered`` is what the browser remembers of an earlier visit, its local storage.
        """
        page = self.browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        if remembered:
            page.add_init_script(
                f"for (const [name, value] of {to_json(list(remembered.items()))}) localStorage[name] = value"
            )
        try:
            answer = page.goto(address, wait_until="load")
            if answer is not None and answer.status >= 400:
                raise OutsideError(f"a page at {address}", f"status {answer.status}", "See what it logged.")
            if before is not None:
                before(page)
            if see:
                page.locator(see).first.wait_for()
            page.wait_for_timeout(1000 * settle)
            page.screenshot(path=path, full_page=whole)
        finally:
            page.close()

    def terminal(self, path: Path, title: str, commands: Sequence[Command], hide: Mapping[str, str]) -> None:
        """Run commands and save a picture of what they printed, error output included; nothing else stands on it.

        Places of this machine are shown by other words (``hide``). Raises OutsideError for one that ended otherwise
        than it should.
        """
        told = []
        for command in commands:
            done = subprocess.run(
                command.argv,
                cwd=command.folder,
                env=command.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=COMMAND_SECONDS,
            )
            if done.returncode not in command.fine:
                last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
                raise OutsideError(command.shown, f"exit {done.returncode}: {last}", "Run it by hand.")
            lines = done.stdout.rstrip().splitlines()
            more = f"\n… {len(lines) - command.first_lines} more lines" if len(lines) > command.first_lines else ""
            text = "\n".join(lines[: command.first_lines])
            for place, shown in hide.items():
                text = text.replace(place, shown)
            code = f"\nexit code {done.returncode}" if done.returncode else ""
            told.append((command.shown, f"{text}{more}{code}"))
        self.written(path, TERMINAL.format(title=escape(title), body="".join(_said(*one) for one in told)))

    def written(self, path: Path, html: str) -> None:
        """Save a picture of markup, as high as it is."""
        page = self.browser.new_page(viewport={"width": WIDTH, "height": 200})
        try:
            page.set_content(html)
            page.screenshot(path=path, full_page=True)
        finally:
            page.close()


@contextmanager
def open_camera() -> Iterator[Camera]:
    """Start Chromium; UserError where it, or what drives it, is not installed."""
    program = browser()
    if program is None:
        raise UserError("Chromium, which takes the pictures", "none", "On Debian: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise UserError(
            "playwright, which drives Chromium", "it is not installed", "pip install playwright (extra dev)"
        ) from None
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield Camera(started)
        finally:
            started.close()


def _said(shown: str, output: str) -> str:
    return f'<p class="asked">$ {escape(shown)}</p><pre>{escape(output)}</pre>'


TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #0e2029; color: #dbe7ec }}
body {{ font: 14px/1.45 "DejaVu Sans Mono", monospace; padding: 0 0 14px }}
header {{ background: #17323f; color: #9fb8c4; padding: 9px 16px; font-size: 12.5px; margin-bottom: 12px }}
header::before {{ content: "● ● ●"; letter-spacing: 2px; color: #4b6b7a; margin-right: 14px }}
.asked {{ margin: 12px 18px 4px; color: #7fd3a6; font-weight: 700; white-space: pre-wrap; overflow-wrap: anywhere }}
pre {{ margin: 0 18px; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit }}
</style><header>{title}</header>{body}"""
