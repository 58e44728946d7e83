"""The dashboard as a person meets it: Chromium without a window, the embedded SAE, a server of its own in a fresh home.

    python benchmarks/dashboard.py               # all; ten browsers for two minutes, 500 page views
    python benchmarks/dashboard.py --views 20 --seconds 5 --features 5      # to see that it runs

Every time is from the moment that an address is asked for, or a key pressed, until what was asked for stands on the page and the
page's script has ended. The first page is the first that anybody opens after the server answers, with every feature on its map;
the first sentence is typed there, `--wait` seconds later. A feature's page is timed by its address, in which the browser loads all of
Streamlit anew, and as people mostly get to it, by the button for the next one. Each of ten browsers at once is somebody who asks for a
feature, looks at it for `--looks` seconds, and asks for another; the browsers have the same two cores as the server.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from common import report
from playwright.sync_api import Error, Page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from interp import places  # noqa: E402
from interp.workbench import EMBEDDED, Workbench  # noqa: E402
from tests.browser import STILL, chromium, dashboard, dots, settled, someone  # noqa: E402

WORDS = "The old school stood beside a river, and every morning the children crossed the bridge to learn about Paris. "
SEARCHES = ("medicine and disease", "token:/^ ?(Paris|London)$/", "confirmed:yes sort:effect", "density:1e-4..1e-3")
BROWSERS = 10
NUMBER = ".head h1 .number"
FEATURES = 9216
Polling = float | Literal["raf"]
CROWD_ASKS = 100.0
"""ms between two looks of each of the ten: in every frame, ten pages would take the cores from what they wait for."""
STANDS = """([still, selector, text]) => {
  if (!document.querySelector(still)) return false
  const roots = [document], wanted = new RegExp(text)
  const there = (each) => each.matches(".map") ? each.interp?.px : wanted.test(each.textContent) // a map when it has its dots
  for (const root of roots) { // sheets have trees of their own
    for (const each of root.querySelectorAll(selector)) if (there(each)) return true
    for (const each of root.querySelectorAll("*")) if (each.shadowRoot) roots.push(each.shadowRoot)
  }
  return false
}"""


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds, and of how many."""
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50, ms": round(1000 * p50), "p95, ms": round(1000 * p95), "n": len(seconds)}


def stands(page: Page, selector: str, text: str = "", polling: Polling = "raf") -> None:
    """Wait until the page's script has ended and an element says what the regular expression asks for.

    The page is asked in each of its frames, or every so many ms: Playwright's `expect` asks after 0, .1, .35 and .85 s, and what stands
    there after .4 s would be found to have taken twice as long.
    """
    page.wait_for_function(STANDS, arg=[STILL, selector, text], polling=polling)


def feature(page: Page, address: str, number: int) -> None:
    """Open a feature's page by its address, until it stands there."""
    page.goto(f"{address}/feature?feature={number}", wait_until="commit")
    stands(page, NUMBER, f"^{number}$")


def next_feature(page: Page, polling: Polling = "raf") -> None:
    """Go on to the next feature by its button, until it stands there."""
    before = int(page.locator(NUMBER).inner_text())
    page.get_by_role("button", name="›", exact=True).click()
    stands(page, NUMBER, f"^{(before + 1) % FEATURES}$", polling)


def first_page(page: Page, address: str) -> dict[str, Any]:
    """Seconds until the first page stands there with its map, and how many features that has."""
    seconds = timed(lambda: (page.goto(address, wait_until="commit"), stands(page, ".map")))
    return {"s": round(seconds, 2), "features on the map": len(dots(page))}


def first_sentence(page: Page, wait: float) -> float:
    """Seconds from Enter until a sentence's features stand there, on the page that is open."""
    page.wait_for_timeout(1000 * wait)
    box = page.get_by_role("textbox", name="Search", exact=True)
    box.fill("The Eiffel Tower is in Paris.")

    def ask() -> None:
        box.press("Enter")
        stands(page, ".hits .hit")

    return round(timed(ask), 2)


def typed(page: Page, address: str) -> list[float]:
    """Seconds of searches that are typed on Features, until the table's count is another."""
    page.goto(f"{address}/features?q=dead:yes")
    settled(page)
    box, seconds = page.get_by_role("textbox", name="Search", exact=True), []
    for query in SEARCHES:
        box.fill(query)

        def ask(query: str = query) -> None:
            box.press("Enter")
            stands(page, "[class*='st-key-chips-']", re.escape(query.split()[0]))

        seconds.append(timed(ask))
    return seconds


