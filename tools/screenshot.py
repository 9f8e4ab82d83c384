"""Run the demo and take a picture of the service's page: `make screenshot`.

    python tools/screenshot.py docs/images/page.png                          runs the demo first
    python tools/screenshot.py page.png --address http://127.0.0.1:8000      asks a service that is up

It needs the development extra (playwright) and Debian's chromium; neither is imported before `take` is called. The demo
keeps its service up once its story is told; it has told it when demo/summary.json is new.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ViewportSize

ROOT = Path(__file__).resolve().parent.parent
SUMMARY = ROOT / "demo" / "summary.json"
PATIENCE = 900.0  # for the demo, on a busy machine
MODELS = ".lower .wide"  # the README shows all tasks at a glance and the first of them
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--address", help="the address of a service that is up")
    parser.add_argument("--width", type=int, default=1200)
    options = parser.parse_args()
    if options.address:
        take(options.address, options.picture, options.width, scale=2, before=MODELS)
    else:
        with running_demo() as address:
            take(address, options.picture, options.width, scale=2, before=MODELS)
    reduce(options.picture)
    print(f"wrote {options.picture} ({options.picture.stat().st_size // 1024} KiB)")
    return 0


def take(
    url: str,
    path: Path,
    width: int = 1280,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
    whole: bool = True,
    scale: float = 1,
    before: str = "",
    browser: Browser | None = None,
) -> Path:
    """Open the page at ``url`` and save what it shows as a PNG; ``whole`` takes all of it, not one screenful, or as
    much as stands above the first element that the selector ``before`` finds.

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
        box = window.locator(before).first.bounding_box() if before else None
        end = {"x": 0, "y": 0, "width": width, "height": box["y"]} if box is not None else None
        window.screenshot(path=path, full_page=whole, clip=end)  # type: ignore[arg-type]
    return path


def reduce(picture: Path) -> None:
    """Give a picture 256 colours, which a page of few has enough of: it is a third as large then."""
    from PIL import Image

    with Image.open(picture) as whole:
        whole.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


@contextmanager
def running_demo() -> Iterator[str]:
    """Yield the address of the service that the demo leaves up, and stop it afterwards."""
    SUMMARY.unlink(missing_ok=True)
    program = [str(Path(sys.executable).with_name("forecastle")), "demo", "--plain", "--keep"]
    with tempfile.NamedTemporaryFile("w") as log:
        demo = subprocess.Popen(program, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield wait_for_address(demo, Path(log.name))
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(30)


def wait_for_address(demo: subprocess.Popen[bytes], log: Path) -> str:
    """Return the last address that the demo's log names, once the demo's figures are written."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and demo.poll() is None:
        addresses = re.findall(r"http://[\w.]+:\d+", log.read_text())
        if SUMMARY.is_file() and addresses:
            return str(addresses[-1])
        time.sleep(0.5)
    raise SystemExit(f"Expected the demo to end and leave its service up; its log:\n{log.read_text()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
