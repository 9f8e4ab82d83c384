"""Load by wrk: one thread, keep-alive connections, for some seconds."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.servers import Server

REPEATS = 3
_REPORT = """
done = function(summary, latency, requests)
  io.write(string.format("requests %d\\n", summary.requests))
  io.write(string.format("micros %d\\n", summary.duration))
  local errors = summary.errors
  io.write(string.format("faults %d\\n", errors.connect + errors.read + errors.write + errors.timeout + errors.status))
  io.write(string.format("p50 %d\\n", latency:percentile(50)))
  io.write(string.format("p99 %d\\n", latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Measured:
    """What a server did under load: requests a second, latencies, and what one cost its processor."""

    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_micros: float
    faults: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


def best(server: Server, path: str, connections: int, seconds: float, body: bytes | None = None) -> Measured:
    """Measure several times and return the best of each figure: what others do on the machine only adds to it."""
    runs = [measure(server, path, connections, seconds, body) for _ in range(REPEATS)]
    return Measured(
        connections,
        max(one.per_second for one in runs),
        *(min(getattr(one, name) for one in runs) for name in ("p50_ms", "p99_ms", "cpu_micros")),
        faults=sum(one.faults for one in runs),
    )


def measure(server: Server, path: str, connections: int, seconds: float, body: bytes | None = None) -> Measured:
    """Ask a server for a path, by GET or with a body by POST, over so many connections."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        posted = ""
        if body is not None:
            (Path(folder) / "body").write_bytes(body)
            posted = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            posted += f'local file = io.open("{folder}/body", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
        script.write_text(posted + _REPORT)
        before = server.cpu_seconds()
        options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
        said = subprocess.run(
            ["wrk", *options, server.address + path], capture_output=True, text=True, check=True, timeout=seconds + 60
        ).stdout
        spent = server.cpu_seconds() - before
    found = {name: float(value) for name, value in re.findall(r"^(\w+) (\d+)$", said, re.MULTILINE)}
    count = max(found["requests"], 1)
    return Measured(
        connections,
        count / (found["micros"] / 1e6),
        found["p50"] / 1e3,
        found["p99"] / 1e3,
        spent / count * 1e6,
        int(found["faults"]),
    )
