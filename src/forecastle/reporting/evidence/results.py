"""What was promised and delivered: back-test and live scores, latency, uptime, drift, alerts, health; the studies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl

from forecastle.models.bundle import load as load_bundle
from forecastle.models.pointer import published
from forecastle.monitoring import alert_log, drift, uptime
from forecastle.monitoring.incidents import listing
from forecastle.monitoring.outcomes import live_scores
from forecastle.reporting.evidence.delivery import git
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene, read_json

FIGURES = ("rmse", "mae", "r2", "skill", "coverage", "n")
PROBE = "probe.json"  # in the reports' folder: what ``probing`` measured of a running service
WEEK = timedelta(days=7)
LOGGED = 8
LOAD, DRIFT = "python -m benchmarks serving", "python -m benchmarks drift"


def model(scene: Scene) -> Found:
    """Find what the champion's back-test promised and what its live forecasts delivered, on whole and by horizon."""
    measure = f"forecastle run train --task {scene.file}"
    current = published(scene.settings, scene.task)
    promised = load_bundle(current.folder, current.version).backtest if current else {}
    yield from _scores("results.backtest", promised, "the champion's bundle: back-test", measure)
    outcomes = scene.journal.outcomes(scene.task.name)
    delivered = live_scores(outcomes) if outcomes.height else {}
    live = f"forecastle live --task {scene.file}, for a day or more"
    yield from _scores("results.live", delivered, "journal: outcomes", live)
    counts = scene.journal.counts(scene.task.name)
    for name, count in counts.items():
        yield f"results.forecasts.{name}", Fact(count, "journal: forecasts")
    yield "results.forecasts.all", Fact(sum(counts.values()) or None, "journal: forecasts", live)
    interval = promised.get("skill_interval")
    yield "results.skill_interval", Fact(list(interval) if interval else None, "the back-test's bootstrap", measure)
    yield "results.unit", Fact(scene.task.unit, "the task file")
    yield "results.naive.rmse", Fact(_naive(promised), "RMSE of persistence: RMSE / (1 − skill)", measure)
    yield "results.curve", Fact(_curve(scene, outcomes), "journal: outcomes", live)


def system(scene: Scene) -> Found:
    """Find latency and throughput of the service, and its uptime."""
    measure = f"forecastle report --task {scene.file} --screenshots (it asks the service while it runs)"
    probed = read_json(scene.output / PROBE)
    yield "system.probe.requests", Fact((probed or {}).get("requests"), PROBE, measure)
    for name in ("p50_ms", "p95_ms", "p99_ms", "per_second", "at", "machine", "faults", "connections"):
        yield f"system.probe.{name}", Fact(
            (probed or {}).get(name), f"{PROBE}, measured on the running service", measure
        )
    summary = read_json(scene.settings.home.parent / "summary.json") or {}
    latency = summary.get("latency_ms") or {}
    for name in ("p50", "p99"):
        yield f"system.demo.{name}", Fact(latency.get(name), "the demo's summary.json", "forecastle demo")
    found = uptime.uptime(scene.journal)
    every = f"forecastle serve --tasks {scene.file}, which writes a heartbeat every few seconds"
    source = "journal: signs_of_life"
    yield "system.uptime.every", Fact(int(uptime.EVERY.total_seconds()), "src/forecastle/monitoring/uptime.py: EVERY")
    yield "system.uptime.share", Fact(round(found.share, 6) if found else None, source, every)
    yield "system.uptime.percent", Fact(round(100 * found.share, 3) if found else None, source, every)
    for name in ("seen", "slots", "first", "last"):
        yield f"system.uptime.{name}", Fact(getattr(found, name) if found else None, source, every)


def health(scene: Scene) -> Found:
    """Find drift, incidents, what was told of them, and when each kind of work last succeeded."""
    measure = f"forecastle live --task {scene.file}"
    flags = scene.journal.drift_flags(scene.task.name, drift.WINDOW, scene.now)
    yield "drift.ratio", Fact(drift.drift_ratio(flags), "journal: newest predictions", measure)
    yield "drift.predictions", Fact(len(flags), "journal: newest predictions")
    yield "drift.limit", Fact(scene.task.monitoring.drift_ratio, "the task file: monitoring.drift_ratio")
    found = listing(scene.journal, scene.task.name)
    rows = [
        {
            "number": one["number"],
            "kind": one["kind"],
            "opened": one["opened_at"],
            "closed": one["closed_at"] or "open",
            "reason": _short(one["reason"]),
            "steps": " → ".join(step["what"] for step in one["steps"]),
        }
        for one in found
    ]
    yield "incidents.table", Fact(rows, "journal: incidents")
    yield "incidents.count", Fact(len(rows), "journal: incidents")
    drifted = [row for row in rows if row["kind"] in ("data-drift", "concept-drift")]
    yield "drift.detected", Fact(drifted, "journal: incidents")
    yield "drift.count", Fact(len(drifted), "journal: incidents")
    log = alert_log.place(scene.settings)
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    yield "alerts.told", Fact(
        lines[-LOGGED:] or None, log.name, "forecastle live, until a rule fires; see docs/incidents.md"
    )
    yield "alerts.count", Fact(len(lines), log.name)
    beats = scene.journal.heartbeats(scene.task.name)
    work = [
        {"work": name, "succeeded": beat.count, "last": beat.at}
        for name, beat in sorted(beats.items())
        if ":" not in name
    ]
    yield "health.work", Fact(work or None, "journal: heartbeats", measure)


