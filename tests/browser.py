"""A real Chromium, driven over its DevTools pipe, whose pages' every request is seen, and that resolves no other host."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-domain-reliability "
    "--disable-client-side-phishing-detection --metrics-recording-only --mute-audio --window-size=1300,900"
)
CLOSED = "--host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 120
TEXT = (
    "(function deep(node) { return (node.innerText ?? '') + [...node.querySelectorAll('*')].filter((e) => e.shadowRoot)"
    ".map((e) => [...e.shadowRoot.children].map(deep).join('\\n')).join('\\n') })(document.body)"
)
"""What the page shows, what stands in shadow roots (components of our own) included."""


def executable() -> str:
    """Chromium's program; the tests that need it say how it is installed."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "there is no Chromium: `apt-get install chromium` (or CHROMIUM=/its/program) lets this test run"
    return found


class Navigated(Exception):
    """The page that was asked gave way to another before it answered."""


class Browser:
    """One tab."""

    def __init__(self) -> None:
        self.home = tempfile.mkdtemp(prefix="chromium-")
        read, self.out = os.pipe()
        self.into, write = os.pipe()
        self.events: list[dict[str, Any]] = []
        self.rest, self.number, self.session = b"", 0, ""
        flags = f"{FLAGS} --remote-debugging-pipe --user-data-dir={self.home} {CLOSED}"
        call = f'exec "{executable()}" {flags} about:blank 3<&{read} 4>&{write}'
        self.process = subprocess.Popen(
            ["bash", "-c", call], pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read)
        os.close(write)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command; events that come first are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                part = os.read(self.into, 1 << 20)
                assert part, "Chromium ended"
                self.rest += part
            raw, _, self.rest = self.rest.partition(b"\0")
            got = json.loads(raw)
            if got.get("id") == self.number:
                if "navigated" in got.get("error", {}).get("message", ""):
                    raise Navigated(got["error"]["message"])
                assert "error" not in got, got
                return got["result"]
            self.events.append(got)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """What a JavaScript expression gives."""
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str) -> Any:
        """What the expression gives once that is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                if value := self.run(script):
                    return value
            except Navigated:  # asked of the page that just went: the next is asked again
                pass
            time.sleep(0.2)
        raise AssertionError(f"{script} never came true; the page shows: {self.run('document.body.innerText')}")

    def shows(self, text: str) -> None:
        """Wait until the page has the text and Streamlit's script has ended."""
        running = "document.querySelector('[data-testid=stStatusWidget]')"
        self.wait(f"{TEXT}.includes({json.dumps(text)}) && !{running}")

    def picture(self, path: Path) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def others(self) -> list[str]:
        """Addresses on other hosts that pages asked for, the tab's icon among them."""
        self.run("1")  # reads the events that wait
        urls = [
            event["params"].get("request", event["params"]).get("url", "")
            for event in self.events
            if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
        ]
        local = ("127.0.0.1", None)  # None: data: and blob:
        return [url for url in urls if urlsplit(url).hostname not in local]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.home, ignore_errors=True)
