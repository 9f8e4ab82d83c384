"""The page in a real browser: what is drawn and read, that it refreshes, by keyboard, on a phone and in the dark."""

from __future__ import annotations

import runpy
import struct
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from forecastle.models import audit
from forecastle.models.audit import Event
from forecastle.monitoring.journal import Journal
from forecastle.serving.server import running
from forecastle.settings import Settings
from forecastle.task import load_task

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCREENSHOT = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "screenshot.py")))
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
MADE_UP = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "unit" / "serving" / "made_up.py")))


class Service:
    """A service of made-up stores at a real address, with a clock that is moved by hand."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.task = load_task(ROOT / "tasks" / "nyc-temperature.toml")
        self.now: datetime = MADE_UP.NOW
        self.address = ""

    def pass_an_hour(self) -> None:
        """Collect and forecast as one live run would."""
        self.now += timedelta(hours=1)
        origin = self.now.replace(minute=0)
        MADE_UP.append(self.settings, self.task, MADE_UP.observations(self.task, origin, origin))
        with Journal(self.settings.journal_url) as journal:
            journal.record(MADE_UP.forecasts(self.task, origin, origin))


@pytest.fixture
def service(tmp_path):
    settings = Settings(home=tmp_path / "home", port=0, _env_file=None)  # type: ignore[call-arg]
    made = Service(settings)
    MADE_UP.fill(settings, made.task)
    MADE_UP.publish_champion(settings, made.task)
    event = Event(made.now, "ann", "promote", "3", "", "It is the first.")
    audit.record(settings, made.task, event)
    empty = load_task(ROOT / "tasks" / "nyc-departure-delay.toml")
    with running(settings, [made.task, empty], lambda: made.now) as made.address:
        yield made


@pytest.fixture(scope="module")
def browser(request):
    if not SCREENSHOT.CHROMIUM.exists():
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=SCREENSHOT.CHROMIUM, args=list(SCREENSHOT.ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, service, missing_component):
    """Open the page in a window of its own; whatever the browser complains about fails the test."""
    if browser is None:
        missing_component("no Chromium at /usr/bin/chromium: apt-get install -y chromium fonts-dejavu-core")
    windows, complaints = [], []

    def open_one(path: str = "/", with_clock: bool = False, **options):
        window = browser.new_page(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        windows.append(window)
        window.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        window.on("pageerror", lambda error: complaints.append(str(error)))
        if with_clock:
            window.clock.install()
        window.goto(service.address + path)
        return window

    open_one.complaints = complaints
    yield open_one
    for window in windows:
        window.close()
    assert complaints == []


def test_the_forecast_and_the_measurements_are_drawn_and_the_numbers_can_be_read(open_page) -> None:
    window = open_page()
    for kind in ("line forecast", "line observed", "line past", "band"):
        box = window.locator(f'svg.chart path[class="{kind}"]').first.bounding_box()
        assert box is not None and box["width"] > 40 and box["height"] > 5, kind
    assert window.locator("#t0 .series svg.chart").count() == 3
    tiles = window.locator(".tiles").first.inner_text()
    assert "10 min" in tiles and "v3" in tiles and "promised +22.0 %" in tiles
    assert window.locator("#t0-s0").inner_text() == "EWR"


def test_the_lines_take_their_colours_from_the_style_sheet_under_the_strict_policy(open_page) -> None:
    window = open_page()
    colour = "selector => getComputedStyle(document.querySelector(selector)).stroke"
    assert window.evaluate(colour, "path.line.forecast") != "none"
    assert window.evaluate(colour, "path.line.forecast") != window.evaluate(colour, "path.line.observed")


def test_the_page_refreshes_by_itself_and_keeps_what_is_open_and_focused(open_page, service) -> None:
    window = open_page(with_clock=True)
    assert "Mon 16 Dec, 14:10" in window.locator(".status").first.inner_text()
    window.locator("summary").first.focus()
    window.keyboard.press("Enter")
    service.pass_an_hour()
    window.clock.fast_forward(16_000)
    window.get_by_text("Mon 16 Dec, 15:10").first.wait_for(timeout=10_000)
    assert window.locator("details[open]").count() == 1
    assert window.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert "measured Mon 16 Dec, 15:00" in window.locator(".series .card").first.inner_text()


def test_a_service_that_stops_answering_is_said_on_the_page(open_page) -> None:
    window = open_page(with_clock=True)
    window.context.set_offline(True)
    window.clock.fast_forward(16_000)
    window.get_by_text("The service does not answer").wait_for(timeout=10_000)
    window.context.set_offline(False)
    window.clock.fast_forward(16_000)
    window.get_by_text("The service does not answer").wait_for(state="detached", timeout=10_000)
    open_page.complaints.clear()  # the browser's own word for being offline


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, as `tools/axe` fetched it; empty where it has not."""
    script = ROOT / ".cache" / "axe" / "axe_playwright_python" / "axe.min.js"
    return script.read_text(encoding="utf-8") if script.exists() else ""


