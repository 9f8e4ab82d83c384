"""The rules as files for others: Prometheus' rules, Alertmanager's and Grafana's configuration, Grafana's dashboard.

Every file is written from ``rules`` and ``dashboard`` by a template beside this module; nothing is decided here but how
a rule reads as PromQL.

What is read from the stores every replica of the service tells alike, so it is taken once, however many there are or
were; what speaks of a whole window says nothing of a metric that was not there yet when the window began, but for a gap
in the scrapes just then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from forecastle.frame import write_text
from forecastle.monitoring.dashboard import dashboard
from forecastle.monitoring.incidents import REPEATED_EVERY
from forecastle.monitoring.metrics import METRICS
from forecastle.monitoring.rules import PAGE, Aggregation, Rule, rules_for
from forecastle.task import Task, duration_text

TEMPLATES = Path(__file__).parent / "templates"
FILES = {
    "prometheus/prometheus.yml": "prometheus.yml",
    "prometheus/rules.yml": "rules.yml",
    "prometheus/alertmanager.yml": "alertmanager.yml",
    "grafana/provisioning/datasources/prometheus.yaml": "datasource.yaml",
    "grafana/provisioning/dashboards/forecastle.yaml": "dashboards.yaml",
    "grafana/provisioning/alerting/rules.yaml": "grafana-rules.yaml",
    "grafana/provisioning/alerting/contact-points.yaml": "contact-points.yaml",
    "grafana/provisioning/alerting/policies.yaml": "policies.yaml",
}
DASHBOARD = "grafana/dashboards/forecastle.json"

_SEEN = "max by ({labels}) (present_over_time({series}[{grace}] offset {window}))"
PROMQL: dict[Aggregation, str] = {
    "last": "{worst} by ({labels}) ({series})",
    "min": f"min by ({{labels}}) (min_over_time({{series}}[{{window}}])) and {_SEEN}",
    "max": "max by ({labels}) (max_over_time({series}[{window}]))",
    "increase": f"max by ({{labels}}) (increase({{series}}[{{window}}])) and {_SEEN}",
    "p95": "histogram_quantile(0.95, sum by (task, le) (rate({series}[{window}])))",
}


@dataclass(frozen=True)
class Rendered:
    """A rule as Prometheus says it; ``number`` is what Grafana compares with the threshold itself."""

    rule: Rule
    uid: str
    alert: str
    number: str
    expression: str
    hold: str


def render(tasks: Sequence[Task], handbook: str = PAGE) -> dict[str, str]:
    """Return every file's text by its path, for the rules of these tasks; ``handbook`` is where alerts link to."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # none of these is markup; what is text is written as JSON, which YAML reads
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["text"] = lambda value: json.dumps(value, ensure_ascii=False)
    rules = rendered(tasks)
    filled = {"rules": rules, "handbook": handbook, "repeated": duration_text(REPEATED_EVERY)}
    files = {path: environment.get_template(name).render(**filled) for path, name in FILES.items()}
    return {**files, DASHBOARD: json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"}


def write(tasks: Sequence[Task], folder: Path, handbook: str = PAGE) -> tuple[Path, ...]:
    """Write the files into a folder, each whole or not at all; return where they lie."""
    return tuple(write_text(folder / path, text) for path, text in render(tasks, handbook).items())


def rendered(tasks: Sequence[Task]) -> tuple[Rendered, ...]:
    """Return the rules of all tasks: one for all of them where they agree, else one for those that do."""
    found: list[Rendered] = []
    keyed = {(task.name, rule.name): rule for task in tasks for rule in rules_for(task)}
    order = list(dict.fromkeys(name for _, name in keyed))
    for name in order:
        alike: list[tuple[Rule, list[str]]] = []
        for task in tasks:
            rule = keyed[task.name, name]
            same = next((names for known, names in alike if known == rule), None)
            if same is None:
                alike.append((rule, [task.name]))
            else:
                same.append(task.name)
        for number, (rule, names) in enumerate(alike):
            chosen = {} if len(alike) == 1 else {"task": "|".join(names)}
            found.append(as_promql(rule, chosen, "" if len(alike) == 1 else str(number + 1)))
    return tuple(found)


def as_promql(rule: Rule, chosen: Mapping[str, str], suffix: str = "") -> Rendered:
    """Return a rule as PromQL, for the tasks ``chosen`` by a pattern of their names."""
    name = f"{rule.metric}_bucket" if rule.aggregation == "p95" else rule.metric
    series = _series(name, rule, chosen)
    labels = ", ".join(METRICS[rule.metric].labels)
    filled = {"series": series, "window": _span(rule.window), "grace": _span(rule.grace), "labels": labels}
    number = PROMQL[rule.aggregation].format(**filled, worst="max" if rule.comparison == ">" else "min")
    if rule.metric == "up":
        number = series  # Prometheus' own, and of each replica another
    if rule.least is not None:
        metric, least = rule.least
        number += f" and on (task) {_series(metric, rule, chosen)} >= {least:g}"
    alert = "Forecastle" + "".join(part.capitalize() for part in rule.name.split("-")) + suffix
    left = f"({number})" if " and " in number else number  # `and` binds less tightly than the comparison
    uid = "-".join(["fc", rule.name, *([suffix] if suffix else [])])
    return Rendered(rule, uid, alert, number, f"{left} {rule.comparison} {rule.threshold:g}", _span(rule.hold))


def _series(metric: str, rule: Rule, chosen: Mapping[str, str]) -> str:
    labels = [f'{name}="{value}"' for name, value in rule.labels.items()]
    labels += [f'{name}=~"{value}"' for name, value in chosen.items()]
    return f"{metric}{{{','.join(labels)}}}" if labels else metric


def _span(length: timedelta) -> str:
    return duration_text(length) if length else "0s"
