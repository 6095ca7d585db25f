"""The dashboard's page in a headless Chromium: it shows what was sent, complains of nothing, and runs no foreign text.

Skipped, and said so, where there is no Chromium (see tests/browser.py). FABRIC_SCREENSHOTS=FOLDER keeps what it saw.
"""

import os
import re
from pathlib import Path

import pytest

from fabric import Fabric
from fabric.alerts import slow
from fabric.integrations import dashboard
from tests.browser import browse, find_chromium
from tests.dashboards import made_up_dashboard
from tests.made_up_figures import HOSTILE, PID

PAGE = Path(dashboard.__file__).parent
THEMES = {"light": r":root \{([^}]*)\}", "dark": r"dark\) \{\s*:root \{([^}]*)\}"}
WORKER = ["1", "working", str(PID + 1), "600,000", "1,234 /s", "0", "1.50 KiB", "21"]
WORKER += ["2.02 ms", "40.0 ms", "30.0 µs", "75 %", "–", "–", "0"]
needs_browser = pytest.mark.skipif(
    find_chromium() is None,
    reason="no Chromium is installed: the dashboard's page is NOT TESTED (Debian: apt install chromium)",
)
ENOUGH = "Number(document.documentElement.dataset.frames) >= 3"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser for all tests of this file: it takes seconds to start."""
    with browse(tmp_path_factory.mktemp("browser")) as started, started.tab():
        with made_up_dashboard() as made:
            started.show(made.url)  # what it starts for pages that are fetched is there from now on
        started.call("Page.navigate", url="about:blank")
        yield started


@pytest.fixture
def page(browser):
    """Its page, which complains of nothing in the end."""
    browser.complaints = []
    yield browser
    browser.call("Page.navigate", url="about:blank")
    assert browser.complaints == []


@pytest.fixture
def shown():
    """A dashboard whose figures are known, sampled quickly."""
    with made_up_dashboard(0.1, conditions=[slow(0.0001)]) as made:
        yield made


def _texts(page, selector):
    return page.evaluate(f"[...document.querySelectorAll({selector!r})].map(node => node.textContent)")


def _keep(page, name):
    folder = os.environ.get("FABRIC_SCREENSHOTS")
    if folder:
        page.screenshot(Path(folder) / f"{name}.png")


@needs_browser
def test_the_numbers_on_the_page_are_those_that_were_sent(page, shown):
    page.show(shown.url)
    page.wait_until(ENOUGH)
    tiles = dict(zip(_texts(page, ".tile h3"), _texts(page, ".tile .value"), strict=True))
    assert tiles["Messages"] == "2,468/s"
    assert tiles["Replies"] == "500/s"
    assert tiles["Errors"] == "0/s"
    assert tiles["Agents"] == "1,200,000"
    assert tiles["Questions open"] == "12"
    assert tiles["Queued"] == "4.50KiB"
    assert tiles["Bytes to workers"] == "4.00KiB/s"
    assert tiles["Round trip, p99"] == "500µs"
    assert _texts(page, "#workers tbody tr:first-child > *") == WORKER
    assert _texts(page, "#classes tbody tr > *")[1:4] == ["2,468 /s", "2.02 ms", "40.0 ms"]
    assert _texts(page, "dd[data-count=backpressure_seconds]") == ["250 ms"]
    assert "over 0.0001 s" in _texts(page, "#alerts li")[0]
    assert _texts(page, "#status") == ["live"]


@needs_browser
def test_names_are_text_whatever_they_hold(page, shown):
    page.show(shown.url)
    page.wait_until(ENOUGH)
    assert _texts(page, "#classes tbody th") == [HOSTILE]
    assert page.evaluate("document.title") == "shm-fabric"
    assert page.evaluate("document.images.length") == 0


@needs_browser
def test_each_chart_is_drawn_with_its_percentiles(page, shown):
    page.show(shown.url)
    page.wait_until(ENOUGH)
    assert _texts(page, "#times svg text.label") == [
        *("p99 30.0 µs", "p50 30.0 µs"),
        *("p99 40.0 ms", "p50 2.02 ms"),
        *("p99 500 µs", "p50 500 µs"),
    ]
    assert page.evaluate("[...document.querySelectorAll('#curves .curve')].every(line => line.getTotalLength() > 0)")
    assert "NaN" not in page.evaluate("document.body.innerHTML")


@needs_browser
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (1000, False), (700, True), (390, False), (390, True)]
)
def test_it_fits_wide_and_narrow_windows_in_dark_and_light(page, shown, width, dark):
    page.show(shown.url, width, 900, dark)
    page.wait_until(ENOUGH)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 64) == dark
    _keep(page, f"{'dark' if dark else 'light'}-{width}")


@needs_browser
def test_the_page_pauses_by_the_keyboard_and_goes_on(page, shown):
    page.show(shown.url)
    page.wait_until(ENOUGH)
    page.evaluate("document.getElementById('pause').focus()")
    _press_enter(page)
    assert page.evaluate("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    stood = page.evaluate("document.querySelector('dd[data-count=messages]').textContent")
    page.wait_until(f"view.seen > {page.evaluate('view.seen')} + 3")
    assert page.evaluate("document.querySelector('dd[data-count=messages]').textContent") == stood
    _press_enter(page)
    page.wait_until(f"document.querySelector('dd[data-count=messages]').textContent !== {stood!r}")


def _press_enter(page):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")


@needs_browser
def test_the_page_says_that_the_fabric_has_ended_and_keeps_the_last_figures(page):
    with Fabric(workers=1) as fab:
        page.show(dashboard.serve(fab, interval=0.05).url)
        page.wait_until(ENOUGH)
    page.wait_until("document.getElementById('status').textContent === 'ended'")
    assert _texts(page, "#notice") == ["The fabric has ended. These are the last figures."]
    assert len(_texts(page, "#workers tbody tr")) == 1


@needs_browser
def test_the_page_connects_again_by_itself(page):
    with made_up_dashboard(0.1) as first:
        page.show(first.url)
        page.wait_until(ENOUGH)
        first._loop.call_soon_threadsafe(lambda: [viewer._transport.abort() for viewer in first._feed.viewers])
        page.wait_until("document.getElementById('status').textContent.startsWith('connection lost')")
        page.wait_until("document.getElementById('status').textContent === 'live'")
    page.complaints = [one for one in page.complaints if "ERR_" not in one]  # the browser's own word of it


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("color", ["text", "soft", "blue", "orange", "green", "red"])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_text_can_be_told_from_its_ground(theme, color, ground):
    block = re.search(THEMES[theme], (PAGE / "page.css").read_text(encoding="utf-8"))[1]
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", block))
    light, dark = sorted((_luminance(colors[color]), _luminance(colors[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def _luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