@pytest.mark.parametrize(
    ("path", "scheme", "size"),
    [("/", "light", DESK), ("/", "dark", PHONE), ("/docs", "light", PHONE), ("/login", "dark", DESK)],
    ids=["page-light-desk", "page-dark-phone", "docs", "login"],
)
def test_axe_finds_nothing_to_complain_about(open_page, missing_component, axe: str, path, scheme, size) -> None:
    if not axe:
        missing_component("no axe-core in .cache/axe: tools/axe")
    window = open_page(path, viewport=size, color_scheme=scheme)
    if path == "/":
        window.locator("summary").first.click()
    window.evaluate(axe)
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = window.evaluate("rules => axe.run({ runOnly: rules })", rules)
    assert len(found["passes"]) > 8
    assert [f"{one['help']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]] == []


def test_all_tasks_are_at_a_glance_and_lead_to_theirs(open_page) -> None:
    window = open_page()
    overview = window.get_by_role("navigation", name="Tasks")
    assert overview.get_by_role("listitem").count() == 2
    overview.get_by_role("link", name="nyc-departure-delay").click()
    assert window.locator("#t1").evaluate("one => Math.abs(one.getBoundingClientRect().top)") < DESK["height"]
    assert "#t1" in window.url


def test_drift_models_and_incidents_stand_in_cards_of_their_own(open_page) -> None:
    window = open_page()
    for name in ("Promise against delivery", "Drift", "Models", "Incidents"):
        card = window.get_by_role("region", name=f"nyc-temperature {name}", exact=True)
        assert card.bounding_box()["height"] > 60, name
    assert "v3 promoted" in window.get_by_role("region", name="nyc-temperature Models", exact=True).inner_text()
    fill = window.locator(".meter .fill").first
    assert fill.evaluate("one => getComputedStyle(one).fill") != "rgb(0, 0, 0)"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_fits_any_width_without_scrolling_sideways(open_page, width: int) -> None:
    window = open_page(viewport={"width": width, "height": 800})
    window.locator("summary").first.click()
    assert window.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 375])
def test_on_a_phone_no_table_is_wider_than_its_card(open_page, width: int) -> None:
    window = open_page(viewport={"width": width, "height": 800})
    window.locator("summary").first.click()
    tables = window.locator(".scroll:visible")
    assert tables.count() == 3
    assert tables.evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)") == [0, 0, 0]
    scores = window.get_by_role("row", name="1 hour", exact=False).last.inner_text().split()
    assert "+11.0" in scores and "+42.4" in scores  # what was promised, and below it what came


def test_the_keyboard_reaches_the_forecasts_first_and_their_numbers(open_page) -> None:
    window = open_page()
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.textContent") == "Skip to the forecasts"
    window.keyboard.press("Enter")
    for _ in range(3):
        window.keyboard.press("Tab")
        if window.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    window.keyboard.press("Enter")
    assert window.locator("details[open] table").first.is_visible()


def test_the_dark_page_is_dark_and_the_light_page_is_light(open_page) -> None:
    def lightness(scheme: str) -> float:
        window = open_page(color_scheme=scheme)
        colour = window.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in colour[4:-1].split(",")) / (3 * 255)

    assert lightness("dark") < 0.2 < 0.8 < lightness("light")


def test_the_charts_are_named_for_those_who_do_not_see_them(open_page) -> None:
    window = open_page()
    chart = window.get_by_role("img", name="EWR: temperature_2m from Sat 14 Dec, 14:10 to Mon 16 Dec, 20:00")
    assert chart.count() == 1


def test_the_documentation_of_the_api_opens_under_the_strict_policy(open_page) -> None:
    window = open_page("/docs")
    assert window.get_by_text("/v1/tasks/{task}/scores").count() == 1


def test_a_screenshot_is_one_call(open_page, browser, service, tmp_path) -> None:
    picture = SCREENSHOT.take(f"{service.address}/", tmp_path / "images" / "page.png", browser=browser)
    content = picture.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width == 1280 and height > 900
