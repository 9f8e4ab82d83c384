"""The final report: facts read from what ran, and the documents made of them.

report.json   the facts, each with where it was read
report.md     the report, its charts beside it in charts/
report.html   the same as one page that needs nothing else
report.pdf    that page, printed by Chromium where there is one
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from forecastle.errors import UserError, plainly
from forecastle.frame import write_bytes, write_text
from forecastle.reporting.chapters import compose
from forecastle.reporting.document import Chart, Document, Section
from forecastle.reporting.evidence import gather
from forecastle.reporting.facts import Facts, save
from forecastle.reporting.html import html
from forecastle.reporting.markdown import markdown
from forecastle.reporting.printing import print_pdf
from forecastle.reporting.scene import Scene

JSON = "report.json"


@dataclass(frozen=True)
class Written:
    """What was written, and why not the PDF where it was not."""

    folder: Path
    facts: Facts
    files: tuple[str, ...]
    without_pdf: str

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The names of the facts that were not measured."""
        return tuple(name for name in self.facts.names() if self.facts.value(name) is None)

    @property
    def measures(self) -> dict[str, int]:
        """What would measure the facts that were not, such as a command, and how many of them each would."""
        return dict(Counter(how for name in self.unmeasured if (how := self.facts.fact(name).measure)))


def make(scene: Scene) -> Written:
    """Gather the facts, save them, and write the report from them into the scene's folder."""
    bring_diagram(scene)
    return write(gather(scene), scene.output)


def write(facts: Facts, folder: Path, beside: Path | None = None) -> Written:
    """Write the report from facts alone, and bring the pictures that lie ``beside`` them elsewhere. The same facts give
    the same Markdown."""
    save(folder / JSON, facts)
    bring_pictures(facts, folder, beside or folder)
    document = compose(facts)
    files = [JSON, "report.md", "report.html"]
    for chart in charts_of(document):
        write_text(folder / "charts" / f"{chart.name}.svg", chart.svg)
    write_text(folder / "report.md", markdown(document))
    page = write_text(folder / "report.html", html(document, folder))
    missing = print_pdf(page, folder / "report.pdf")
    return Written(folder, facts, (*files, *(() if missing else ("report.pdf",))), missing)


def charts_of(document: Document) -> Iterator[Chart]:
    """Yield the document's charts."""

    def walk(section: Section) -> Iterator[Chart]:
        yield from (block for block in section.blocks if isinstance(block, Chart))
        for part in section.parts:
            yield from walk(part)

    for section in document.sections:
        yield from walk(section)


def bring_pictures(facts: Facts, folder: Path, beside: Path) -> None:
    """Copy the captured pictures of another folder into the report's; UserError where one is not there."""
    for row in facts.rows("pictures"):
        source, target = beside / row["path"], folder / row["path"]
        if not row["captured"] or target.is_file():
            continue
        try:
            write_bytes(target, source.read_bytes())
        except OSError as error:
            raise UserError(f"the picture {source}", plainly(error), "Keep it beside its report.json.") from error


def bring_diagram(scene: Scene) -> None:
    """Lay the repository's architecture diagram beside the report, where its figure is looked for."""
    drawn = scene.repository / "docs" / "architecture.png" if scene.repository else None
    target = scene.output / "docs" / "architecture.png"
    if drawn is not None and drawn.is_file() and drawn != target:
        write_bytes(target, drawn.read_bytes())
