"""The dashboard in Chromium, its server a process of its own in another folder, its network watched."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from interp.workbench import Workbench
from tests.browser import dashboard, dots, hears, others, settled, watched

pytestmark = [pytest.mark.slow, pytest.mark.alone]
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
    "labels": "unnamed",
    "compare": "Two texts",
}


@pytest.fixture(scope="module")
def address(checkpoint, text_folder, tmp_path_factory):
    """Of a dashboard of the tiny SAE."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_HOME", str(tmp_path_factory.mktemp("home")))
        Workbench.open(checkpoint).build_neuron_index(0, str(text_folder), 1024)
        with dashboard(checkpoint, cwd=tmp_path_factory.mktemp("elsewhere")) as server:
            yield server.address


def test_the_watch_sees_a_request_to_another_host(page):
    asked = watched(page)
    page.goto("data:text/html,<img src='https://elsewhere.invalid/x.png'>")
    assert others(asked) == ["https://elsewhere.invalid/x.png"]


@pytest.mark.parametrize("path", PAGES)
def test_no_page_asks_another_host_for_anything(page, address, path):
    asked = watched(page)
    page.goto(f"{address}/{path}")
    expect(page.get_by_text(PAGES[path]).first).to_be_visible()
    settled(page)
    page.wait_for_timeout(1000)  # what comes after the text
    assert asked
    assert others(asked) == []
    icons = page.locator("link[rel~=icon]").evaluate_all("all => all.map(link => link.href)")
    assert icons
    assert all(icon.startswith("data:image/svg") for icon in icons)
    expect(page.get_by_test_id("stAppDeployButton")).to_have_count(0)


def test_back_forward_and_reload_show_what_the_address_says(page, address, checkpoint):
    search = page.get_by_label("Search", exact=True)

    def shown(query):
        page.wait_for_url(re.compile(re.escape(f"q={quote(query, safe='')}")))
        expect(search).to_have_value(query)
        assert quote(str(checkpoint), safe="") in page.url

    page.goto(f"{address}/?q=dead:no")
    shown("dead:no")
    settled(page)
    search.fill("dead:yes")
    search.press("Enter")
    shown("dead:yes")
    page.go_back()
    shown("dead:no")
    page.go_forward()
    shown("dead:yes")
    page.reload()
    shown("dead:yes")


def test_a_slash_goes_to_the_search_and_a_question_mark_lists_the_keys(page, address):
    page.goto(address)
    hears(page)
    search = page.get_by_label("Search", exact=True)
    expect(search).to_be_visible()
    page.keyboard.press("/")
    expect(search).to_be_focused()
    page.keyboard.press("?")  # in a text field it is a character
    expect(search).to_have_value(re.compile(r"\?$"))
    page.goto(f"{address}/library")
    hears(page)
    page.keyboard.press("?")
    listed = page.locator(".st-key-keyboard dialog[open]")
    expect(listed).to_contain_text("search")
    page.keyboard.press("/")  # the list is open: it goes nowhere
    assert "library" in page.url


def test_j_and_k_walk_the_features_that_are_listed_and_enter_opens_one(page, address):
    page.goto(f"{address}/?q=dead:no")
    listed = page.locator(".hits .hit .name a")
    expect(listed.first).to_be_visible()
    hears(page)
    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(listed.nth(at)).to_be_focused()
    number = page.locator(".hits .hit .name .number").nth(1).inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/feature\?.*feature={number}\b"))


def test_a_click_on_the_map_opens_a_feature_and_an_outline_becomes_a_search(page, address):
    page.goto(address)
    expect(page.get_by_text("Worth seeing")).to_be_visible()
    settled(page)
    found = dots(page)
    right, low = max(x for _, x, _ in found) + 8, max(y for _, _, y in found) + 8
    left, top = min(x for _, x, _ in found) - 8, min(y for _, _, y in found) - 8
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low)):
        page.mouse.move(x, y, steps=10)
    page.mouse.up()
    page.wait_for_url(re.compile("q=map"))
    expect(page.get_by_text(re.compile("features? found"))).to_be_visible()
    settled(page)
    _, x, y = dots(page)[0]
    page.mouse.click(x, y)
    page.wait_for_url(re.compile("/feature\\?"))
    assert "sae=" in page.url
