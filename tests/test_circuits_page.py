"""The page of circuits through Streamlit's AppTest: a finished graph is opened, a node chosen, pinned and named, all in the URL."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest

from interp import places
from interp.circuits.attribute import attribute
from interp.circuits.graph import FEATURE
from interp.circuits.prune import prune
from interp.circuits.replacement import make_replacement
from interp.circuits.schema import to_json
from interp.commands.circuits import circuit
from interp.models import open_model
from tests.conftest import ROOT
from tests.families import save
from tests.transcoders import random_transcoders, save_transcoders

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A graph with hostile words, among those that were made here."""
    monkeypatch.chdir(ROOT)
    model = open_model(str(save("llama", tmp_path / "llama")), dtype="float32")
    made = make_replacement(model, random_transcoders(model))
    found = prune(attribute(made, torch.tensor(model.prompt("the blue city near the river"))), 0.95, 0.98)
    feature = next(each for each, kind in zip(found.ids, found.nodes.kind_N, strict=True) if kind == FEATURE)
    found = replace(
        found,
        words=(EVIL,) * len(found.tokens),
        names={feature: EVIL},
        about={"prompt": EVIL, "scores": {"replacement": 0.5}},
    )
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    path = places.data() / "graphs" / "one.json"
    path.parent.mkdir(parents=True)
    path.write_text(to_json(found))
    return str(path.resolve()), found, feature


def run(**query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=180)
    app.switch_page("interp/ui/pages/circuits.py")
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def at(app, key):
    value = app.query_params[key]
    return value[0] if isinstance(value, list) else value


def test_a_finished_graph_is_drawn_and_a_node_opened_pinned_and_named(graph):
    path, _, feature = graph
    app = run(graph=path, node=feature)
    assert not app.exception
    assert not app.error
    cards = [json.loads(each.proto.json)["html"] for each in app.get("bidi_component") if each.proto.json]
    assert len(cards) == 1
    assert EVIL not in cards[0]
    assert "&lt;script&gt;" in cards[0]
    drawn = app.get("plotly_chart")[0].proto.spec
    assert "<script" not in drawn
    next(button for button in app.button if button.label == "Pin").click().run()
    assert not app.exception
    assert json.loads(at(app, "edits")) == {"pins": [feature]}
    assert any(button.label == "Unpin" for button in app.button)
    next(each for each in app.text_input if each.label == "Group").set_value("rivers").run()
    next(each for each in app.text_input if each.label == "Name").set_value("banks").run()
    assert json.loads(at(app, "edits")) == {
        "pins": [feature],
        "groups": {"rivers": [feature]},
        "names": {feature: "banks"},
    }
    again = run(graph=path, node=feature, edits=at(app, "edits"))
    assert next(each for each in again.text_input if each.label == "Name").value == "banks"
    next(button for button in again.button if button.label == "Unpin").click().run()
    assert "pins" not in json.loads(at(again, "edits"))


def test_a_large_graph_opens_with_the_nodes_that_matter_most(graph, monkeypatch):
    path, found, _ = graph
    whole = json.loads(run(graph=path).get("plotly_chart")[0].proto.spec)
    monkeypatch.setattr("interp.ui.circuit_figure.MOST_SEEN", 40)
    app = run(graph=path)
    assert not app.exception
    drawn = json.loads(app.get("plotly_chart")[0].proto.spec)
    some, every = (sum(len(each["x"]) for each in one["data"] if each["mode"] == "markers") for one in (drawn, whole))
    assert some <= 40 < every == len(found.ids)
    assert 0.05 <= app.slider[0].value < 1
    app.slider[0].set_value(1.0).run()
    assert not app.exception
    assert at(app, "share") == "1.0"


def marks(app):
    """(numbers of the nodes that are drawn, what each says) of a page's drawing."""
    traces = [each for each in json.loads(app.get("plotly_chart")[0].proto.spec)["data"] if each["mode"] == "markers"]
    return {at: said for trace in traces for at, said in zip(trace["customdata"], trace["text"], strict=True)}


