"""What watches the system: metrics, the targets Prometheus scrapes, Grafana's panels, the alert rules."""

from __future__ import annotations

import re

from forecastle.duration import duration_text
from forecastle.monitoring.dashboard import ROWS
from forecastle.monitoring.metrics import METRICS
from forecastle.monitoring.rules import rules_for
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene


def metrics(scene: Scene) -> Found:
    """Find the metrics the service exposes, and what Prometheus is told to scrape."""
    table = [{"metric": one.name, "kind": one.kind, "says": one.help} for one in METRICS.values()]
    yield "metrics.table", Fact(table, "src/forecastle/monitoring/metrics.py: METRICS")
    yield "metrics.count", Fact(len(table), "src/forecastle/monitoring/metrics.py: METRICS")
    config = scene.repository / "monitoring" / "prometheus" / "prometheus.yml" if scene.repository else None
    text = config.read_text(encoding="utf-8") if config and config.is_file() else ""
    targets = re.findall(r"job_name: (\S+)\s+static_configs:\s+- targets: (\[.*\])", text)
    rows = [{"job": job, "targets": given.strip('[]"')} for job, given in targets]
    measure = "forecastle alerts render --tasks tasks --output monitoring"
    yield "metrics.targets", Fact(rows or None, "monitoring/prometheus/prometheus.yml", measure)
    interval = re.search(r"scrape_interval: (\S+)", text)
    yield "metrics.interval", Fact(interval[1] if interval else None, "monitoring/prometheus/prometheus.yml", measure)


def dashboard(scene: Scene) -> Found:
    """Find the panels of Grafana's dashboard with their queries; the first five are the service's."""
    panels = [
        {"row": row, "panel": panel.title, "query": panel.queries[0][0]} for row, of in ROWS.items() for panel in of
    ]
    source = "src/forecastle/monitoring/dashboard.py: ROWS"
    service = next(iter(ROWS))
    yield "dashboard.service", Fact([one for one in panels if one["row"] == service], source)
    yield "dashboard.panels", Fact(len(panels), source)
    yield "dashboard.rows", Fact(list(ROWS), source)


def rules(scene: Scene) -> Found:
    """Find the alert rules of the task."""
    table = [
        {
            "rule": one.name,
            "metric": one.metric,
            "fires when": f"{one.aggregation} {one.comparison} {one.threshold:g}",
            "for": duration_text(one.hold) if one.hold else "at once",
            "severity": one.severity,
            "asks to retrain": one.retrain,
        }
        for one in rules_for(scene.task)
    ]
    yield "rules.table", Fact(table, "src/forecastle/monitoring/rules.py")
    yield "rules.count", Fact(len(table), "src/forecastle/monitoring/rules.py")
