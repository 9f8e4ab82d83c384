"""The committed report of the demo: every number in it stands in the facts beside it, and so does every picture."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forecastle.reporting.chapters import compose
from forecastle.reporting.evidence.pictures import FIGURES
from forecastle.reporting.facts import Facts, load, say
from forecastle.reporting.markdown import markdown
from forecastle.reporting.report import charts_of

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "docs" / "report"


@pytest.fixture(scope="module")
def facts(folder: Path) -> Facts:
    return load(folder / "report.json")


def numbers(value: Any) -> Iterator[str]:
    """Yield the numbers a fact holds, as they are shown and as they stand in texts."""
    if isinstance(value, dict):
        for one in (*value, *value.values()):  # a table's heads are its fields
            yield from numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif value is not None and not isinstance(value, bool):
        yield from NUMBER.findall(say(value))
        yield from NUMBER.findall(str(value))


def test_every_number_of_the_report_stands_in_its_facts(folder: Path, facts: Facts) -> None:
    known = set(numbers(facts.as_dict()))
    text = (folder / "report.md").read_text(encoding="utf-8")
    told = re.sub(r"^\s*- \[[\d.]+ .*$|^#+ [\d.]+ ", "", text, flags=re.MULTILINE)  # the sections' own numbers
    assert sorted({one for one in NUMBER.findall(told) if one not in known}) == []


def test_the_report_is_what_its_facts_come_to(folder: Path, facts: Facts) -> None:
    document = compose(facts)
    again = "forecastle report --facts docs/report/report.json writes it again"
    assert markdown(document) == (folder / "report.md").read_text(encoding="utf-8"), again
    for chart in charts_of(document):
        assert (folder / "charts" / f"{chart.name}.svg").read_text(encoding="utf-8") == chart.svg, again


def test_its_pictures_are_those_it_says_it_has_and_small(folder: Path, facts: Facts) -> None:
    captured = {row["path"] for row in facts.rows("pictures") if row["captured"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert captured == there
    assert sum((folder / path).stat().st_size for path in there) <= MOST_BYTES
    assert all(row["how"] for row in facts.rows("pictures") if not row["captured"])


def test_its_pictures_lie_where_the_brief_wants_them() -> None:
    paths = [one.path for one in FIGURES]
    assert len(set(paths)) == len(paths) and paths[1] == "docs/architecture.png"
    folders = {"phase1_data_ingestion": 8, "phase2_mlflow": 5, "phase3_cicd": 13, "phase4_monitoring": 7}
    for name, count in folders.items():
        own = [path for path in paths if path.startswith(f"screenshots/{name}/")]
        assert sorted(int(Path(path).name[:2]) for path in own) == list(range(1, count + 1))


def test_it_names_no_place_of_the_machine_it_was_made_on(folder: Path) -> None:
    for name in ("report.json", "report.md", "report.html"):
        assert not re.search(r"(?<![\w.])/(?:work|root|home|tmp)/\w", (folder / name).read_text(encoding="utf-8")), name


def test_its_facts_say_where_they_were_read(facts: Facts) -> None:
    assert [name for name in facts.names() if not facts.fact(name).source] == []
    assert facts.value("faults") == []


def test_the_diagram_claims_only_what_the_repository_bears_out(root: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "tools/architecture.py", "--check"], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_claim_that_is_not_borne_out_is_found(root: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("architecture", root / "tools" / "architecture.py")
    assert spec is not None and spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    sys.modules["architecture"] = drawing
    spec.loader.exec_module(drawing)
    arrow = {"from": "ingest", "to": "nowhere", "wired": ["src/forecastle/steps.py", "no such words"]}
    source = {"boxes": {"a": {"code": "src/none.py"}}, "arrows": [arrow]}
    assert len(drawing.unfounded(source)) == 3


def test_the_facts_are_strict_json(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
