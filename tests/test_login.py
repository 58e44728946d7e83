"""The door of the dashboard, with a real OpenID Connect provider on this machine: who has not logged in there sees nothing."""

import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.browser import answers, dashboard, free_port, settled, someone

pytestmark = [pytest.mark.slow, pytest.mark.alone]
PEOPLE = (
    {"sub": "ann", "email": "ann@example.org", "email_verified": True},
    {"sub": "eve", "email": "eve@example.org", "email_verified": True},
    {"sub": "mallory", "email": "ann@example.org", "email_verified": False},  # who only says that she is Ann
)
SECRETS = """
[auth]
redirect_uri = "{here}/oauth2callback"
cookie_secret = "a secret of this test, of no use elsewhere"
client_id = "interp"
client_secret = "given by the provider"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[interp]
allow = ["Ann@example.org"]
"""


@pytest.fixture(scope="module")
def provider():
    """The address of a provider that knows PEOPLE."""
    port = free_port()
    call = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    for one in PEOPLE:
        call += ["--user-claims", json.dumps(one)]
    server = subprocess.Popen(call, stderr=subprocess.DEVNULL)
    try:
        answers(server, f"http://127.0.0.1:{port}/.well-known/openid-configuration")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def server(checkpoint, provider, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("shut"), free_port()
    (folder / ".streamlit").mkdir()
    secrets = SECRETS.format(here=f"http://127.0.0.1:{port}", provider=provider)
    (folder / ".streamlit" / "secrets.toml").write_text(secrets, encoding="utf-8")
    with dashboard(checkpoint, "--login", cwd=folder, port=port) as running:
        yield running


def log_in(page, who: str) -> None:
    """By the button, and at the provider as somebody whom it knows."""
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name=who, exact=True).click()
    page.wait_for_url(re.compile(r"^http://127\.0\.0\.1:\d+/(?!oauth2)"))
    settled(page)


def test_a_login_at_the_provider_opens_the_pages_to_who_is_named_and_to_nobody_else(server, browser):
    context = someone(browser)
    page = context.new_page()
    for path in ("", "features?q=cat", "feature?feature=3", "labels", "library", "jobs"):
        page.goto(f"{server.address}/{path}")
        settled(page)
        expect(page.get_by_text("Log in to see this")).to_be_visible()
        assert page.locator(".st-key-bar a, .sheet, [data-testid=stDataFrame]").count() == 0
    for who in ("eve", "mallory"):
        log_in(page, who)
        expect(page.get_by_text("Not for this account")).to_be_visible()
        assert page.locator(".st-key-bar a, .sheet").count() == 0
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="End session").click()  # at the provider
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
    log_in(page, "ann")
    expect(page.locator(".st-key-bar a").first).to_be_visible()
    page.goto(f"{server.address}/feature?feature=3")
    expect(page.locator(".head h1 .number")).to_have_text("3")
    stranger = someone(browser)
    other = stranger.new_page()
    other.goto(page.url)
    expect(other.get_by_text("Log in to see this")).to_be_visible()
    stranger.close()
    context.close()
