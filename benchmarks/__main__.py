"""Run the races and write what they show: ``python -m benchmarks``, or ``--quick`` to see only that they work."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import drift, features, gate, history, journal, scaling, training
from benchmarks.race import Race, run

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results.json", ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "images" / "scaling.svg"
RACES: tuple[Race, ...] = (
    *features.RACES,
    *gate.RACES,
    *history.RACES,
    *journal.RACES,
    *training.RACES,
    *scaling.RACES,
)
PACKAGES = ("polars", "numpy", "mlforecast", "coreforecast", "pandas", "pandera", "sqlalchemy", "lightgbm")

HEAD = """# Benchmarks

Written by `make benchmarks`; what each side does is told at the top of its module in `benchmarks/`.

Each side runs in a process of its own, one after the other, in turn, several times; the figures are medians.
Imports, loading the data and what a library does at its first use are not timed. Memory is the greatest
resident size of the whole process while it works, data and libraries included. Before anything is timed, the
sides' answers are compared.
"""


def main(arguments: list[str]) -> int:
    """Run the chosen races, or the study named drift; return 1 where a bar is missed (a quick run looks at no bar)."""
    if arguments[:1] == ["drift"]:
        return drift.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small tables, one run: no times are kept, no bar is held")
    parser.add_argument("--repeats", type=int, help="how often each side runs")
    parser.add_argument(
        "races", nargs="*", metavar="RACE", help=f"of {', '.join(race.name for race in RACES)}; or serving, by itself"
    )
    if arguments[:1] == ["serving"]:
        from benchmarks.serving import report

        return report.main(arguments[1:])
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.races) - {race.name for race in RACES}
    if unknown:
        parser.error(f"no race is called {', '.join(sorted(unknown))}")
    missed = 0
    for race in RACES:
        if (chosen.races and race.name not in chosen.races) or (chosen.quick and not race.quick):
            continue
        free = psutil.virtual_memory().available / 2**30
        if not chosen.quick and free < race.gib:
            print(f"{race.name}: left out, it needs {race.gib:g} GiB of free memory and there are {free:.1f}")
            missed += 1
            continue
        load = round(psutil.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(prefix="forecastle-race-") as folder:
            runs = run(race, Path(folder), chosen.quick, chosen.repeats)
        found: dict[str, Any] = {
            "title": race.title,
            "at": f"{datetime.now(UTC):%Y-%m-%d}",
            "load": load,
            "machine": machine(),
            "runs": runs,
        }
        found["bars"] = [
            {"bar": bar.told(), "most": bar.most, "found": round(bar.measured(runs), 3)} for bar in race.bars
        ]
        print("\n".join(told(race.name, found, not chosen.quick)), flush=True)
        if not chosen.quick:
            missed += sum(bar["found"] > bar["most"] for bar in found["bars"])
            _keep(race, found)
    return 1 if missed else 0


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    processor = platform.processor() or platform.machine()
    if (facts := Path("/proc/cpuinfo")).exists():
        models = [line.partition(":")[2].strip() for line in facts.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def told(name: str, found: dict[str, Any], bars: bool = True) -> Iterator[str]:
    """Yield a race's figures, and its bars, as Markdown."""
    yield f"### {found['title']} (`{name}`)\n"
    busy = "; others were at work on it, so look at ratios" if found["load"] >= found["machine"]["cores"] else ""
    yield f"{found['at']}, on a machine of {found['machine']['cores']} cores with a load of {found['load']:g}{busy}.\n"
    yield "| side | seconds (fastest – slowest) | of them computing | most memory |"
    yield "|---|---:|---:|---:|"
    for side, runs in found["runs"].items():
        seconds = [run["seconds"] for run in runs]
        middle, spent, mib = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_seconds", "mib"))
        yield f"| {side} | {middle:.3f} ({min(seconds):.3f} – {max(seconds):.3f}) | {spent:.3f} | {mib:,.0f} MiB |"
    if bars and found["bars"]:
        yield "\n| bar | found | |"
        yield "|---|---:|---|"
        for bar in found["bars"]:
            yield f"| {bar['bar']} | {bar['found']:.2f} | {'met' if bar['found'] <= bar['most'] else '**missed**'} |"
    yield ""


def _keep(race: Race, found: dict[str, Any]) -> None:
    """Put a race's figures beside those of the others, and write the page of all."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[race.name] = found
    known = {one.name: known[one.name] for one in RACES if one.name in known}
    if race.name == scaling.NAME:
        scaling.draw(found, PLOT)
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")
    PAGE.write_text("\n".join(_page(known)))


def _page(known: dict[str, Any]) -> Iterator[str]:
    yield HEAD
    machines: list[tuple[str, dict[str, Any]]] = []
    for name, found in known.items():
        yield from told(name, found)
        if name == scaling.NAME:
            yield f"![Seconds and memory over the number of series](images/{PLOT.name})\n"
        if (found["at"], found["machine"]) not in machines:
            machines.append((found["at"], found["machine"]))
    yield "## Measured on\n"
    for at, facts in machines:
        packages = ", ".join(f"{package} {number}" for package, number in facts["packages"].items())
        yield (
            f"- {at}: {facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
            f"Python {facts['python']}, {packages}"
        )
    yield ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