def spectrum(page: Page, address: str, tokens: int = 200) -> dict[str, float]:
    """Seconds of the spectrum of a text of so many tokens, which the server has not seen."""
    model = Workbench.open(EMBEDDED).model
    text = WORDS
    while (count := len(model.prompt(text))) < tokens:
        text += WORDS
    page.goto(f"{address}/prompt?text=The")
    settled(page)
    box = page.get_by_label("Text", exact=True)
    box.fill(text)

    def ask() -> None:
        box.press("Control+Enter")
        stands(page, "p, div", rf"^{count} tokens")

    return {"tokens": count, "s": round(timed(ask), 2)}


def crowd(address: str, features: list[int], seconds: float, looks: float) -> dict[str, Any]:
    """Ten browsers ask for features for so long, each its own; what went wrong, and how long a feature took.

    Each has a thread and a Chromium of its own, for Playwright belongs to the thread that began it.
    """
    took: list[float] = []
    wrong: list[str] = []
    start = threading.Barrier(BROWSERS)

    def come(seed: int) -> None:
        draw = random.Random(seed)
        with chromium() as browser:
            page = someone(browser).new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            feature(page, address, draw.choice(features))
            start.wait()
            page.wait_for_timeout(1000 * looks * draw.random())  # people do not begin in step
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                try:
                    took.append(timed(lambda: next_feature(page, CROWD_ASKS)))
                except Error as error:
                    wrong.append(str(error)[:200])
                if page.get_by_test_id("stException").count():
                    wrong.append(page.get_by_test_id("stException").first.inner_text()[:200])
                page.wait_for_timeout(1000 * looks)

    threads = [threading.Thread(target=come, args=(seed,)) for seed in range(BROWSERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "browsers": BROWSERS,
        "s": seconds,
        "looks, s": looks,
        "errors": len(wrong),
        "first errors": wrong[:3],
    } | percentiles(took)


def memory(pid: int) -> int:
    """MiB that the server holds."""
    return round(psutil.Process(pid).memory_info().rss / 2**20)


def views(page: Page, server: Any, features: list[int], count: int) -> dict[str, Any]:
    """Server memory before so many views of pages and after each fifth of them: what it holds anyway, and what it goes on to gather."""
    held = [memory(server.pid)]
    for at in range(count):
        feature(page, server.address, features[at % len(features)])
        if 5 * (at + 1) // count > 5 * at // count:
            held.append(memory(server.pid))
    return {"views": count, "MiB before, after each fifth": held}


def measure(asked: argparse.Namespace, server: Any) -> dict[str, Any]:
    alive = np.flatnonzero(Workbench.open(EMBEDDED).index.features["density"].to_numpy() > 0)
    drawn = [int(f) for f in np.random.default_rng(0).permutation(alive)]
    found: dict[str, Any] = {}
    with chromium() as browser:
        page = someone(browser).new_page()
        found["first page"] = first_page(page, server.address)
        found["first sentence, s"] = first_sentence(page, asked.wait)
        found["feature by its address"] = percentiles(
            [timed(lambda f=f: feature(page, server.address, f)) for f in drawn[: asked.features]]
        )
        found["next feature"] = percentiles([timed(lambda: next_feature(page)) for _ in range(asked.features)])
        found["search, typed"] = percentiles(typed(page, server.address))
        found["spectrum"] = spectrum(page, server.address)
        found["memory"] = views(page, server, drawn[asked.features :], asked.views)
    found["ten at once"] = crowd(server.address, drawn, asked.seconds, asked.looks)
    found["memory"]["MiB after ten at once"] = memory(server.pid)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=500, help="views of pages between which memory is read")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long ten browsers ask")
    parser.add_argument("--looks", type=float, default=5.0, help="seconds that each looks at a feature")
    parser.add_argument("--features", type=int, default=20, help="features that are timed one by one")
    parser.add_argument(
        "--wait", type=float, default=10.0, help="seconds between the first page and the first sentence"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "cache").mkdir()
        if (models := places.cache() / "models").exists():
            (Path(home) / "cache" / "models").symlink_to(models)  # converted once, and no part of what is measured
        os.environ["INTERP_HOME"] = home
        began = time.perf_counter()
        with dashboard(cwd=ROOT) as server:
            started = round(time.perf_counter() - began, 1)
            figures = {"server answers, s": started} | measure(asked, server)
    report("dashboard", figures)


if __name__ == "__main__":
    main()
