"""The report's PDF, printed by Chromium, which is not a part of forecastle: where there is none, that is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
PATIENCE = 120


def browser() -> str | None:
    """Return the path of a Chromium, or None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def print_pdf(page: Path, pdf: Path) -> str:
    """Print a page to a PDF, whole or not at all; return why not, empty where it was printed."""
    program = browser()
    if program is None:
        return "there is no Chromium; on Debian: apt-get install chromium"
    pdf.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="forecastle-print-") as aside:
        made = Path(aside) / "report.pdf"
        own = (f"--user-data-dir={aside}/profile", "--no-pdf-header-footer", f"--print-to-pdf={made}")
        try:
            done = subprocess.run(
                [program, *ARGUMENTS, *own, page.resolve().as_uri()], capture_output=True, text=True, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Chromium did not print: {error}"
        if done.returncode != 0 or not made.is_file():
            said = done.stderr.strip().splitlines()
            return f"Chromium did not print: {said[-1] if said else f'exit {done.returncode}'}"
        beside = pdf.with_name(f".{pdf.name}.new")
        shutil.copyfile(made, beside)
        os.replace(beside, pdf)
    return ""