def test_a_group_is_drawn_as_one_mark_where_that_is_asked(graph):
    path, found, _ = graph
    inner = [each for each, kind in zip(found.ids, found.nodes.kind_N, strict=True) if kind == FEATURE][:3]
    edits = json.dumps({"groups": {"rivers": inner}})
    apart, together = (marks(run(graph=path, edits=edits, together=one)) for one in ("False", "True"))
    numbers = [found.ids.index(each) for each in inner]
    assert set(numbers) <= set(apart)
    assert set(apart) - set(together) == set(numbers[1:])
    assert together[numbers[0]] == "group rivers"


def test_an_edge_is_tried_and_its_heads_are_told_in_words(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    model = open_model(str(save("llama", tmp_path / "llama")), dtype="float32")
    folder = save_transcoders(model, tmp_path / "transcoders")
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    path = places.data() / "graphs" / "one.json"
    path.parent.mkdir(parents=True)
    graph = circuit("the blue city near the river", transcoders=str(folder), into=str(path)).graph
    logit = graph.ids[-1]
    app = run(graph=str(path.resolve()), node=logit)
    next(button for button in app.button if button.label == "Which heads carried it").click().run()
    assert not app.exception
    assert any("by heads" in each.value for each in app.markdown)
    (heads,) = (each.value for each in app.dataframe if "brought" in each.value)
    assert len(heads)
    assert heads["head"].str.fullmatch(r"\d+\.\d+").all()
    next(button for button in app.button if button.label == "Check this edge").click().run()
    assert not app.exception
    assert any("Over all ways in the live model" in each.value for each in app.markdown)


def test_what_the_url_may_not_ask_is_a_sentence(graph, tmp_path):
    path, _, _ = graph
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    assert "no finished graph" in run(graph=str(secret)).error[0].value
    assert "cannot be read" in run(graph=path, edits='{"pins": 3}').error[0].value
    assert "cannot be read" in run(graph=path, edits="[").error[0].value
    assert not run(graph=path, node="no such node").error
    assert not run().error


def test_a_neurons_card_leads_to_its_own_page_where_the_open_sae_is_of_its_model(graph, tmp_path):
    path, found, feature = graph
    layer, number, _ = feature.split("_")
    for model, leads in (("smollm2", True), ("another", False)):
        about = {"prompt": "rivers", "over": "neurons", "asked": {"model": model}}
        Path(path).write_text(to_json(replace(found, names={}, about=about)))
        app = run(graph=path, node=feature)
        assert not app.exception
        (card,) = (json.loads(each.proto.json)["html"] for each in app.get("bidi_component") if each.proto.json)
        assert f"L{layer} n{number}" in card
        assert ("The neuron's own page" in card or "The neuron&#x27;s own page" in card) is leads
        assert (f"neuron={layer}.{number}" in card) is leads
        assert any("neuron" in each.value for each in app.caption)


def test_a_graph_over_neurons_is_asked_for_without_transcoders(graph):
    for asked in ({"over": "neurons"}, {"neurons": "True"}):  # as it was asked for before
        app = run(**asked)
        assert not app.exception
        assert not any("transcoders" in each.label for each in app.text_input)
        (kind,) = (each for each in app.selectbox if each.label == "Nodes are")
        assert kind.value == "neurons"


def test_a_graph_over_saes_of_the_residual_stream_is_asked_for_with_its_places(graph, monkeypatch):
    submitted = []
    monkeypatch.setattr("interp.jobs.submit", lambda command, given: submitted.append((command, given)))
    app = run(over="residual", saes="saes/smollm2-135m-instruct", steps="8")
    assert not app.exception
    (button,) = (each for each in app.button if each.label == "Trace the circuit")
    button.click().run()
    ((command, given),) = submitted
    assert (command, given["over"], given["saes"], given["steps"]) == (
        "circuit",
        "residual",
        ["saes/smollm2-135m-instruct"],
        8,
    )
    assert "transcoders" not in given
    refused = run(over="rivers")
    assert any("nodes are no 'rivers'; they are transcoders, neurons, residual" in each.value for each in refused.error)