def studies(scene: Scene) -> Found:
    """Find the benchmarks and the drift study that stand in the repository, with their dates and machines."""
    benchmarks = scene.repository / "benchmarks" if scene.repository else None
    raced = read_json(benchmarks / "results.json") if benchmarks else None
    rows = [
        {
            "benchmark": one["title"],
            "measured": one["at"],
            "machine": _machine(one["machine"]),
            "bar": bar["bar"],
            "limit": bar["most"],
            "found": bar["found"],
            "kept": bar["found"] <= bar["most"],
        }
        for one in (raced or {}).values()
        for bar in one.get("bars", ())
    ]
    yield "studies.races", Fact(rows or None, "benchmarks/results.json", "make benchmarks (in a clone)")
    served = read_json(benchmarks / "serving" / "results.json") if benchmarks else None
    sides = (served or {}).get("sides", {})
    rows = [{"what": name, **_pick(one)} for name, measured in sides.items() for one in measured]
    yield "studies.serving", Fact(rows or None, "benchmarks/serving/results.json", LOAD)
    words = [served["at"], f"{served['cores']} cores", f"load {served['load']}"] if served else []
    yield "studies.serving.where", Fact(", ".join(words) or None, "benchmarks/serving/results.json", LOAD)
    names = {"bar": "bar", "limit": "limit", "found": "found", "met": "kept"}
    bars = [{words: one[name] for name, words in names.items()} for one in (served or {}).get("bars", ())]
    yield "studies.serving.bars", Fact(bars or None, "benchmarks/serving/results.json", LOAD)
    study = read_json(benchmarks / "drift.json") if benchmarks else None
    yield "studies.drift", Fact(_drift(study) if study else None, "benchmarks/drift.json", DRIFT)
    day = git(scene.repository, "log", "-1", "--format=%cs", "--", "benchmarks/drift.json")
    yield "studies.drift.day", Fact(day, "git log of benchmarks/drift.json", DRIFT)
    yield "studies.drift.machine", Fact(None, "the study notes none", DRIFT)
    false = (study or {}).get("false", {}).get("a_series_year")
    yield "studies.drift.false", Fact(
        false, "benchmarks/drift.json: false alarms a series-year", "python -m benchmarks drift"
    )


def _scores(name: str, found: dict[str, Any], source: str, measure: str) -> Found:
    for figure in FIGURES:
        yield f"{name}.{figure}", Fact(found.get(figure), source, measure)
    rows = [{key: one.get(key) for key in ("horizon", *FIGURES)} for one in found.get("horizons", ())]
    yield f"{name}.horizons", Fact(rows or None, source, measure)


def _naive(promised: dict[str, Any]) -> float | None:
    rmse, skill = promised.get("rmse"), promised.get("skill")
    return None if rmse is None or skill is None or skill >= 1 else round(rmse / (1 - skill), 4)


def _curve(scene: Scene, outcomes: pl.DataFrame) -> dict[str, Any] | None:
    """Return the newest week of one-step live forecasts of the first series, with interval and truth."""
    if outcomes.is_empty():
        return None
    name = str(outcomes["series_id"].min())
    first = outcomes.filter(pl.col("series_id") == name, pl.col("horizon") == outcomes["horizon"].min())
    week = first.filter(pl.col("timestamp") > pl.col("timestamp").max() - WEEK).sort("timestamp").tail(200)
    points = [
        {key: (round(row[key], 3) if row[key] is not None else None) for key in ("value", "lower", "upper", "actual")}
        | {"at": f"{row['timestamp']:%Y-%m-%d %H:%M}"}
        for row in week.unique("timestamp", keep="last").sort("timestamp").iter_rows(named=True)
    ]
    return {"series": name, "points": points}


def _short(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else f"{line[:157]}…"


def _pick(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name) for name in ("connections", "per_second", "p50_ms", "p99_ms")}


def _machine(said: Any) -> str:
    if not isinstance(said, dict):
        return str(said)
    parts = [str(said[name]) for name in ("processor",) if name in said]
    parts += [f"{said['cores']} cores"] if "cores" in said else []
    return ", ".join(parts)


def _drift(study: dict[str, Any]) -> list[dict[str, Any]]:
    """Return of each change how often it was found within 14 days, and its median delay in hours."""
    never = 9999
    rows = []
    for change, delays in study["delays"].items():
        found = sorted(one for one in delays if one < never)
        middle = sorted(delays)[len(delays) // 2 - 1 : len(delays) // 2 + 1]
        median = sum(middle) / len(middle)
        rows.append(
            {
                "change": change,
                "found": len(found),
                "of": len(delays),
                "median_hours": median if median < never / 2 else None,
            }
        )
    return rows
