"""The report is made of facts and of nothing else: its sections are the brief's, no number in it is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from forecastle.reporting.chapters import compose
from forecastle.reporting.chapters.blocks import pairs, said
from forecastle.reporting.document import Document, Figure, Section, Table, Text
from forecastle.reporting.evidence.appendix import LOCATIONS
from forecastle.reporting.evidence.pictures import FIGURES
from forecastle.reporting.evidence.problem import PROVIDERS_TOLD
from forecastle.reporting.facts import Fact, Facts
from forecastle.reporting.html import html, marked
from forecastle.reporting.markdown import markdown
from forecastle.reporting.printing import browser, print_pdf
from forecastle.reporting.report import write
from forecastle.task import Provider

SECTIONS = (
    ("1", "Executive summary"),
    ("2", "Problem definition"),
    ("3", "System architecture"),
    ("4", "Phase I: data ingestion and processing"),
    ("5", "Phase II: experiments and model management"),
    ("6", "Phase III: continuous integration and delivery"),
    ("7", "Phase IV: monitoring and observability"),
    ("8", "Results"),
    ("9", "Challenges and solutions"),
    ("10", "Conclusion"),
    ("11", "Appendix"),
    ("", "References"),
)


@pytest.fixture
def nothing() -> Facts:
    """What there is where nothing was measured: the pictures' names."""
    rows = [
        {"number": number, "title": one.title, "path": one.path, "captured": False, "how": "", "shows": "", "why": ""}
        for number, one in enumerate(FIGURES, start=1)
    ]
    return Facts({"pictures": Fact(rows, "the folder")})


def figures(document: Document) -> list[int]:
    def walk(section: Section) -> list[int]:
        own = [block.number for block in section.blocks if isinstance(block, Figure)]
        return own + [number for part in section.parts for number in walk(part)]

    return [number for section in document.sections for number in walk(section)]


def test_the_sections_are_the_briefs_in_its_order(nothing: Facts) -> None:
    assert tuple((one.number, one.title) for one in compose(nothing).sections) == SECTIONS


def test_every_figure_stands_in_the_report_once_and_in_order(nothing: Facts) -> None:
    found = figures(compose(nothing))
    assert sorted(found) == list(range(1, len(FIGURES) + 1))
    assert [one for one in found if one <= 32] == list(range(1, 33))


def test_where_nothing_was_measured_no_number_is_told(nothing: Facts) -> None:
    document = compose(nothing)
    text = markdown(document)
    for section in document.sections[:-1]:
        assert re.search("not measured", markdown(Document("", [], [section])), re.IGNORECASE), section.title
    told = re.sub(r"^(#+|\s*- \[)\s?[\d.]+ .*$", "", text, flags=re.MULTILINE)  # the sections' own numbers
    for one in FIGURES:
        told = told.replace(one.path, "").replace(one.title, "")
    told = re.sub(r"Figure \d+", "", told)
    assert re.findall(r"\d+", told) == []


def test_a_paragraph_leaves_out_what_was_not_measured_and_says_once_what_would() -> None:
    facts = Facts({"a": Fact(3, "journal"), "b": Fact(None, "journal", "forecastle live")})
    first, second, third = (f"{name} is {facts.text(name)}." for name in ("a", "b", "b"))
    assert said("It", first, first) == Text("a is 3. a is 3.")
    assert said("It", first, second, third) == Text("a is 3. Not measured: `forecastle live`.")
    assert said("It", second) == Text("It: not measured: `forecastle live`.")


def test_a_table_of_pairs_leaves_out_what_was_not_measured_and_names_it_below() -> None:
    facts = Facts({"a": Fact(3, "journal"), "b": Fact(None, "journal", "forecastle live")})
    table, below = pairs(facts, "Figures", {"one": "a", "two": "b", "three": "b"})
    assert table == Table("Figures", ("", "found", "read from"), [["one", "3", "journal"]])
    assert below == Text("Figures, not measured: `forecastle live`, which would tell: two; three.")


def test_every_provider_is_told_by_name_and_documentation() -> None:
    assert set(PROVIDERS_TOLD) == set(get_args(Provider))
    assert [name for name, (_, page, _) in PROVIDERS_TOLD.items() if not page] == ["http-json", "file"]


def test_every_code_location_exists(root: Path) -> None:
    missing = [path for paths in LOCATIONS.values() for path in paths if not (root / path).exists()]
    assert missing == []


def test_a_page_needs_nothing_else_and_lets_no_text_become_markup(tmp_path: Path) -> None:
    table = Table("<i>caption</i>", ["a"], [["<script>alert(1)</script>"]], "<b>source</b>")
    page = html(Document("<title>", [("Team", "<em>")], [Section("1", "<h1>", [Text("<u>"), table])]), tmp_path)
    assert not re.search(r"<(script|i|b|em|u|h1)>(alert|caption|source|<)", page)
    assert re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', page) == []
    assert "default-src 'none'" in page


def test_marks_become_elements() -> None:
    assert str(marked("a `b<` [c](https://d.example) **e**")) == (
        'a <code>b&lt;</code> <a href="https://d.example">c</a> <strong>e</strong>'
    )


def test_a_cell_cannot_break_a_markdown_table() -> None:
    text = markdown(Document("t", [], [Section("1", "s", [Table("c", ["a"], [["x | y\nz <b>"]])])]))
    assert "| x \\| y z &lt;b> |" in text


def test_a_picture_that_was_not_captured_says_how_it_is(tmp_path: Path) -> None:
    missing = Document("t", [], [Section("1", "s", [Figure(3, "Title", "screenshots/a.png", False, "make it")])])
    assert "not captured. To capture it: make it" in markdown(missing)
    assert "Not captured. To capture it: make it" in html(missing, tmp_path)


def test_without_a_chromium_the_report_says_so(tmp_path: Path, nothing: Facts, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser() is None
    assert "apt-get install chromium" in print_pdf(tmp_path / "a.html", tmp_path / "a.pdf")
    written = write(nothing, tmp_path / "report")
    assert written.files == ("report.json", "report.md", "report.html") and written.without_pdf
