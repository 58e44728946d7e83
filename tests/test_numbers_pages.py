"""Pages of an SAE of a module's numbers: what they show, and what they say that only Python can do."""

import pytest
import torch
from torch import nn

from interp.activations import stream
from interp.corpus import open_corpus
from interp.models import open_module
from interp.recipe import train_checkpoint
from interp.training import TrainConfig
from interp.workbench import Workbench
from tests.test_ui import at_root, parts, run  # noqa: F401  (the fixture acts by itself)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with an SAE of rows, and one of a grid of places."""
    root = tmp_path_factory.mktemp("numbers")
    torch.manual_seed(0)
    for name, net, items, at in (
        ("rows", nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)), draw(200, 8), None),
        ("grid", nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), draw(60, 1, 6, 6), "0"),
    ):
        corpus = open_corpus(items, topics=["one kind", "another kind"] * (len(items) // 2))
        model, hook = open_module(net, corpus, name=name, at=at), "1" if name == "rows" else "0"
        how = {"d_sae": 16, "k": 2, "batch": 64, "config": TrainConfig(lr=3e-3)}
        train_checkpoint(stream(model, corpus, [hook], 400), hook, root / name, **how)
        Workbench.open(root / name, model=model).build_index(corpus, 400, beside=True)
    return root


@pytest.fixture
def saes(shelf, monkeypatch):
    monkeypatch.setenv("INTERP_FOLDERS", str(shelf))
    return {name: str(shelf / name) for name in ("rows", "grid")}


def shown(page, sae, **query):
    app = run(page, sae=sae, **query)
    return app, parts(app)[0] + " ".join(each.value for each in (*app.markdown, *app.caption, *app.error))


def test_a_feature_of_numbers_is_shown_by_its_positions(saes):
    live = {name: int(Workbench.open(sae).index.features["fires"].to_numpy().argmax()) for name, sae in saes.items()}
    app, html = shown("feature", saes["rows"], feature=str(live["rows"]))
    assert "An item has one position here, so where its examples peak says nothing." in html
    assert "Positions it fires on" not in html
    assert not any("Try it" in (box.placeholder or "") for box in app.text_input)
    _, html = shown("feature", saes["grid"], feature=str(live["grid"]))
    assert "peak on a position that another" in html
    assert "Positions it fires on" in html
    assert "positions, times chance" in html
    assert "rows apart" in html
    assert "tokens, times chance" not in html


def test_what_only_python_can_do_is_said_instead_of_a_form(saes):
    for page, said in (
        ("steer", "Steering needs a text"),
        ("prompt", "Nothing can be run here"),
        ("neuron", "No neurons are numbered here"),
    ):
        app, html = shown(page, saes["rows"])
        assert said in html, page
        assert not app.text_area
        assert not app.text_input
    app, html = shown("start", saes["rows"])
    assert "give it a" not in html
    assert "folders of these pages" not in app.text_input[0].placeholder
