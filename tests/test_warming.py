"""The model and a feature's page are read behind the first page, and not before it."""

import pytest

from interp.commands.opening import open_sae
from interp.ui import warming


@pytest.fixture
def undrawn(monkeypatch, tmp_path):
    """No page was drawn yet, and no browser is waited for."""
    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr(warming, "BROWSER", 0.0)
    monkeypatch.setattr(warming, "drawn", warming.threading.Event())


def test_the_model_is_read_once_the_first_page_is_drawn(undrawn, checkpoint):
    thread = warming.warm(str(checkpoint))
    bench = open_sae(str(checkpoint))
    thread.join(0.3)
    assert thread.is_alive()
    assert "_model" not in vars(bench)
    warming.drawn.set()
    thread.join(120)
    assert not thread.is_alive()
    assert "_model" in vars(bench)


def test_what_cannot_be_read_is_left_to_the_page_that_needs_it(undrawn, tmp_path):
    warming.drawn.set()
    thread = warming.warm(str(tmp_path / "none"))
    thread.join(120)
    assert not thread.is_alive()
