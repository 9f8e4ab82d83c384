"""A picture of the page, taken by a headless Chromium; a tool for the documentation, not part of the service.

It needs the development extra (playwright) and Debian's chromium; neither is imported before ``take`` is called.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ViewportSize

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
PATIENCE_MS = 20_000


def take(
    url: str,
    path: Path,
    width: int = 1280,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
    whole: bool = True,
    scale: float = 1,
    browser: Browser | None = None,
) -> Path:
    """Open the page at ``url`` and save what it shows as a PNG; ``whole`` takes all of it, not one screenful.

    A browser that runs already may be given. Raises playwright's error where Chromium does not start or no chart
    appears in 20 seconds.
    """
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        if browser is None:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
            stack.callback(browser.close)
        viewport: ViewportSize = {"width": width, "height": height}
        window = browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=scale)
        stack.callback(window.close)
        window.goto(url)
        window.locator("svg.chart").first.wait_for(timeout=PATIENCE_MS)
        path.parent.mkdir(parents=True, exist_ok=True)
        window.screenshot(path=path, full_page=whole)
    return path
