"""The pages that data rooms leave behind: one file each, without scripts and without anything to fetch."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecastle.frame import iso, write_text

if TYPE_CHECKING:
    from jinja2 import Environment, Template

TEMPLATES = Path(__file__).parent / "templates"


def save_page(path: Path, template: str, flushed: bool = True, **context: Any) -> Path:
    """Fill a template of this package and write it, as ``frame.write_bytes`` does.

    The page holds its own style and allows itself nothing else: its content security policy names the style's digest,
    so a value from a source can never become markup or script.
    """
    return write_text(path, _template(template).render(**context), flushed)


def templates(folder: Path) -> Environment:
    """Return how templates of a folder are read: every value escaped, every unknown name an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache
def _template(name: str) -> Template:
    """Return a template that knows the pages' style and its digest; compiled once."""
    environment = templates(TEMPLATES)
    environment.filters["iso"] = iso
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template(name, globals={"style": style, "style_digest": digest})
