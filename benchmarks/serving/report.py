"""Run everything once and write what it shows: ``python -m benchmarks serving``."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import servers, stage
from benchmarks.serving.load import Measured, best, measure

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "serving" / "results.json", ROOT / "docs" / "serving-benchmarks.md"
CONNECTIONS = (1, 8, 32)
MLFLOW = {"mlflow": False, "mlflow signed": True}  # whether the model has a signature
PREDICT, FORECASTS = "/v1/tasks/{}/predict", "/v1/tasks/{}/forecasts/JFK"

HEAD = """# Benchmarks of the service

Written by `python -m benchmarks serving`. Every server runs by itself on loopback, one worker, asked by wrk over
kept-alive connections from the same machine; `cpu` is the processor time of the server and its children for a request.
A request for a forecast brings 200 hourly observations of four columns; features, six steps ahead, intervals and the
journal are ours to do. `mlflow models serve` gets one ready-made row of features for the same booster, which it
answers with one number: once without a signature, which is the least that it can do, and once with the signature that
MLflow asks every model to have, by which it checks each row. The blend is the kind of champion the demo chooses.

Every figure is the best of three, on all sides. Where others are at work on the machine, times by the clock
(requests/s, p50, p99, seconds) tell as much of them; `cpu` tells little of them, so each bar of requests/s stands there
by it, too.
"""


def main(arguments: list[str]) -> int:
    """Measure; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each measurement takes")
    parser.add_argument("--home", type=Path, help="a folder where the stage is set, or was; default: a temporary one")
    chosen = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        parser.error("wrk is missing: tools/debian-package wrk wrk")
    load = round(psutil.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="forecastle-serving-") as folder:
        found = run(chosen.home or Path(folder), chosen.seconds)
    found |= {"at": f"{datetime.now(UTC):%Y-%m-%d}", "load": load, "cores": psutil.cpu_count()}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    page = "\n".join(told(found))
    PAGE.write_text(page)
    print(page)
    return 1 if any(not bar["met"] for bar in found["bars"]) else 0


def run(home: Path, seconds: float) -> dict[str, Any]:
    """Set the stage, and measure every side on it."""
    now = stage.now()
    if not (home / "boosted").exists():
        stage.prepare(home, now)
    for name in stage.CHAMPIONS:
        stage.issue(stage.Settings(home=home, _env_file=None), stage.task(name), now)  # type: ignore[call-arg]
    model = home / "mlflow"
    bodies = stage.bodies(now)
    sides: dict[str, list[dict[str, Any]]] = {}

    def note(side: str, each: list[Measured]) -> None:
        sides[side] = [one.as_dict() for one in each]
        print(side, sides[side], file=sys.stderr, flush=True)

    with servers.hello() as server:
        measure(server, "/", 8, 1)
        note("hello", [best(server, "/", one, seconds) for one in CONNECTIONS])
    for side, signed in MLFLOW.items():
        shutil.rmtree(model, ignore_errors=True)
        rows = stage.mlflow_model(model, home, now, signed)
        with servers.mlflow(model) as server:
            measure(server, "/invocations", 8, 1, rows["one"])
            note(side, [best(server, "/invocations", one, seconds, rows["one"]) for one in CONNECTIONS])
            many = [best(server, "/invocations", one, seconds, rows["many"]) for one in CONNECTIONS[:2]]
            note(f"{side} 100", many)
    with servers.forecastle(home, *stage.CHAMPIONS) as server:
        measure(server, PREDICT.format("boosted"), 8, 2, bodies["one"])
        note("forecasts", [best(server, FORECASTS.format("boosted"), one, seconds) for one in CONNECTIONS])
        for name in stage.CHAMPIONS:
            path = PREDICT.format(name)
            note(f"predict {name}", [best(server, path, one, seconds, bodies["one"]) for one in CONNECTIONS])
        path = PREDICT.format("boosted")
        note("predict 100", [best(server, path, one, seconds, bodies["many"]) for one in CONNECTIONS[:2]])
    with servers.hello() as server:  # again, for a machine that others use changes meanwhile
        measure(server, "/", 8, 1)
        note("hello again", [best(server, "/", one, seconds) for one in CONNECTIONS])
    starts, computed, memory = [], [], 0.0
    for _ in range(3):
        with servers.forecastle(home, "boosted") as server:
            starts.append(round(server.started_in, 2))
            computed.append(round(server.computed, 2))
            memory = server.mib()
    found: dict[str, Any] = {
        "sides": sides,
        "starts": starts,
        "computed": computed,
        "mib": round(memory),
        "tick": _tick(home),
    }
    found |= {"facts": stage.facts(home)}
    found["bars"] = [bar(*one) for one in _bars(found)]
    return found


