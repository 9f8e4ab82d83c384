"""The report as a document: sections of blocks, which ``markdown`` and ``html`` write each in its own way.

Texts hold two marks, as Markdown has them: `code` between backticks and [words](address).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Tiles:
    """Figures that stand out: what it is, the figure, a note below it."""

    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """A table with where it was read; columns of numbers stand to the right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str = ""
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Listing:
    """Text as a machine wrote it."""

    text: str
    source: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing made of facts: its name as a file, its title, the SVG, the words of its colours."""

    name: str
    title: str
    svg: str
    key: Sequence[tuple[str, str]] = ()
    source: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture of what ran; ``how`` says what it shows, or, where it was not captured, how it is."""

    number: int
    title: str
    path: str
    captured: bool
    how: str


@dataclass(frozen=True)
class Code:
    """Where a part's code lies: each path, and whether it is there."""

    places: Sequence[tuple[str, str]]


Block = Text | Bullets | Tiles | Table | Listing | Chart | Figure | Code


@dataclass(frozen=True)
class Section:
    """A numbered part of the report; ``number`` is empty for the references."""

    number: str
    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence[Section] = field(default=())


@dataclass(frozen=True)
class Document:
    """The whole report: its title page and its sections."""

    title: str
    page: Sequence[tuple[str, str]]
    sections: Sequence[Section]
