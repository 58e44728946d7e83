"""Pictures of every page of the dashboard, from the real thing, into docs/pages/: 1280 wide in light and in dark, 390 in light.

    python recipes/pages.py                     # all
    python recipes/pages.py feature prompt      # these

What is shown is the embedded SAE, and for `pictures` that of pictures, with what ships with them, in a fresh home; for the pages of
work a small SAE is trained first, and a layer's neurons are indexed. It needs Chromium (`make browser`).
"""

import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from interp import jobs, places  # noqa: E402
from interp.render.terminal import say  # noqa: E402
from interp.workbench import EMBEDDED  # noqa: E402
from tests.browser import chromium, dashboard, settled, someone  # noqa: E402

PICTURES = "saes/dinov2-small/blocks.8.hook_resid_post/batchtopk-1536"
INTO = ROOT / "docs" / "pages"
LOOKS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "narrow": (390, 844, "light")}
PAGES = {
    "start": "",
    "search": "?q=medicine%20and%20disease",
    "sentence": "?text=The%20Eiffel%20Tower%20is%20in%20Paris.&token=5",
    "features": "features?q=confirmed:yes%20sort:effect",
    "feature": "feature?feature=5152",
    "labels": "labels?author=Ann",
    "compare": "compare?a=5152&b=5239",
    "neuron": "neuron?neuron=15.3",
    "prompt": "prompt?lens=True&token=5",
    "circuits": f"circuits?{urlencode({'graph': ROOT / 'saes/smollm2-135m-instruct/graphs/capital.json', 'node': '13_810_8'})}",
    "steer": "steer?edits=5152,clamp,65&prompt=When%20we%20arrived,%20we%20saw",
    "train": "train?job=1",
    "evaluate": "evaluate",
    "library": "library",
    "jobs": "jobs",
    "pictures": f"feature?{urlencode({'sae': ROOT / PICTURES, 'feature': 17})}",
}
LARGEST, ALL = 120_000, 3_000_000
"""Bytes of a picture, and of all of them."""


def worked(folder: Path) -> None:
    """What the pages of work show: a run that trained, and an index of neurons, each as a job."""
    train = {
        "source": "smollm2",
        "hook": ["blocks.15.hook_resid_post"],
        "into": str(folder / "mine" / "batchtopk-1024"),
    }
    recipe = {"corpus": "wiki-en", "tokens": 60_000, "batch": 1024, "d_sae": 1024, "k": 16, "architecture": "batchtopk"}
    index = {"sae": str(ROOT / EMBEDDED), "neurons": 15, "tokens": 30_000}
    for command, arguments in (("train", train | recipe), ("index", index)):
        job = jobs.wait(jobs.submit(command, arguments).id, timeout=3600)
        assert job.state == "done", job.error


def look(page: Page, address: str, name: str) -> bytes:
    """The page as it stands once nothing moves."""
    page.goto(f"{address}/{PAGES[name]}")
    settled(page)
    if name == "steer":
        page.get_by_role("button", name="Generate", exact=True).click()
        expect(page.get_by_role("heading", name="Steered")).to_be_visible()
        settled(page)
        page.mouse.move(0, 0)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # what is not drawn yet
    page.wait_for_timeout(1500)  # fonts, canvases
    settled(page)
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= page.viewport_size["width"], f"{name} is {wide} wide"
    return page.screenshot()


def write(raw: bytes, path: Path) -> int:
    """Write the picture with as many colours as its size allows; its bytes come back."""
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    for colours in (128, 64, 48, 32):
        kept = io.BytesIO()
        # Colours that are far from one another are kept, however few dots of a map have them; then each moves to what it stands for.
        drawn = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        drawn.save(kept, "PNG", optimize=True)
        if kept.tell() < LARGEST:
            with places.whole_file(path) as partial:
                partial.write_bytes(kept.getvalue())
            return kept.tell()
    raise AssertionError(f"{path.name} does not fit into {LARGEST:,} bytes")


def main(names: Sequence[str]) -> None:
    """Write the pictures that are named, or all."""
    unknown = sorted(set(names) - set(PAGES))
    assert not unknown, f"there is no page {', '.join(unknown)}; there is {', '.join(PAGES)}"
    INTO.mkdir(exist_ok=True)
    models = places.cache() / "models"
    with tempfile.TemporaryDirectory() as given:
        home, folder = Path(given) / "home", Path(given) / "saes"
        (home / "cache").mkdir(parents=True)
        folder.mkdir()
        if models.exists():
            (home / "cache" / "models").symlink_to(models)
        os.environ["INTERP_HOME"] = str(home)
        if not names or {"train", "neuron", "jobs", "library"} & set(names):
            worked(folder)
        flags: list[Any] = ["--folder", str(folder), "--folder", str(ROOT / "saes")]
        with dashboard(EMBEDDED, *flags, cwd=ROOT) as server, chromium() as browser:
            for kind, (width, height, scheme) in LOOKS.items():
                person = someone(browser, width=width, height=height, color_scheme=scheme)
                page = person.new_page()
                for name in names or PAGES:
                    size = write(look(page, server.address, name), INTO / f"{name}-{kind}.png")
                    say(f"{name}-{kind}.png {size:,} bytes")
                person.close()
    whole = sum(path.stat().st_size for path in INTO.glob("*.png"))
    assert whole < ALL, f"all pictures have {whole:,} bytes"


if __name__ == "__main__":
    main(sys.argv[1:])
