"""How chapters make blocks of facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from forecastle.reporting.document import Block, Code, Figure, Listing, Table, Text
from forecastle.reporting.facts import NOT_MEASURED, NOT_TOLD, Facts, say, unmeasured

GAP = re.compile(rf"(?:{NOT_MEASURED}|{NOT_TOLD})(?:: `[^`]*`)?")  # what stands for a fact that is not there


def table(
    facts: Facts, name: str, caption: str, columns: Mapping[str, str] | None = None, most: int | None = None
) -> Block:
    """Return a fact that is a table, with these columns (field → heading; default: all as they are named), or that it
    was not measured. Columns of numbers alone stand to the right."""
    rows = facts.rows(name)
    if facts.value(name) is None:
        return Text(f"{caption}: {unmeasured(facts.fact(name))}.")
    if not rows:
        return Text(f"{caption}: none.")
    columns = columns or {key: key for key in rows[0]}
    shown = rows[:most]
    numbers = [
        place
        for place, field in enumerate(columns)
        if all(isinstance(row.get(field), int | float | None) and not isinstance(row.get(field), bool) for row in shown)
    ]
    cells = [[_cell(row.get(field)) for field in columns] for row in shown]
    return Table(caption, list(columns.values()), cells, facts.fact(name).source, numbers)


def pairs(facts: Facts, caption: str, said: Mapping[str, str]) -> list[Block]:
    """Return facts as a table of two columns and where each was read: what it is (heading) → the fact's name. Below it
    those that were not measured, and by what they would be."""
    rows = [[words, facts.text(name), facts.fact(name).source] for words, name in said.items() if name in facts]
    found: list[Block] = [Table(caption, ("", "found", "read from"), rows)] if rows else []
    missing: dict[str, list[str]] = {}
    for words, name in said.items():
        if name not in facts:
            missing.setdefault(unmeasured(facts.fact(name)), []).append(words)
    for how, wanted in missing.items():
        found.append(Text(f"{caption}, {how}, which would tell: {'; '.join(wanted)}."))
    return found


def said(about: str, *sentences: str) -> Text:
    """Return sentences as a paragraph, without those with a fact that was not measured: what would measure these is
    said once, and what it is ``about`` where nothing else is left."""
    kept = [one for one in sentences if not GAP.search(one)]
    gaps = "; ".join(dict.fromkeys(gap for one in sentences for gap in GAP.findall(one)))
    if not gaps:
        return Text(" ".join(kept))
    return Text(" ".join([*kept, f"{gaps[0].upper()}{gaps[1:]}."]) if kept else f"{about}: {gaps}.")


def figure(facts: Facts, number: int) -> Figure:
    """Return the picture of a figure's number."""
    row = next(one for one in facts.rows("pictures") if one["number"] == number)
    how = f"{row['how']}. Here: {row['why']}" if row["why"] else row["how"]
    return Figure(number, row["title"], row["path"], row["captured"], row["shows"] if row["captured"] else how)


def code(facts: Facts, part: str) -> Code:
    """Return where a part's code lies."""
    return Code([(row["path"], row["found"]) for row in facts.rows(f"code.{part}")])


def listing(facts: Facts, name: str, caption: str) -> Block:
    """Return a fact that is text, or lines of text, as it was written."""
    value = facts.value(name)
    if value is None:
        return Text(f"{caption}: {unmeasured(facts.fact(name))}.")
    return Listing(value if isinstance(value, str) else "\n".join(value), facts.fact(name).source)


def joined(items: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(say, value))
    return say(value)
