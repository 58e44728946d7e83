"""The dashboard in Chromium, its server a process of its own in another folder, its network watched."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import quote

import pytest

from interp.workbench import Workbench
from tests.browser import Browser

pytestmark = pytest.mark.slow
PAGES = {
    "": "Worth seeing",
    "features": "features",
    "feature?feature=3": "Where it fires",
    "neuron?neuron=0.3": "Nearest to what it writes",
    "prompt?text=The%20cat": "left out as sinks",
    "steer?edits=3,clamp,4": "Generate",
    "train": "Recipe",
    "evaluate": "No report of this SAE yet",
    "library": "recomputed on this machine",
    "jobs": "No job yet",
}


@pytest.fixture(scope="module")
def dashboard(checkpoint, text_folder, tmp_path_factory):
    """The address of a dashboard of the tiny SAE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_HOME", str(tmp_path_factory.mktemp("home")))
        Workbench.open(checkpoint).build_neuron_index(0, str(text_folder), 1024)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        call = [sys.executable, "-m", "interp.cli", "dashboard", str(checkpoint), "--port", str(port)]
        server = subprocess.Popen(call, cwd=tmp_path_factory.mktemp("elsewhere"), start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert server.poll() is None
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture
def browser():
    made = Browser()
    yield made
    made.close()


def test_the_watch_sees_a_request_to_another_host(browser):
    browser.open("data:text/html,<img src='https://elsewhere.invalid/x.png'>")
    browser.wait("document.readyState == 'complete'")
    assert browser.others() == ["https://elsewhere.invalid/x.png"]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_asks_another_host_for_anything(browser, dashboard, page):
    browser.open(f"{dashboard}/{page}")
    browser.shows(PAGES[page])
    time.sleep(1)  # what comes after the text
    assert browser.others() == []
    icons = browser.run("[...document.querySelectorAll('link[rel~=icon]')].map(link => link.href)")
    assert icons
    assert all(icon.startswith("data:image/svg") for icon in icons)
    assert browser.run("document.querySelector('[data-testid=stAppDeployButton]')") is None


def test_back_forward_and_reload_show_what_the_address_says(browser, dashboard, checkpoint):
    search = "document.querySelector('input[aria-label=Search]')"

    def shown(query):
        browser.wait(f"location.search.includes({quote(query, safe='')!r}) && {search}?.value == {query!r}")
        assert quote(str(checkpoint), safe="") in browser.run("location.search")

    browser.open(f"{dashboard}/?q=dead:no")
    shown("dead:no")
    browser.shows("features")
    browser.run(f"{search}.focus(); {search}.select()")
    browser.send("Input.insertText", text="dead:yes")
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
    shown("dead:yes")
    browser.run("history.back()")
    shown("dead:no")
    browser.run("history.forward()")
    shown("dead:yes")
    browser.send("Page.reload")
    shown("dead:yes")


def press(browser, key):
    """A key that gives a character."""
    browser.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
    browser.send("Input.dispatchKeyEvent", type="keyUp", key=key)


def test_a_slash_goes_to_the_search_and_a_question_mark_lists_the_keys(browser, dashboard):
    browser.open(dashboard)
    browser.wait("!!document.querySelector('input[aria-label=Search]')")
    press(browser, "/")
    assert browser.run("document.activeElement.ariaLabel") == "Search"
    press(browser, "?")  # in a text field it is a character
    assert browser.run("document.activeElement.value.endsWith('?')")
    browser.open(f"{dashboard}/library")
    listens = "[...document.querySelectorAll('.st-key-keyboard *')].some((e) => e.shadowRoot?.querySelector('.open')?.onclick)"
    browser.wait(f"location.pathname == '/library' && {listens}")
    press(browser, "?")
    dialog = "[...document.querySelectorAll('.st-key-keyboard *')].map(e => (e.shadowRoot ?? e).querySelector?.('dialog[open]')).find(Boolean)"
    assert "search" in browser.wait(f"{dialog}?.innerText")
    press(browser, "/")  # the list is open: it goes nowhere
    assert "library" in browser.run("location.pathname")


def test_a_click_on_the_map_opens_a_feature_and_an_outline_becomes_a_search(browser, dashboard):
    state = "[...document.querySelectorAll('*')].map((e) => e.shadowRoot?.querySelector('.map')?.interp).find(Boolean)"
    where = (
        f"(() => {{ const s = {state}; if (!s?.px) return null; const box = s.canvas.getBoundingClientRect(); "
        "return s.map.feature.map((f, i) => [f, box.left + s.px[i], box.top + s.py[i]]) })()"
    )

    def mouse(kind, x, y):
        browser.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    browser.open(dashboard)
    browser.shows("Worth seeing")
    found = browser.wait(where)
    x, y = max(x for _, x, _ in found) + 8, max(y for _, _, y in found) + 8
    left, top = min(x for _, x, _ in found) - 8, min(y for _, _, y in found) - 8
    mouse("mousePressed", left, top)
    for step in range(1, 11):
        mouse("mouseMoved", left + (x - left) * step / 10, top)
    for step in range(1, 11):
        mouse("mouseMoved", x, top + (y - top) * step / 10)
    mouse("mouseMoved", left, y)
    mouse("mouseReleased", left, y)
    browser.wait("location.search.includes('q=map')")
    browser.shows("found")
    _, x, y = browser.wait(where)[0]
    mouse("mousePressed", x, y)
    mouse("mouseReleased", x, y)
    browser.wait("location.pathname == '/feature'")
    assert "sae=" in browser.run("location.search")
