"""The report's chapters: each makes a section of the facts, and of nothing else. Their order and numbers are the "
"brief's."""

from __future__ import annotations

from collections.abc import Callable

from forecastle.reporting.chapters import end, front, phases, results
from forecastle.reporting.document import Document, Section
from forecastle.reporting.facts import Facts

CHAPTERS: tuple[Callable[[Facts], Section], ...] = (
    *(front.summary, front.problem, front.architecture),
    *(phases.phase_one, phases.phase_two, phases.phase_three, phases.phase_four),
    results.results,
    *(end.challenges, end.conclusion, end.appendix, end.references),
)


def compose(facts: Facts) -> Document:
    """Return the whole report."""
    return Document(facts.text("title.title"), front.title_page(facts), tuple(chapter(facts) for chapter in CHAPTERS))
