"""Debian's Chromium by Playwright, and a dashboard in a process of its own; every request of a page is seen, no other host resolved."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-domain-reliability", "--disable-client-side-phishing-detection", "--metrics-recording-only", "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 90
STILL = "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
"""The page's script has ended, and the server is there."""


def executable() -> str:
    """Chromium's program; whoever needs it is told how it is installed."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "there is no Chromium: `apt-get install chromium` (or CHROMIUM=/its/program) lets this run"
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window; each person in it is a context (`someone`)."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=FLAGS, timeout=SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        yield browser
        browser.close()


def someone(browser: Browser, *, width: int = 1300, height: int = 900, **options: Any) -> BrowserContext:
    """A person of their own: no cookie, cache or tab is shared with another."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(SECONDS * 1000)
    return context


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def dashboard(
    sae: object = "", *flags: str, cwd: Path, env: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[Any]:
    """`interp dashboard SAE` in a folder: its process, with `address`, once it answers; on a free port unless one is given."""
    port = port or free_port()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else a terminated script leaves the server behind
    call = [sys.executable, "-m", "interp.cli", "dashboard", *([str(sae)] if sae else []), "--port", str(port), *flags]
    server: Any = subprocess.Popen(call, cwd=cwd, env=os.environ | dict(env or {}), start_new_session=True)
    server.address = f"http://127.0.0.1:{port}"
    try:
        answers(server, f"{server.address}/_stcore/health")
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(server: Any, address: str) -> None:
    """Wait until a process answers at an address."""
    end = time.monotonic() + SECONDS
    while True:
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < end, "the server does not answer"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)


def settled(page: Page) -> None:
    """Wait until the page's script has ended."""
    expect(page.locator(STILL)).to_have_count(1)


def hears(page: Page) -> None:
    """Wait until the page's script has ended and keys are heard, which the button that lists them says."""
    settled(page)
    expect(page.locator(".st-key-keyboard .open")).to_be_visible()


def watched(page: Page) -> list[str]:
    """Every address that the tab asks for from now on, its icon's among them, which Playwright's own events leave out."""
    asked: list[str] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    session.on("Network.webSocketCreated", lambda event: asked.append(event["url"]))
    return asked


def others(asked: list[str]) -> list[str]:
    """Those of another host; None is the host of data: and blob:."""
    return [url for url in asked if urlsplit(url).hostname not in ("127.0.0.1", None)]


def dots(page: Page) -> list[tuple[int, float, float]]:
    """(feature, x, y) of each dot of the map, once it is drawn."""
    where = (
        "(map) => { const s = map.interp; if (!s?.px) return null; const box = s.canvas.getBoundingClientRect(); "
        "return s.map.feature.map((f, i) => [f, box.left + s.px[i], box.top + s.py[i]]) }"
    )
    drawn, end = page.locator(".map").first, time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := drawn.evaluate(where):
            return [(int(feature), x, y) for feature, x, y in found]
        page.wait_for_timeout(50)
    raise AssertionError("the map was not drawn")
