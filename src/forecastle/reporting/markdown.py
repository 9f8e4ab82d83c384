"""The report as Markdown: pictures and charts are files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forecastle.reporting.document import (
    Block,
    Bullets,
    Chart,
    Code,
    Document,
    Figure,
    Listing,
    Section,
    Table,
    Text,
    Tiles,
)


def markdown(document: Document) -> str:
    """Return the whole report."""
    parts = [f"# {document.title}", _table(("", ""), document.page, ()), "## Contents"]
    parts.append("\n".join(_contents(document.sections)))
    for section in document.sections:
        parts += _section(section, 2)
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(section: Section) -> str:
    """Return a section's number and title."""
    return f"{section.number} {section.title}".strip()


def anchor(section: Section) -> str:
    """Return the name a section is linked by."""
    kept = "".join(one for one in heading(section).lower() if one.isalnum() or one in " -")
    return kept.replace(" ", "-")


def _contents(sections: Sequence[Section], depth: int = 0) -> Iterator[str]:
    for section in sections:
        yield f"{'  ' * depth}- [{heading(section)}](#{anchor(section)})"
        yield from _contents(section.parts, depth + 1)


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * level} {heading(section)}"
    for block in section.blocks:
        yield _block(block)
    for part in section.parts:
        yield from _section(part, level + 1)


def _block(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case Bullets():
            return "\n".join(f"- {item}" for item in block.items)
        case Tiles():
            return _table(("", "", ""), block.tiles, ())
        case Table():
            return f"**{block.caption}**\n\n{_table(block.head, block.rows, block.numbers)}{_source(block.source)}"
        case Listing():
            return f"```text\n{block.text}\n```{_source(block.source)}"
        case Chart():
            named = ": ".join([block.title, *filter(None, [", ".join(name for _, name in block.key)])])
            return f"![{named}](charts/{block.name}.svg)\n\n*{block.title}*{_source(block.source)}"
        case Figure() if block.captured:
            told = f" {block.how}" if block.how else ""
            return f"![{block.title}]({block.path})\n\n*Figure {block.number}: {block.title}* (`{block.path}`){told}"
        case Figure():
            return (
                f"> **Figure {block.number}: {block.title}** (`{block.path}`): not captured. To capture it: {block.how}"
            )
        case Code():
            return "Code: " + ", ".join(f"`{path}`{_unless_there(found)}" for path, found in block.places)


def _unless_there(found: str) -> str:
    return "" if found == "there" else f" ({found})"


def _source(source: str) -> str:
    return f"\n\n<sub>Source: {source}</sub>" if source else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    rules = ["---:" if number in numbers else "---" for number in range(len(head))]
    lines = [head, rules, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
