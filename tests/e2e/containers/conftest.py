"""A Docker engine of this session alone, and images built in it on a stand-in for python:slim.

The engine is Debian's, started on a socket and in folders of its own, without a bridge and without touching the host's
packet filter, so that it minds no other engine; it is stopped by its own process id. `tools/container-engine` installs
it and makes the base image with debootstrap.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BASE_TAR = ROOT / ".cache" / "base.tar"
BASE = "forecastle-base:bookworm"
CLIENT = "/usr/bin/docker"  # Debian's own: another that comes first in the path may not know BuildKit
PATIENCE = 60.0
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass
class Engine:
    """A Docker engine that runs."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to reach it."""
        return os.environ | {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER": CLIENT,
            "DOCKER_BUILDKIT": "1",
        }

    def docker(self, *arguments: str, seconds: float = 120) -> str:
        """Run the client and return what it says; a failure is a failed test that shows it."""
        done = subprocess.run(
            [CLIENT, *arguments], env=self.environment, capture_output=True, text=True, timeout=seconds, cwd=ROOT
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def answers(self) -> bool:
        done = subprocess.run([CLIENT, "info"], env=self.environment, capture_output=True, timeout=PATIENCE)
        return done.returncode == 0


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine with the base image in it."""
    lacking = [name for name in ("dockerd", "iptables", CLIENT) if shutil.which(name) is None]
    if lacking or not BASE_TAR.exists() or os.geteuid() != 0:
        lack(f"no {', '.join(lacking) or 'base image or right to start an engine'}: tools/container-engine, as root")
    folder = Path(tempfile.mkdtemp(prefix="dk-", dir="/tmp"))
    started = start(folder)
    try:
        env = [f"ENV {one}" for one in (*ENV, f"PIP_CERT={CERTIFICATES}", f"SSL_CERT_FILE={CERTIFICATES}")]
        changes = [word for one in ('CMD ["python3"]', *env) for word in ("--change", one)]
        started.docker("import", *changes, str(BASE_TAR), BASE)
        yield started
    finally:
        running = subprocess.run(
            [CLIENT, "ps", "--quiet"], env=started.environment, capture_output=True, text=True, timeout=PATIENCE
        ).stdout.split()
        if running:
            subprocess.run([CLIENT, "kill", *running], env=started.environment, capture_output=True, timeout=PATIENCE)
        stop(started.process)
        for left in folder.glob("*/exec/netns/*"):  # the engine leaves its own network's place mounted
            subprocess.run(["umount", left], capture_output=True, timeout=PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path) -> Engine:
    """Start an engine in a folder: with overlay2, or where the file system has no such thing with plain copies."""
    said = ""
    for driver in ("overlay2", "vfs"):
        home = folder / driver
        home.mkdir()
        command = [
            "dockerd",
            f"--host=unix://{folder}/docker.sock",
            f"--data-root={home}/data",
            f"--exec-root={home}/exec",
            f"--pidfile={home}/pid",
            f"--storage-driver={driver}",
            "--bridge=none",
            "--iptables=false",
            "--ip-masq=false",
        ]
        with (home / "log").open("wb") as log:
            engine = Engine(folder, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and engine.process.poll() is None:
            if engine.answers():
                print(f"Docker's engine runs, with {driver}", file=sys.stderr)
                return engine
            time.sleep(0.3)
        stop(engine.process)
        said = (home / "log").read_text()[-2000:]
    lack(f"Docker's engine did not come up:\n{said}")
    raise AssertionError("lack raises")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lack(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a missing component is a failure where CI=true)")
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
