"""Drive a headless Chromium over its DevTools pipe: what tests of pages need, without another package.

    us ──descriptor 3 of the browser──▶ JSON, each ended by a NUL ──descriptor 4──▶ us

FABRIC_CHROMIUM names the program; else it is looked for by its usual names (Debian: apt install chromium).
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root has none, and the pages are ours
    "--disable-dev-shm-usage",  # the guard of these tests looks there
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    # One process for all pages, which is there from the beginning: no test starts one, or waits for one to end.
    "--disable-features=BackForwardCache,IsolateOrigins,MediaRouter,OptimizationHints,SpareRendererForSitePerProcess",
    "--disable-site-isolation-trials",
    "--renderer-process-limit=1",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 30.0  # seconds for anything that a page is waited for


def find_chromium() -> str | None:
    """Return the path of a Chromium; None: there is none."""
    named = os.environ.get("FABRIC_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """A browser, and the one tab that it has at a time. What that logs, and exceptions in it, are in `complaints`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []

    @contextmanager
    def tab(self) -> Iterator["Page"]:
        """Open a tab to work in, and close it."""
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        try:
            yield self
        finally:
            self._session = None
            self.call("Target.closeTarget", targetId=target)

    def quit(self) -> None:
        """End the browser."""
        self.call("Browser.close")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def show(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open an address in a window of this size, and wait until it is loaded."""
        self.resize(width, height)
        self.prefer(dark)
        self.call("Page.navigate", url=url)
        self.wait_until(f"document.readyState === 'complete' && location.href === {json.dumps(url)}")

    def prefer(self, dark: bool) -> None:
        """Have the user prefer dark pages, or light ones."""
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.complaints}"
            time.sleep(0.01)  # a poll: the page has many events, and none for what is on it

    def screenshot(self, path: Path) -> Path:
        """Write a PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select([self._read], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.complaints.append(parameters["entry"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("warning", "error", "assert"):
            self.complaints.append(str(parameters["args"]))


@contextmanager
def browse(folder: Path) -> Iterator[Page]:
    """Run a browser; its files are in `folder`, and it is gone with all its processes afterwards."""
    chromium = find_chromium()
    assert chromium is not None
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    command = ["bash", "-c", shell, "browser", chromium, *_OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with open(folder / "browser.log", "wb") as log:
        browser = subprocess.Popen(command, pass_fds=(to_browser, from_browser), stdout=log, stderr=log)
    os.close(to_browser)
    os.close(from_browser)
    try:
        page = Page(write, read)
        yield page
        page.quit()
    finally:
        os.close(write)
        os.close(read)
        try:
            browser.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
