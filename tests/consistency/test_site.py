"""The documentation as a site: built strictly, whole, with nothing that is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

# what a browser loads by itself; a link that somebody follows may lead anywhere
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
NAVIGATION = ["Start", "Tutorial", "How-to", "Reference", "Explanation", "Decisions"]


class _Page(HTMLParser):
    """What a page loads, where it links, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.anchors |= {known[name] for name in ("id", "name") if name in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        elif tag in LOADED and known.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(known.get(LOADED[tag], ""))


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: a warning is a failure."""
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        call, cwd=root, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path, root: Path) -> dict[Path, _Page]:
    """The pages that were made; what lies in docs/ as HTML is copied as it is."""
    made = [path for path in site.rglob("*.html") if not (root / "docs" / path.relative_to(site)).exists()]
    return {path: _Page(path.read_text(encoding="utf-8")) for path in made}


def test_every_document_is_in_the_site_and_grouped_by_what_it_is_for(site: Path, root: Path) -> None:
    documents = {path.relative_to(root / "docs").with_suffix("").as_posix() for path in (root / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    assert {"decisions/index" if one == "decisions/README" else one for one in documents} <= built
    tabs = re.search(r'<nav class="md-tabs".*?</nav>', (site / "index.html").read_text(encoding="utf-8"), re.DOTALL)
    assert tabs is not None
    assert re.sub(r"<[^>]*>|\s+", " ", tabs[0]).split() == " ".join(NAVIGATION).split()


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, _Page]) -> None:
    outside = re.compile(r"^(?:[a-z]+:)?//")
    loaded = {address for page in pages.values() for address in page.loaded if outside.match(address)}
    assert loaded == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"""(?:url\(|@import )["']?(?:https?:)?//""", styles) == []


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[Path, _Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if path.name == "404.html" or re.match(r"^(?:[a-z]+:)", link):
                continue
            place, _, anchor = unquote(link).partition("#")
            target = path if not place else (path.parent / place).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []
