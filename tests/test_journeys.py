"""What people come to the dashboard for, each from its first page to its end, in Chromium, on one small SAE."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from interp.commands import labelling, sharing
from interp.corpus import open_corpus
from interp.workbench import Workbench
from tests.browser import dashboard, dots, hears, settled, someone

pytestmark = [pytest.mark.slow, pytest.mark.alone]
ASK = "fetch('/owned'), window.owned = true"
HOSTILE = f'<script>{ASK}</script><img src=x onerror="{ASK}"> \u202egnp.exe\u202c **bold** [here](javascript:{ASK}) $x$ :red[y]'
"""A name, a title and a text that would act if they were anything else than text."""
JOB = 240_000
"""Milliseconds that a job may take, which starts a process of its own."""


@pytest.fixture(scope="module")
def place(checkpoint, store, tmp_path_factory):
    """The folders and the environment of a dashboard: a new folder, and beside it the tiny SAE over a hostile text."""
    given = tmp_path_factory.mktemp("given")
    texts = tmp_path_factory.mktemp("hostile")
    rows = [{"text": f"The cat sat on the mat. {HOSTILE} It slept.", "title": f"{HOSTILE} {i}"} for i in range(60)]
    (texts / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    new = tmp_path_factory.mktemp("new")
    sae = given / "hostile"
    shutil.copytree(checkpoint, sae, ignore=shutil.ignore_patterns("index"))
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_HOME", str(home))
        Workbench.open(sae).build_index(open_corpus(texts), 4096, beside=True)
        sharing.pack(str(checkpoint), into=given / "theirs.interp.tar")
        folders = [new, given, checkpoint.parent, store.folder]
        flags = [word for folder in folders for word in ("--folder", str(folder))]
        yield SimpleNamespace(given=given, new=new, home=home, checkpoint=checkpoint, hostile=sae, flags=flags)


@pytest.fixture(scope="module")
def server(place, tmp_path_factory):
    with dashboard(place.checkpoint, *place.flags, cwd=tmp_path_factory.mktemp("elsewhere")) as running:
        yield running


def go(page, server, path="", **query):
    page.goto(f"{server.address}/{path}?{urlencode(query)}")
    settled(page)


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def test_from_the_map_to_a_feature_whose_new_label_another_browser_shows(page, server, browser):
    go(page, server)
    feature, x, y = dots(page)[0]
    page.mouse.click(x, y)
    page.wait_for_url(re.compile(rf"/feature\?.*feature={feature}\b"))
    head = page.locator(".head h1")
    expect(head).to_contain_text(str(feature))
    page.locator(".st-key-label-editor button").first.click()
    page.get_by_role("textbox", name="Label", exact=True).fill("seen from the map")
    page.get_by_label("Author", exact=True).fill("Ann")
    press(page, "Save label")
    expect(head).to_contain_text("seen from the map")
    other = someone(browser)
    there = other.new_page()
    there.goto(page.url)
    expect(there.locator(".head h1")).to_contain_text("seen from the map")
    expect(there.locator(".verdict")).to_contain_text("Ann")
    go(there, server, q="author:Ann")
    expect(there.get_by_text("1 feature found")).to_be_visible()
    other.close()


def test_from_a_sentence_to_a_token_and_to_a_feature_that_shows_the_sentence(page, server):
    go(page, server)
    box = page.get_by_label("Search", exact=True)
    box.fill("The cat sat in Paris.")
    box.press("Enter")
    token = page.locator(".tokens .pick:not(.sink)").nth(2)
    expect(token).to_be_visible()
    word = token.inner_text()
    token.click()
    expect(page.get_by_text(f"Strongest on ‘{word}’")).to_be_visible()
    expect(page.locator(".tokens .pick[aria-pressed=true]")).to_have_text(word)
    page.locator(".hits .hit a").first.click()
    page.wait_for_url(re.compile(r"/feature\?.*text="))
    expect(page.get_by_text(re.compile("Largest activation here: [0-9.]+, on"))).to_be_visible()
    expect(page.get_by_label("Try it on a text")).to_have_value("The cat sat in Paris.")


def test_a_run_that_was_steered_here_is_replayed_identically_from_its_file(page, server, place, tmp_path):
    go(page, server, "steer", edits="3,clamp,20", prompt="A cat", tokens=8, temperature=0.8, seed=3)
    press(page, "Generate")
    expect(page.get_by_role("heading", name="Steered")).to_be_visible()
    settled(page)
    with page.expect_download() as download:
        press(page, "Download the record")
    download.value.save_as(tmp_path / "steer.json")
    call = [sys.executable, "-m", "interp.cli", "replay", str(tmp_path / "steer.json"), "--sae", str(place.checkpoint)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout


def test_an_sae_that_is_trained_here_shows_its_features(page, server, place):
    go(page, server, "train")
    page.get_by_text("harvested", exact=True).click()
    expect(page.get_by_label("k", exact=True)).to_be_visible()
    settled(page)
    page.get_by_text("Passes, batch, rate, seed").click()
    for name, value in (("k", "4"), ("Tokens a step", "256")):
        field = page.get_by_label(name, exact=True)
        field.fill(value)
        field.press("Enter")
        settled(page)
    name = page.get_by_label("Name", exact=True)
    name.fill("mine/first")
    name.press("Enter")
    settled(page)
    press(page, "Start training")
    expect(page.get_by_text("is trained.")).to_be_visible(timeout=JOB)
    assert (place.new / "mine" / "first" / "card.json").exists()
    press(page, "Find where its features fire")
    expect(page.locator("[class*='st-key-line-']").filter(has_text="index").filter(has_text="done")).to_be_visible(
        timeout=JOB
    )
    page.get_by_role("link", name="Its features").click()
    page.wait_for_url(re.compile(r"/features\?.*first"))
    expect(page.get_by_text(re.compile(r"2,304 features · "))).to_be_visible()
    expect(page.get_by_text("features, the first 500 shown.")).to_be_visible()


def test_an_archive_is_brought_in_and_opened(page, server, place):
    go(page, server, "library")
    page.locator("input[type=file]").set_input_files(place.given / "theirs.interp.tar")
    expect(page.locator(".st-key-bring-file-name input")).to_have_value("imported/theirs")
    press(page, "Check and unpack")
    page.get_by_role("link", name="Open it").click()
    page.wait_for_url(re.compile(r"/features\?.*theirs"))
    expect(page.get_by_text(re.compile("64 features · "))).to_be_visible()
    card = (place.new / "imported" / "theirs" / "card.json").read_bytes()
    assert card == (place.checkpoint / "card.json").read_bytes()


def kept(*roots):
    """What stands in the folders, less caches and a database's own files."""
    files = (path for root in roots for path in root.rglob("*") if path.is_file() and "cache" not in path.parts)
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-wal", "-shm"))}


def test_a_read_only_dashboard_offers_no_label_no_training_and_no_import_and_keeps_nothing(
    page, browser, place, tmp_path_factory
):
    before = kept(place.given, place.new, place.checkpoint, place.home / "data")
    with dashboard(place.checkpoint, *place.flags, "--read-only", cwd=tmp_path_factory.mktemp("only")) as only:
        go(page, only, "feature", feature=3)
        expect(page.get_by_text("Where it fires")).to_be_visible()
        expect(page.locator(".st-key-label-editor")).to_have_count(0)
        go(page, only, "labels", which="all", author="Ann")
        expect(page.get_by_text("These pages are read-only: names are given and judged elsewhere.")).to_be_visible()
        hears(page)
        for key in "axuz":  # the keys of the queue
            page.keyboard.press(key)
        go(page, only, "train")
        expect(page.get_by_text("These pages are read-only: SAEs are trained elsewhere.")).to_be_visible()
        start = page.get_by_role("button", name="Start training")
        expect(start).to_be_disabled()
        start.dispatch_event("click")
        start.evaluate("button => { button.disabled = false; button.click() }")
        go(page, only, "library")
        expect(page.get_by_text("These pages are read-only: checkpoints are brought in elsewhere.")).to_be_visible()
        expect(page.locator("input[type=file]")).to_have_count(0)
        expect(page.get_by_role("button", name="Import")).to_have_count(0)
        go(page, only, "jobs")
        settled(page)
    assert kept(place.given, place.new, place.checkpoint, place.home / "data") == before


PAGES = {
    "": [{}, {"text": HOSTILE}, {"q": "labelled:yes"}],
    "features": [{"q": "labelled:yes"}, {"q": HOSTILE}],
    "feature": [{"feature": "3"}, {"feature": "3", "text": HOSTILE}, {"feature": HOSTILE}],
    "labels": [{"feature": "3", "which": "all", "author": HOSTILE}],
    "compare": [{"a": "3", "b": "4"}],
    "prompt": [{"text": HOSTILE}],
    "steer": [{"edits": "3,clamp,4", "prompt": HOSTILE}],
    "library": [{"root": HOSTILE}, {}],
    "jobs": [{"job": HOSTILE}],
    "neuron": [{"neuron": HOSTILE}],
    "evaluate": [{"show": HOSTILE}],
}


@pytest.mark.parametrize("path", PAGES)
def test_what_is_hostile_in_labels_tokens_titles_and_addresses_stays_text(page, server, place, path):
    labelling.label(str(place.hostile), 3, HOSTILE, author=HOSTILE, note=HOSTILE)
    acted = []
    page.on("dialog", lambda dialog: (acted.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: acted.append(request.url) if request.url.endswith(("/owned", "/x")) else None)
    for query in PAGES[path]:
        go(page, server, path, sae=str(place.hostile), **query)
        page.wait_for_timeout(300)
        assert acted == []
        assert page.evaluate("window.owned") is None
        expect(page.locator("img[src='x']")).to_have_count(0)
        expect(page.locator("a[href^='javascript']")).to_have_count(0)
        if query and path not in ("features", "evaluate"):  # whose tables are drawn, and whose page does not say it
            expect(page.get_by_text(re.compile(r"<script>|<img|</script>")).first).to_be_attached()
    if path == "feature":
        go(page, server, path, sae=str(place.hostile), feature=3)
        assert page.locator(".head h1").text_content().endswith(HOSTILE)
        expect(page.locator(".head h1")).to_have_attribute("dir", "auto")
        page.locator(".row summary").first.click()
        expect(page.locator(".row[open]").first).to_contain_text(HOSTILE[:20])
