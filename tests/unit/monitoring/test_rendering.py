"""The rules as files: what Prometheus, Alertmanager and Grafana read is what the rules say, and they accept it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecastle.monitoring import rendering
from forecastle.monitoring.dashboard import ROWS, dashboard
from forecastle.monitoring.metrics import METRICS
from forecastle.monitoring.rules import rules_for
from forecastle.task import Task, load_tasks

SUFFIXES = ("_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def shipped(root: Path) -> tuple[Task, ...]:
    return load_tasks([root / "tasks"])


@pytest.fixture
def tool(missing_component: Callable[[str], None]) -> Callable[..., str]:
    """Call promtool or amtool and return what it says; it must be content."""

    def call(name: str, *arguments: object) -> str:
        if shutil.which(name) is None:
            missing_component(f"no {name}: tools/debian-package {name} prometheus (amtool: prometheus-alertmanager)")
        done = subprocess.run([name, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


def test_the_files_of_the_repository_are_what_the_rules_say(root: Path, shipped: tuple[Task, ...]) -> None:
    stale = [
        path
        for path, text in rendering.render(shipped).items()
        if (root / "monitoring" / path).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: forecastle alerts render --tasks tasks --output monitoring"
    there = {str(path.relative_to(root / "monitoring")) for path in (root / "monitoring").rglob("*") if path.is_file()}
    assert there == {*rendering.FILES, rendering.DASHBOARD}


def test_prometheus_and_alertmanager_accept_their_files(root: Path, tool: Callable[..., str]) -> None:
    folder = root / "monitoring" / "prometheus"
    assert "SUCCESS" in tool("promtool", "check", "config", folder / "prometheus.yml")
    assert "SUCCESS" in tool("amtool", "check-config", folder / "alertmanager.yml")


def test_a_rule_on_which_the_tasks_agree_is_written_once_and_holds_for_tasks_to_come(task: Task) -> None:
    other = task.model_copy(update={"name": "other"})
    agreed = [one.expression for one in rendering.rendered([task, other]) if one.rule.name == "data-stale"]
    assert agreed == ["max by (task) (forecastle_data_age_seconds) > 10800"]
    slower = task.monitoring.model_copy(update={"stale_after": timedelta(hours=9)})
    apart = rendering.rendered([task, other.model_copy(update={"monitoring": slower})])
    assert [(one.alert, one.expression) for one in apart if one.rule.name == "data-stale"] == [
        ("ForecastleDataStale1", 'max by (task) (forecastle_data_age_seconds{task=~"nyc-temperature"}) > 10800'),
        ("ForecastleDataStale2", 'max by (task) (forecastle_data_age_seconds{task=~"other"}) > 32400'),
    ]
    assert len({one.uid for one in apart}) == len({one.alert for one in apart}) == len(apart)


FIRING = [  # a rule, what makes it fire from the beginning on, and after how many minutes it does
    ("inference-slow", [('forecastle_prediction_seconds_bucket{task="t",le="0.5"}', "0+1x60"),
                        ('forecastle_prediction_seconds_bucket{task="t",le="1.0"}', "0+2x60"),
                        ('forecastle_prediction_seconds_bucket{task="t",le="+Inf"}', "0+2x60")], 6),
    ("data-drift", [('forecastle_drift_ratio{task="t"}', "0.11x60")], 0),
    ("concept-drift", [('forecastle_concept_drift{task="t"}', "1x60")], 0),
    ("data-stale", [('forecastle_data_age_seconds{task="t"}', "10801x60")], 0),
    ("no-forecasts", [('forecastle_predictions_total{task="t"}', "7x400")], 180),
    ("gate-failing", [('forecastle_gate_failing{task="t"}', "1x400")], 180),
    ("skill-lost", [('forecastle_live_skill{task="t",horizon="all"}', "-0.1x2000"),
                    ('forecastle_live_outcomes{task="t",horizon="all"}', "100x2000")], 1440),
    ("coverage-low", [('forecastle_live_coverage{task="t",horizon="all"}', "0.79x2000"),
                      ('forecastle_live_outcomes{task="t",horizon="all"}', "100x2000")], 1440),
    ("coverage-high", [('forecastle_live_coverage{task="t",horizon="all"}', "0.98x2000"),
                       ('forecastle_live_outcomes{task="t",horizon="all"}', "100x2000")], 1440),
    ("budget-nearly-spent", [('forecastle_budget_used_ratio{task="t",span="day"}', "0.91x60")], 0),
    ("service-down", [('up{job="forecastle"}', "0x60")], 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "series", "minutes"), FIRING)
def test_every_rule_fires_in_prometheus_when_its_time_has_come_and_not_before(
    task: Task, tmp_path: Path, tool: Callable[..., str], name: str, series: list[tuple[str, str]], minutes: int
) -> None:
    (one,) = [one for one in rendering.rendered([task]) if one.rule.name == name]
    (tmp_path / "rules.yml").write_text(rendering.render([task])["prometheus/rules.yml"], encoding="utf-8")
    labels = {"severity": one.rule.severity, "rule": name, "task": "t"} | dict(one.rule.labels)
    labels |= {"span": "day"} if "span" in series[0][0] else {}
    labels.pop("task") if name == "service-down" else None
    annotations = {"summary": one.rule.summary, "description": one.rule.action, "runbook_url": one.rule.runbook()}
    firing = [{"exp_labels": labels, "exp_annotations": annotations}]
    tests = [{"eval_time": f"{minutes}m", "alertname": one.alert, "exp_alerts": firing}]
    tests += [{"eval_time": f"{minutes - 1}m", "alertname": one.alert, "exp_alerts": []}] if minutes else []
    inputs = [{"series": known, "values": values} for known, values in series]
    written = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [{"interval": "1m"}]}
    written["tests"][0] |= {"input_series": inputs, "alert_rule_test": tests}  # type: ignore[index]
    (tmp_path / "test.yml").write_text(json.dumps(written), encoding="utf-8")
    tool("promtool", "test", "rules", tmp_path / "test.yml")


def test_every_rule_is_tried_so(task: Task) -> None:
    assert {case[0] for case in FIRING} == {rule.name for rule in rules_for(task)}


def test_grafana_gets_the_same_rules_as_an_instant_query_and_a_threshold(task: Task) -> None:
    (group,) = yaml.safe_load(rendering.render([task])["grafana/provisioning/alerting/rules.yaml"])["groups"]
    told = {one["labels"]["rule"]: one for one in group["rules"]}
    assert told.keys() == {rule.name for rule in rules_for(task)}
    for one in rendering.rendered([task]):
        rule = told[one.rule.name]
        query, threshold = rule["data"]
        assert (query["refId"], query["model"]["instant"], query["model"]["expr"]) == ("A", True, one.number)
        assert threshold["datasourceUid"] == "__expr__" and rule["condition"] == threshold["refId"] == "C"
        evaluator = threshold["model"]["conditions"][0]["evaluator"]
        assert threshold["model"]["expression"] == "A" and threshold["model"]["type"] == "threshold"
        assert (evaluator["type"], evaluator["params"]) == (
            {">": "gt", "<": "lt"}[one.rule.comparison],
            [one.rule.threshold],
        )
        assert {"uid", "title", "for", "noDataState", "execErrState"} <= rule.keys()


def test_whom_grafana_tells_exists(task: Task) -> None:
    files = rendering.render([task])
    points = yaml.safe_load(files["grafana/provisioning/alerting/contact-points.yaml"])["contactPoints"]
    assert {one["type"] for point in points for one in point["receivers"]} == {"slack", "email", "webhook"}
    (policy,) = yaml.safe_load(files["grafana/provisioning/alerting/policies.yaml"])["policies"]
    named = {policy["receiver"], *(route["receiver"] for route in policy["routes"])}
    assert named == {point["name"] for point in points}


def test_the_dashboard_begins_with_the_five_panels_everybody_looks_for() -> None:
    titles = [panel.title for panel in next(iter(ROWS.values()))]
    assert titles == ["API request count", "API latency", "Model predictions", "Prediction latency", "Data drift ratio"]


def test_panels_tile_the_grid_and_name_a_data_source_that_is_provisioned(root: Path) -> None:
    provisioned = (root / "monitoring/grafana/provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8")
    panels = dashboard()["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (one["gridPos"] for one in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and {x for x, _ in cells} == set(range(24))
    for target in (target for one in panels for target in one.get("targets", ())):
        assert target["datasource"]["uid"] in provisioned


def test_dashboard_and_rules_name_only_metrics_and_labels_that_exist(task: Task) -> None:
    for expression in _expressions(task):
        named = re.findall(r"\b(?:forecastle_\w+|up)\b", expression)
        assert named, expression
        for name in named:
            assert _metric(name) in METRICS, expression
        for metric, labels in re.findall(r"(forecastle_\w+|up)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)(?:=~|!=|=)", labels)) <= {*METRICS[_metric(metric)].labels, "le"}, expression
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            known = {label for name in named for label in METRICS[_metric(name)].labels}
            assert set(labels.split(", ")) <= {*known, "le"}, expression


def test_what_every_replica_reads_from_the_stores_is_shown_and_judged_once(task: Task) -> None:
    own = ("forecastle_requests_total", "forecastle_request_seconds", "forecastle_prediction_seconds", "up")
    for expression in _expressions(task):
        for name in set(re.findall(r"\b(?:forecastle_\w+|up)\b", expression)):
            if _metric(name) not in own:
                by = ", ".join(METRICS[name].labels)
                assert expression.lstrip("(").startswith((f"max by ({by}) (", f"min by ({by}) (")), expression


def test_a_text_with_quotes_and_colons_survives_the_templates(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = 'It says: "no" \\ {{ never }} # é'
    rule = replace(rules_for(task)[0], summary=odd)
    monkeypatch.setattr(rendering, "rules_for", lambda _: (rule,))
    files = rendering.render([task])
    (group,) = yaml.safe_load(files["prometheus/rules.yml"])["groups"]
    assert group["rules"][0]["annotations"]["summary"] == odd


def _expressions(task: Task) -> Iterator[str]:
    yield from (one.expression for one in rendering.rendered([task]))
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["expr"] for one in dashboard()["annotations"]["list"])


def _metric(name: str) -> Any:
    return next((name.removesuffix(end) for end in SUFFIXES if name.removesuffix(end) in METRICS), name)
