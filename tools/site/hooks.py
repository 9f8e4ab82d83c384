"""What MkDocs is told beside its settings: pages of the repository that lie outside docs/, and the decisions in order.

The documents link to each other as they lie in the repository, so that they can be read there as well. A link that
leaves docs/ leads to a copy of that file under `repository/` of the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).parent
COPIED = "repository"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
ASSETS = {"assets/site.css": OWN / "site.css", "assets/iframe-worker.js": OWN / "iframe-worker.js"}
ASSETS |= {"images/icon.svg": ROOT / "src" / "forecastle" / "serving" / "static" / "icon.svg"}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)\s#]+)([^)]*)\)")


def on_config(config: Any) -> Any:
    """List the decisions by their numbers, and at the start what mkdocs.yml puts nowhere."""
    sections = {name: pages for entry in config["nav"] for name, pages in entry.items()}
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    named = set(_named(config["nav"]))
    for page in pages:
        if page not in named:
            sections["Decisions" if page.startswith("decisions/") else "Start"].append(page)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what the documents lead to and what the site looks like."""
    from mkdocs.structure.files import File

    wanted = {f"{COPIED}/{name}": ROOT / name for name in PAGES} | ASSETS
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in PAGES)]:
        for _, link, _ in LINK.findall(page.read_text(encoding="utf-8")):
            target = Path(os.path.normpath(page.parent / link))
            if target.is_file() and not target.is_relative_to(ROOT / "docs"):
                wanted[f"{COPIED}/{target.relative_to(ROOT).as_posix()}"] = target
    for place, path in wanted.items():
        files.append(File.generated(config, place, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead each link to where its file lies in the site; of a link to a folder only the text stays."""
    here = page.file.src_uri
    copied = here.startswith(f"{COPIED}/")
    origin = PurePosixPath(here).relative_to(COPIED) if copied else PurePosixPath("docs") / here

    def moved(match: re.Match[str]) -> str:
        text, link, rest = match.groups()
        target = PurePosixPath(os.path.normpath(origin.parent / link))
        if (ROOT / target).is_dir():
            return text
        inside = target.is_relative_to("docs")
        place = target.relative_to("docs") if inside else PurePosixPath(COPIED) / target
        shown = LINK.sub(moved, text)  # a picture may be what is clicked
        return f"[{shown}]({os.path.relpath(place, PurePosixPath(here).parent).replace(os.sep, '/')}{rest})"

    return LINK.sub(moved, markdown)


def _named(nav: Any) -> Iterator[str]:
    """Yield every page that a navigation names."""
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(inner)
