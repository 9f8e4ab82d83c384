"""Grafana's dashboard as data: rows of panels, each with the PromQL it shows.

What is read from the stores every replica of the service tells alike, so it is shown once, not added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from forecastle.monitoring.metrics import METRICS

DATASOURCE = {"type": "prometheus", "uid": "forecastle-prometheus"}
UID = "forecastle"
WIDTH, HEIGHT = 24, 8  # of Grafana's grid, and of a panel in it
RATE = "$__rate_interval"  # Grafana's own: long enough for its scrapes


@dataclass(frozen=True)
class Panel:
    """A panel: what it is called, how it draws, in which unit, its queries with their legends, and a limit to draw."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    limit: float | None = None


def _percentiles(metric: str, by: str) -> tuple[tuple[str, str], ...]:
    rate = f"sum by ({by}, le) (rate({metric}_bucket[{RATE}]))"
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return tuple((f"histogram_quantile({one}, {rate})", f"p{100 * one:g} {legend}") for one in (0.5, 0.95, 0.99))


def _stored(metric: str, chosen: str = "") -> str:
    return f"max by ({', '.join(METRICS[metric].labels)}) ({metric}{chosen})"


ROWS: dict[str, tuple[Panel, ...]] = {
    "The service": (
        Panel(
            "API request count",
            "short",
            ((f"sum by (route, status) (increase(forecastle_requests_total[{RATE}]))", "{{route}} {{status}}"),),
        ),
        Panel("API latency", "s", _percentiles("forecastle_request_seconds", "route")),
        Panel(
            "Model predictions",
            "short",
            (
                (
                    f"sum by (task, model_version) (increase(forecastle_prediction_seconds_count[{RATE}]))",
                    "asked for: {{task}} {{model_version}}",
                ),
                (_stored("forecastle_predictions_total"), "journalled, ever: {{task}}"),
            ),
        ),
        Panel(
            "Prediction latency", "s", _percentiles("forecastle_prediction_seconds", "task, model_version"), limit=0.5
        ),
        Panel("Data drift ratio", "percentunit", ((_stored("forecastle_drift_ratio"), "{{task}}"),), limit=0.1),
    ),
    "Forecast health": (
        Panel("Age of the series furthest behind", "s", ((_stored("forecastle_data_age_seconds"), "{{task}}"),)),
        Panel(
            "Forecasts scored, waiting, lost",
            "short",
            (
                (_stored("forecastle_outcomes_total"), "scored: {{task}}"),
                (_stored("forecastle_forecasts_waiting"), "waiting: {{task}}"),
                (_stored("forecastle_truth_never_came_total"), "truth never came: {{task}}"),
                (_stored("forecastle_outcomes_revised_total"), "truth revised: {{task}}"),
            ),
        ),
        Panel("Concept drift", "short", ((_stored("forecastle_concept_drift"), "{{task}}"),), limit=0.5),
        Panel(
            "The model that serves",
            "short",
            ((_stored("forecastle_model_info"), "{{task}}: version {{model_version}}, {{estimator}}"),),
            "stat",
        ),
    ),
    "Promise against delivery": tuple(
        Panel(
            f"{name}: promised and delivered",
            unit,
            (
                (_stored(f"forecastle_promised_{figure}", '{horizon="all"}'), "promised: {{task}}"),
                (_stored(f"forecastle_live_{figure}", '{horizon="all"}'), "delivered: {{task}}"),
            ),
        )
        for name, figure, unit in (
            ("RMSE", "rmse", "short"),
            ("Skill over persistence", "skill", "percentunit"),
            ("Coverage", "coverage", "percentunit"),
        )
    )
    + (
        Panel(
            "Live RMSE by step ahead",
            "short",
            ((_stored("forecastle_live_rmse", '{horizon!="all"}'), "{{task}} {{horizon}}"),),
        ),
    ),
    "Collecting and the gate": (
        Panel("The gate's verdicts", "short", ((_stored("forecastle_gate_verdicts_total"), "{{task}} {{verdict}}"),)),
        Panel("The gate refuses", "short", ((_stored("forecastle_gate_failing"), "{{task}}"),), limit=0.5),
        Panel("Work done", "short", ((_stored("forecastle_work_total"), "{{task}} {{work}}"),)),
        Panel("Bytes stored", "bytes", ((_stored("forecastle_stored_bytes"), "{{task}} {{store}}"),)),
    ),
    "Alarms and the loop back": (
        Panel("Open incidents", "short", ((_stored("forecastle_incidents_open"), "{{task}} {{kind}}"),)),
        Panel("Retrains", "short", ((_stored("forecastle_retrains_total"), "{{task}} {{result}}"),)),
        Panel(
            "Budget used", "percentunit", ((_stored("forecastle_budget_used_ratio"), "{{task}} {{span}}"),), limit=0.9
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it (schema 39: Grafana 10 and newer)."""
    return {
        "uid": UID,
        "title": "forecastle",
        "description": "Written by `forecastle alerts render`.",
        "tags": ["forecastle"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": []},
        "annotations": {
            "list": [
                {
                    "name": "Incidents",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": _stored("forecastle_incidents_open"),
                    "step": "60s",
                    "titleFormat": "{{kind}}",
                    "textFormat": "{{task}}",
                }
            ]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
        }
        left = 0
        for place, panel in enumerate(panels):
            number += 1
            width = (WIDTH - left) // (len(panels) - place)
            yield _panel(panel, number, {"x": left, "y": top + 1, "w": width, "h": HEIGHT})
            left += width
        top += HEIGHT + 1


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0} if panel.unit != "percentunit" else {"unit": panel.unit}
    if panel.limit is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        defaults |= {"custom": {"thresholdsStyle": {"mode": "line"}}}
    options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}}
    if panel.kind == "stat":
        options = {"textMode": "name", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(panel.queries)
        ],
    }
