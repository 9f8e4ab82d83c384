"""How fast the running service answers: asked one request after the other, for the report's figures."""

from __future__ import annotations

import os
import platform
import statistics
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from forecastle.errors import ForecastleError
from forecastle.frame import write_json
from forecastle.http import Client, Request
from forecastle.reporting.evidence.results import PROBE
from forecastle.settings import Settings
from forecastle.task import Task

REQUESTS, WARMING = 500, 20


def probe(settings: Settings, task: Task, series: list[str], address: str, folder: Path, at: datetime) -> Path:
    """Ask for the forecasts of each series in turn over one connection, and write what that took to ``probe.json``."""
    took, faults = [], 0
    asked = [f"{address}/v1/tasks/{task.name}/forecasts/{quote(name)}" for name in series]
    with Client(settings) as client:
        for number in range(WARMING):
            client.get(Request(asked[number % len(asked)]))
        began = time.perf_counter()
        for number in range(REQUESTS):
            started = time.perf_counter()
            try:
                faults += client.get(Request(asked[number % len(asked)])).status != 200
            except ForecastleError:
                faults += 1
            took.append(1000 * (time.perf_counter() - started))
        whole = time.perf_counter() - began
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    where = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; asked from the same process"
    )
    found = {"at": at, "machine": where, "requests": REQUESTS, "connections": 1, "faults": faults}
    found |= {"p50_ms": round(cuts[49], 3), "p95_ms": round(cuts[94], 3), "p99_ms": round(cuts[98], 3)}
    return write_json(folder / PROBE, found | {"per_second": round(REQUESTS / whole, 1)})
