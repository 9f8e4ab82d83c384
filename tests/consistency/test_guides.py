"""The how-to guides are true: their code is run as it stands, their commands exist, every alarm has its chapter."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from forecastle import withholding
from forecastle.data import transformation
from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel
from forecastle.data.providers import PROVIDERS, Provider
from forecastle.data.quality_check import CHECKS, Check, judge
from forecastle.errors import AnswerChanged
from forecastle.models.learning import Lesson, Options
from forecastle.settings import Settings
from forecastle.task import load_task

GUIDES = ("howto-provider", "howto-check", "howto-feature", "howto-estimator")


@pytest.fixture
def guide(root: Path):
    """Run a guide's Python and return what it defines."""

    def run(name: str) -> SimpleNamespace:
        text = (root / "docs" / f"{name}.md").read_text(encoding="utf-8")
        space: dict[str, Any] = {}
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            exec(compile(block, name, "exec"), space)
        return SimpleNamespace(**space)

    return run


def test_the_task_of_the_provider_guide_loads(root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "howto-provider.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "ozone.toml").write_text(block, encoding="utf-8")
    task = load_task(tmp_path / "ozone.toml")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    settings = Settings(home=tmp_path, http_json_key="k", _env_file=None)  # type: ignore[call-arg, arg-type]
    (asked,) = PROVIDERS[task.source.provider].requests(task, settings, now - timedelta(hours=6), now, now)
    assert asked.address.startswith("https://air.example.org/v1/stations/DE-042/readings?from=2025-12-31T18:00:00")
    assert "token=k" not in asked.address


def test_the_provider_of_its_guide_asks_and_reads(guide, small_task) -> None:
    tides = guide("howto-provider")
    series = [{"id": "cuxhaven"}, {"id": "husum"}]
    columns = {"level": {}}
    task = small_task(target="level", columns=columns, series=series, source={"provider": "binance"}, horizon="2h")
    provider = Provider(tides.requests, tides.parse)
    now = datetime(2024, 1, 2, tzinfo=UTC)
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    asked = provider.requests(task, settings, now - timedelta(days=1), now, now)
    assert [one.params["gauge"] for one in asked] == ["cuxhaven", "husum"]
    rows = provider.parse(task, asked[1], b'{"levels": [["2024-01-01T00:00Z", 1.2], ["2024-01-01T01:00Z", null]]}')
    assert rows.to_dicts() == [
        {"series_id": "husum", "timestamp": datetime(2024, 1, 1, 0, tzinfo=UTC), "level": 1.2},
        {"series_id": "husum", "timestamp": datetime(2024, 1, 1, 1, tzinfo=UTC), "level": None},
    ]
    with pytest.raises(AnswerChanged):
        provider.parse(task, asked[0], b'{"error": "no such gauge"}')


def test_the_check_of_its_guide_warns_of_a_leap_and_stands_any_table(
    guide, monkeypatch, small_task, observations
) -> None:
    leap = guide("howto-check").leap
    monkeypatch.setitem(CHECKS, "leap", Check(leap, one="warn", all="warn"))
    task = small_task(columns={"y": {"minimum": 0, "maximum": 30}, "x": {}})
    good = observations(hours=48)
    start, now = good["timestamp"].min(), good["timestamp"].max() + timedelta(hours=1)
    there = (pl.col("series_id") == "a") & (pl.col("timestamp") == start + timedelta(hours=9))
    bad = good.with_columns(y=pl.when(there).then(29.9).otherwise("y"))

    def verdict(rows: pl.DataFrame) -> str:
        return {one.check: one.verdict for one in judge(task, rows, start, now, now)[0].findings}["leap"]

    assert [verdict(good), verdict(bad), verdict(good.clear())] == ["pass", "warn", "pass"]
    assert verdict(good.with_columns(y=pl.lit(None, dtype=pl.Float64))) == "pass"


def test_the_feature_of_its_guide_serves_the_bits_it_trains(guide, monkeypatch, small_task, observations) -> None:
    bend = guide("howto-feature").bend
    monkeypatch.setattr(transformation, "ORIGIN_FEATURES", (*transformation.ORIGIN_FEATURES, bend))
    task = small_task()
    panel = build_panel(observations(hours=60), task)
    recipe = transformation.make_recipe(task, panel)
    all_rows = transformation.origin_features(recipe, panel, np.arange(panel.size))
    one_row = transformation.origin_features(recipe, panel, np.array([40]))
    place, values = all_rows.names.index("bend_3"), panel.values[0]
    assert all_rows.matrix[40].tobytes() == one_row.matrix[0].tobytes()
    assert all_rows.matrix[40, place] == np.float32(values[40] - 2 * values[37] + values[34])


def test_the_estimator_of_its_guide_learns_the_better_of_two_naive_methods(guide, small_task, observations) -> None:
    between = guide("howto-estimator").BETWEEN
    task = small_task()
    panel = build_panel(observations(hours=300), task)
    examples = make_examples(transformation.make_recipe(task, panel), panel, np.arange(panel.size))
    until = int(np.median(examples.origins))
    fitted = between.learn(Lesson(examples, until, Options()))
    assert json.loads(json.dumps(fitted.numbers)) == fitted.numbers
    forecast = between.predict(fitted, examples)
    after = examples.origins > until

    def error(made: np.ndarray) -> float:
        return float(np.nanmean((made[after] - examples.truth[after]) ** 2))

    assert error(forecast) < min(error(np.repeat(examples.last[:, None], 3, axis=1)), error(examples.seasonal))


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_names_where_its_code_goes(name: str, root: Path) -> None:
    text = (root / "docs" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]{2,}(?:_[A-Z]+)*)`", text)) - {"FILE", "NAME"}
    code = "\n".join(path.read_text(encoding="utf-8") for path in (root / "src" / "forecastle").rglob("*.py"))
    assert named and [one for one in named if not re.search(rf"^{one}\b", code, re.MULTILINE)] == []


def test_every_kind_of_incident_has_its_chapter_in_the_handbook(root: Path, task) -> None:
    from forecastle.collecting import WELCOME_FAILED
    from forecastle.monitoring import verdicts
    from forecastle.monitoring.incidents import REFUSED
    from forecastle.monitoring.rules import rules_for
    from forecastle.pipeline import LIVE

    kinds = {rule.name for rule in rules_for(task)} | {f"{step.name}-failed" for step in LIVE}
    kinds |= {WELCOME_FAILED, REFUSED, verdicts.REFUSED, withholding.KIND}
    handbook = (root / "docs" / "incidents.md").read_text(encoding="utf-8")
    chapters = re.findall(r"^### ([a-z-]+)$", handbook, re.MULTILINE)
    assert set(chapters) == kinds and len(chapters) == len(set(chapters))


def test_every_rendered_alert_links_to_its_chapter(task) -> None:
    from forecastle.monitoring.rendering import render, rendered

    handbook = "https://example.org/forecastle/incidents.html"
    files = render([task], handbook)
    for path in ("prometheus/rules.yml", "grafana/provisioning/alerting/rules.yaml"):
        linked = re.findall(r'runbook_url: "(.*)"', files[path])
        assert linked == [f"{handbook}#{one.rule.name}" for one in rendered([task])]
