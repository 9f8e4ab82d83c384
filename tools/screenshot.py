"""Run the demo and take a picture of the service's page: `make screenshot`.

    python tools/screenshot.py docs/images/page.png                          runs the demo first
    python tools/screenshot.py page.png --address http://127.0.0.1:8000      asks a service that is up

The demo keeps its service up once its story is told; it has told it when demo/summary.json is new.
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
from contextlib import contextmanager
from pathlib import Path

from forecastle.serving.screenshot import take

ROOT = Path(__file__).resolve().parent.parent
SUMMARY = ROOT / "demo" / "summary.json"
PATIENCE = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--address", help="the address of a service that is up")
    parser.add_argument("--width", type=int, default=1200)
    options = parser.parse_args()
    if options.address:
        take(options.address, options.picture, options.width, scale=2)
    else:
        with running_demo() as address:
            take(address, options.picture, options.width, scale=2)
    print(f"wrote {options.picture} ({options.picture.stat().st_size // 1024} KiB)")
    return 0


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