def bar(told: str, value: float, most: float, at_least: bool = False) -> dict[str, Any]:
    """Return a bar, what was found, and whether it is met."""
    return {
        "bar": told,
        "found": round(value, 3),
        "limit": f"{'≥' if at_least else '≤'} {most:g}",
        "met": value >= most if at_least else value <= most,
    }


_SAID = {"mlflow": "no signature", "mlflow signed": "a signature"}


def _bars(found: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    def of(side: str, figure: str, connections: int = 8) -> float:
        value: float = next(one[figure] for one in found["sides"][side] if one["connections"] == connections)
        return value

    def hello(figure: str) -> float:
        return (of("hello", figure) + of("hello again", figure)) / 2

    yield "GET …/forecasts/{series}: requests/s, × hello world's", of("forecasts", "per_second") / hello(
        "per_second"
    ), 0.7, True
    for name in stage.CHAMPIONS:
        side = f"predict {name}"
        kind = "LightGBM" if name == "boosted" else "the blend"
        for other, said in _SAID.items():
            more = of(side, "per_second") / of(other, "per_second")
            less = of(other, "cpu_micros") / of(side, "cpu_micros")
            told = f"POST …/predict, {kind}: requests/s, × mlflow's with a ready-made row, {said}"
            yield told, more, 15, True
            yield f"{told}, by cpu", less, 15, True
        yield f"POST …/predict, {kind}: cpu, × hello world's", of(side, "cpu_micros") / hello("cpu_micros"), 4
        yield f"POST …/predict, {kind}: p99 in ms at 8 connections (hello world's: {hello('p99_ms'):.1f})", of(
            side, "p99_ms"
        ), 10
        for other, said in _SAID.items():
            yield f"POST …/predict, {kind}: p99, × mlflow's, {said}", of(side, "p99_ms") / of(other, "p99_ms"), 0.1
    for other, said in _SAID.items():
        ratio = of("predict 100", "per_second") / of(f"{other} 100", "per_second")
        told = f"POST …/predict with 100 series: requests/s, × mlflow's with 100 ready-made rows, {said}"
        yield told, ratio, 5, True
        yield f"{told}, by cpu", of(f"{other} 100", "cpu_micros") / of("predict 100", "cpu_micros"), 5, True
    yield "10 000 series forecast anew: seconds", found["tick"]["seconds"], 3
    yield "10 000 series forecast anew: MiB", found["tick"]["mib"], 1024
    yield "start to the first 200 of /ready: seconds, the best of three", min(found["starts"]), 1
    yield "resident memory with one task: MiB", found["mib"], 180


def told(found: dict[str, Any]) -> Iterator[str]:
    """Yield the page."""
    yield HEAD
    busy = "; others were at work on it, so look at ratios alone" if found["load"] >= found["cores"] else ""
    yield f"{found['at']}, on a machine of {found['cores']} cores with a load of {found['load']:g}{busy}.\n"
    yield "| Bar | Limit | Found | |"
    yield "|---|---:|---:|---|"
    for one in found["bars"]:
        yield f"| {one['bar']} | {one['limit']} | {one['found']:.2f} | {'met' if one['met'] else '**missed**'} |"
    yield "\n| Side | Connections | Requests/s | p50 ms | p99 ms | cpu µs | Faults |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for side, each in found["sides"].items():
        for one in each:
            figures = f"{one['per_second']:.0f} | {one['p50_ms']:.1f} | {one['p99_ms']:.1f} | {one['cpu_micros']:.0f}"
            yield f"| {side} | {one['connections']} | {figures} | {one['faults']} |"
    steps = ", ".join(f"{name} {seconds} s" for name, seconds in found["tick"]["steps"].items())
    steps += f"; {found['tick']['cpu_seconds']} s of the processor"
    yield f"\nA tick of 10 000 series: {steps}. The booster has {found['facts']['trees']} trees of "
    yield f"{found['facts']['features']} features and the step ahead. A start takes the processor"
    yield f"{min(found['computed'])} s to the first 200.\n"


def _tick(home: Path) -> dict[str, Any]:
    program = [sys.executable, "-m", "benchmarks.serving.tick", str(home)]
    said = ""
    for _ in range(2):  # the first fills the history, if there is none
        said = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    if not said.strip():
        said = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(said)
    return found
