"""The report as one page that needs nothing else: style, charts and pictures inside, made to be read and to be "
"printed."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from forecastle.data.pages import templates
from forecastle.reporting.document import Document
from forecastle.reporting.markdown import anchor, heading

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"
_MARKS = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((https?://[^)\s]+|[\w./#-]+)\)|\*\*([^*]+)\*\*")


def html(document: Document, folder: Path) -> str:
    """Return the whole report; pictures are read from the folder it lies in."""
    return _template().render(document=document, picture=lambda path: _embedded(folder / path))


def marked(text: str) -> Markup:
    """Return text with its marks as elements: code, links, what is strong."""
    parts, end = [], 0
    for found in _MARKS.finditer(text):
        parts.append(escape(text[end : found.start()]))
        code, words, address, strong = found.groups()
        if code:
            parts.append(Markup("<code>{}</code>").format(code))
        elif strong:
            parts.append(Markup("<strong>{}</strong>").format(strong))
        else:
            parts.append(Markup('<a href="{}">{}</a>').format(address, words))
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


@lru_cache
def _template() -> Template:
    environment = templates(TEMPLATES)
    environment.filters |= {"marked": marked, "anchor": anchor, "heading": heading}
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html", globals={"style": style})
