"""The documentation opened from its folder in a real browser: no server, no network, and its search finds."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCREENSHOT = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "screenshot.py")))


@pytest.fixture
def window(tmp_path, missing_component):
    if not SCREENSHOT.CHROMIUM.exists():
        missing_component("no Chromium at /usr/bin/chromium: apt-get install -y chromium fonts-dejavu-core")
    from playwright.sync_api import sync_playwright

    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(call, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    asked, complaints = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=SCREENSHOT.CHROMIUM, args=list(SCREENSHOT.ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "site" / "index.html").as_uri())
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert complaints == []


def test_the_site_is_read_and_searched_from_a_folder(window) -> None:
    window.locator("input[name=query]").click()
    window.keyboard.type("quarantine release")
    found = window.locator(".md-search-result__link").first
    found.wait_for(timeout=20_000)
    found.click()
    window.wait_for_url(lambda url: "index.html" not in url)
    assert "quarantine" in window.locator("article").inner_text().lower()
    window.get_by_role("link", name="Explanation").first.click()
    window.get_by_role("heading", name="Architecture").wait_for()
    assert window.get_by_role("img", name="The flows TRAIN and LIVE").evaluate("one => one.naturalWidth") > 0
