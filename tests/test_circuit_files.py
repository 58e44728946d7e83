"""Graphs as files: ours come back whole, others' are read, what is no graph is named, and no text in one is ever HTML."""

import json
from dataclasses import replace

import jsonschema
import pytest
import torch

from interp import cli
from interp.checkpoint import Card
from interp.circuits.attribute import attribute
from interp.circuits.graph import FEATURE, LOGIT, TOKEN, Check, Group, Trial, group_by_name
from interp.circuits.page import graph_page
from interp.circuits.prune import prune
from interp.circuits.replacement import make_replacement
from interp.circuits.schema import from_json, to_json
from interp.commands.circuits import check_circuit, circuit, circuit_edge, show_graph
from interp.models import open_model
from interp.types import InterpError
from interp.workbench.circuits import Circuit, check_memory, graph_bytes
from tests.families import save
from tests.transcoders import random_transcoders, save_transcoders

TEXT = "the blue city near the river reads music"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
# The facts of Neuronpedia's graph-schema.json, as read on 2026-11-27: what must be there, and of which kind.
SCHEMA = {
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": {"type": "string"},
                "scan": {"type": "string"},
                "prompt": {"type": "string"},
                "prompt_tokens": {"type": "array", "items": {"type": "string"}},
                "node_threshold": {"type": "number"},
                "info": {"type": "object", "properties": {"generator": {"type": "object"}}},
                "generation_settings": {"type": "object", "properties": {"max_feature_nodes": {"type": "integer"}}},
                "pruning_settings": {"type": "object", "properties": {"edge_threshold": {"type": "number"}}},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": {"type": "array", "items": {"type": "string"}},
                "supernodes": {"type": "array"},
                "linkType": {"type": "string"},
                "clickedId": {"type": "string"},
                "sg_pos": {"type": "string"},
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
                "properties": {
                    "node_id": {"type": "string"},
                    "feature": {"type": ["integer", "null"]},
                    "layer": {"type": ["string", "integer"]},
                    "ctx_idx": {"type": "integer"},
                    "feature_type": {"type": "string"},
                    "jsNodeId": {"type": "string"},
                    "clerp": {"type": "string"},
                    "influence": {"type": ["number", "null"]},
                    "activation": {"type": ["number", "null"]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {
                    "source": {"type": "string"},
                    "target": {"type": "string"},
                    "weight": {"type": "number"},
                },
            },
        },
    },
}

NUMBERS = ("edge", "measured", "low", "high", "control", "p", "adversarial", "whole", "live", "live_p")
CHECK = Check(
    source=0, target=1, verdict="confirmed", live_verdict="refuted", **{name: 0.1 * n for n, name in enumerate(NUMBERS)}
)


TRIAL = Trial(
    name="rivers",
    sources=(0, 2),
    target=1,
    predicted=1.5,
    verdict="confirmed",
    live_verdict="undecided",
    **{name: 0.1 * n for n, name in enumerate(NUMBERS) if name != "edge"},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(str(save("llama", tmp_path_factory.mktemp("circuit-files") / "llama")), dtype="float32")


@pytest.fixture(scope="module")
def graph(model):
    made = make_replacement(model, random_transcoders(model))
    return prune(attribute(made, torch.tensor(model.prompt(TEXT))), 0.95, 0.98)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A transcoder for every layer, as checkpoints with cards."""
    return save_transcoders(model, tmp_path_factory.mktemp("transcoders"))


def same(a, b):
    for name in ("kind_N", "layer_N", "position_N", "index_N", "value_N"):
        assert (getattr(a.nodes, name) == getattr(b.nodes, name)).all(), name
    assert a.nodes.says_K == b.nodes.says_K
    assert torch.equal(a.edges_NN, b.edges_NN)
    for name in ("bias_S", "influence_N"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in ("tokens", "left_out", "about", "words", "names", "groups", "pinned", "checks", "trials"):
        assert getattr(a, name) == getattr(b, name), name


def test_a_file_of_ours_comes_back_whole_and_is_what_the_others_schema_asks(graph):
    inner = [each for each, kind in zip(graph.ids, graph.nodes.kind_N, strict=True) if kind == FEATURE]
    full = replace(
        graph,
        words=tuple(f"{EVIL}{n}" for n in range(len(graph.tokens))),
        names={inner[0]: EVIL},
        groups=(Group("two of them", tuple(inner[:2])),),
        pinned=(inner[1],),
        checks=(CHECK,),
        trials=(TRIAL, replace(TRIAL, name="a swap", sources=(0,), put_in=7)),
        about={"prompt": EVIL, "model": "tiny", "keep": 0.7, "edges": 0.9},
    )
    text = to_json(full)
    jsonschema.validate(json.loads(text), SCHEMA)
    same(full, from_json(text))
    assert to_json(from_json(text)) == text
    value = json.loads(text)
    assert value["qParams"]["supernodes"] == [["two of them", *inner[:2]]]
    assert len({node["node_id"] for node in value["nodes"]}) == len(value["nodes"])
    assert len({node["jsNodeId"] for node in value["nodes"]}) == len(value["nodes"])


def test_another_programs_file_is_read(graph):
    """As circuit-tracer writes it: `feature` holds the layer too, errors may stand under any id, nothing of ours is there."""
    value = json.loads(to_json(replace(graph, words=tuple(map(str, graph.tokens)))))
    del value["metadata"]["interp"], value["metadata"]["info"]
    feature = next(node for node in value["nodes"] if node["feature_type"] == "cross layer transcoder")
    feature["feature"] += 100 * int(feature["layer"])
    feature["clerp"] = EVIL
    read = from_json(json.dumps(value))
    assert read.ids == graph.ids
    assert torch.equal(read.edges_NN, graph.edges_NN)
    assert read.names == {feature["node_id"]: EVIL}
    assert read.tokens == graph.tokens
    assert read.influence_N is not None
    assert bool((read.influence_N > 0).any())


def broken(value, where, new):
    place = value
    for key in where[:-1]:
        place = place[key]
    if new is None:
        del place[where[-1]]
    else:
        place[where[-1]] = new
    return json.dumps(value)


@pytest.mark.parametrize(
    ("where", "new", "said"),
    [
        (("nodes",), None, "nodes is missing"),
        (("metadata", "prompt"), 3, "metadata.prompt is '3'"),
        (("metadata", "prompt_tokens", 1), 3, r"prompt_tokens\[1\] is '3'"),
        (("nodes", 2, "ctx_idx"), 99, r"nodes\[2\].ctx_idx is '99'; the prompt has"),
        (("nodes", 2, "ctx_idx"), True, r"nodes\[2\].ctx_idx is 'True'"),
        (("nodes", 0, "feature_type"), "magic", r"nodes\[0\].feature_type is 'magic'"),
        (("nodes", 0, "layer"), "x", r"nodes\[0\].layer is 'x'"),
        (("nodes", 1, "activation"), 1e300, r"nodes\[1\].activation is '1e\+300'"),
        (("links", 1, "weight"), "1", r"links\[1\].weight is '1'"),
        (("links", 0, "source"), "nobody", r"links\[0\].source is 'nobody'"),
        (("qParams", "supernodes"), [[]], r"supernodes\[0\]"),
        (("metadata", "interp", "values"), [1], "metadata.interp.values is '1 numbers'"),
        (("metadata", "interp", "checks"), [{}], r"checks\[0\].target is missing"),
        (("metadata", "interp", "trials"), {}, r"metadata.interp.trials is"),
        (("metadata", "interp", "trials"), [{}], r"trials\[0\].target is missing"),
    ],
)
def test_the_first_wrong_place_is_named(graph, where, new, said):
    with pytest.raises(InterpError, match=said):
        from_json(broken(json.loads(to_json(graph)), where, new))


def test_what_is_no_graph_at_all_is_refused(graph, monkeypatch):
    for text in ("", "[1", "[]", '{"a": NaN}', b"\xff", "[" * 100_000):
        with pytest.raises(InterpError, match="attribution graph"):
            from_json(text)
    value = json.loads(to_json(graph))
    value["links"][0] = {"source": value["links"][0]["target"], "target": value["links"][0]["source"], "weight": 1.0}
    with pytest.raises(InterpError, match="further up"):
        from_json(json.dumps(value))
    value["nodes"][1]["node_id"] = value["nodes"][0]["node_id"]
    with pytest.raises(InterpError, match="told apart"):
        from_json(json.dumps(value))
    monkeypatch.setattr("interp.circuits.schema.MOST_BYTES", 10)
    with pytest.raises(InterpError, match="10 at most"):
        from_json(to_json(graph))


def test_a_trial_of_nodes_that_are_not_there_is_refused(graph):
    value = json.loads(to_json(replace(graph, trials=(TRIAL,))))
    trial = value["metadata"]["interp"]["trials"][0]
    for key, new, said in (("sources", ["nobody"], r"sources\[0\] is 'nobody'"), ("sources", [], "at least one node")):
        with pytest.raises(InterpError, match=said):
            from_json(json.dumps(value | {"metadata": value["metadata"] | {"interp": value["metadata"]["interp"] | {"trials": [trial | {key: new}]}}}))  # fmt: skip
    del value["metadata"]["interp"]["trials"]
    assert from_json(json.dumps(value)).trials == (), "files of before have none"


def test_what_other_programs_put_into_a_file_stays_in_it(graph):
    value = json.loads(to_json(graph))
    value["metadata"]["feature_details"] = {"neuronpedia_source_set": EVIL}
    value["qParams"] |= {"clickedId": graph.ids[0], "hiddenIds": ["a"], "sg_pos": "0 0"}
    again = json.loads(to_json(from_json(json.dumps(value))))
    assert again == value


def test_trials_go_with_the_nodes_that_are_kept(graph):
    full = replace(graph, trials=(TRIAL, replace(TRIAL, sources=(3,), put_in=5)))
    kept = torch.ones(len(graph.nodes), dtype=torch.bool).numpy()
    kept[0] = False
    left = full.part(kept, graph.edges_NN, torch.zeros(len(graph.nodes)))
    assert [(t.sources, t.target, t.put_in) for t in left.trials] == [((2,), 0, 5)]


def test_the_page_runs_nothing_and_holds_no_text_as_html(graph):
    inner = [each for each, kind in zip(graph.ids, graph.nodes.kind_N, strict=True) if kind == FEATURE]
    hostile = replace(
        graph, words=(EVIL,) * len(graph.tokens), names={inner[0]: EVIL}, about={"prompt": EVIL, "model": EVIL}
    )
    for made in (graph_page(hostile), Circuit(hostile)._repr_html_()):
        assert "<script" not in made
        assert "<img" not in made
        assert "&lt;script&gt;" in made
        assert "http" not in made.replace("http-equiv", "")
        assert 'role="img"' in made
        assert 'aria-label="Attribution graph over' in made


def test_features_of_one_name_are_a_group(graph):
    inner = [each for each, kind in zip(graph.ids, graph.nodes.kind_N, strict=True) if kind == FEATURE]
    made = group_by_name(graph, {inner[0]: "rivers", inner[2]: "rivers", inner[1]: "alone"})
    assert made.groups == (Group("rivers", (inner[0], inner[2])),)
    assert group_by_name(made, {inner[0]: "rivers", inner[2]: "rivers"}).groups == made.groups
    assert prune(made, 1.0, 1.0).names.items() <= made.names.items()


def test_a_circuit_is_traced_written_and_read(folder, tmp_path):
    made = circuit(TEXT, transcoders=str(folder), into=str(tmp_path / "a.json"))
    assert 0 < made.scores["replacement"] < 1
    assert {"replacement", "completeness", "left_out", "errors"} == set(made.scores)
    assert made.command().startswith(f"interp circuit '{TEXT}' --transcoders {folder}")
    read = circuit(str(tmp_path / "a.json"), into=str(tmp_path / "a.html"))
    same(made.graph, read.graph)
    assert (tmp_path / "a.html").read_text().count("<svg") == 1
    shown = show_graph(str(tmp_path / "a.json"))
    assert len(shown.nodes) == len(shown.dots) == len(made.graph.nodes)
    assert len(made.features()) > 0
    json.dumps(made.to_dict(), allow_nan=False)


def test_an_edge_of_a_file_is_told_by_the_heads_that_carried_it(folder, tmp_path, monkeypatch, capsys):
    file = str(tmp_path / "a.json")
    graph = circuit(TEXT, transcoders=str(folder), into=file, keep=0.99, edges=0.99).graph
    n = graph.nodes
    target, source = next(
        (t, s)
        for t, s in graph.edges_NN.nonzero().tolist()
        if n.position_N[t] != n.position_N[s] and n.kind_N[s] == TOKEN
    )
    edge = f"{graph.ids[source]}->{graph.ids[target]}"
    found = circuit_edge(file, edge)
    assert found.straight + sum(each.brought for each in found.heads) + found.others == pytest.approx(
        found.edge, rel=1e-3
    )
    assert found.edge == pytest.approx(float(graph.edges_NN[target, source]), rel=1e-3)
    assert all(each.query and each.key and 0 <= each.attention <= 1 for each in found.heads)
    assert repr(graph.words[n.position_N[source]])[1:-1] in found.source
    with pytest.raises(InterpError, match="no node of this graph"):
        circuit_edge(file, "nothing->" + graph.ids[target])
    monkeypatch.setattr("sys.argv", ["interp", "circuit-edge", file, edge])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert f"{found.heads[0].brought:+.3g}" in capsys.readouterr().out


def test_what_cannot_be_asked_is_said(folder, model, tmp_path, monkeypatch):
    with pytest.raises(InterpError, match=r"the target 'the blue city' is 3 tokens \('"):
        circuit(TEXT, transcoders=str(folder), target="the blue city")
    with pytest.raises(InterpError, match="give --target too"):
        circuit(TEXT, transcoders=str(folder), distractor="blue")
    with pytest.raises(InterpError, match="no transcoders at"):
        circuit(TEXT, transcoders=str(tmp_path / "nowhere"))
    with pytest.raises(InterpError, match="json or .html"):
        circuit(TEXT, transcoders=str(folder), into="a.pdf")
    with pytest.raises(InterpError, match="no file"):
        circuit(str(tmp_path / "none.json"))
    other = Card.read(folder / "layer-0")
    monkeypatch.setattr(Card, "read", staticmethod(lambda path: replace(other, model_sha256="sha256:0000")))
    with pytest.raises(InterpError, match="a graph is of the model"):
        circuit(TEXT, transcoders=str(folder))


def test_a_prompt_that_memory_does_not_hold_says_which_one_fits(model):
    made = make_replacement(model, random_transcoders(model))
    read = made.read(torch.tensor(model.prompt(TEXT)))
    need = graph_bytes(len(read.clean.tokens_T), len(read.layers), read.entries / len(read.clean.tokens_T), 7_500)
    check_memory(made, read, 7_500, free=1.3 * need)
    with pytest.raises(InterpError, match=r"about \d+ tokens? fit and --nodes \d+ fits"):
        check_memory(made, read, 40, free=0.8 * graph_bytes(9, len(read.layers), read.entries / 9, 40))


def test_nodes_groups_and_swaps_of_a_file_are_checked_and_written_into_it(folder, tmp_path):
    file = str(tmp_path / "a.json")
    made = circuit(TEXT, transcoders=str(folder), keep=0.95, edges=0.98, into=file)
    n = made.graph.nodes
    inner = [each for each, kind in zip(made.graph.ids, n.kind_N, strict=True) if kind == FEATURE]
    logits = [each for each, kind in zip(made.graph.ids, n.kind_N, strict=True) if kind == LOGIT]
    grouped = replace(made.graph, groups=(Group("rivers", (inner[0], inner[1], logits[0])),))
    (tmp_path / "a.json").write_text(to_json(grouped))
    number = int(n.index_N[0])
    swapped = f"{inner[0]}={(number + 1) % 24}"
    found = check_circuit(file, nodes=[inner[0]], groups=["rivers"], swaps=[swapped], targets=[inner[-1], logits[0]])
    assert not found.rows, "no edge was asked for"
    assert len(found.tried) == 6
    read = from_json((tmp_path / "a.json").read_text())
    assert [t.name for t in read.trials] == [inner[0]] * 2 + ["rivers"] * 2 + [swapped] * 2
    assert read.trials[2].sources == (0, 1), "a logit of a group is not moved"
    assert read.trials[4].put_in == (number + 1) % 24
    # What the file says of an edge is what moving its source is predicted to do.
    assert read.trials[1].predicted == pytest.approx(float(read.edges_NN[read.trials[1].target, 0]), rel=1e-2, abs=1e-4)
    again = check_circuit(file, nodes=[inner[0]], targets=[logits[0]], edges=[f"{inner[0]}->{logits[0]}"] if read.edges_NN[read.trials[1].target, 0] else [])  # fmt: skip
    assert len(again.graph.trials) == 6, "the newest of each stays"
    assert "of 1 effects of what was moved" in again.sentence()
    json.dumps(found.to_dict(), allow_nan=False)
    page = graph_page(again.graph)
    assert "Nodes, groups and swaps that were tried" in page
    assert "rivers (2 nodes)" in page


def test_what_a_file_does_not_have_is_not_checked(folder, tmp_path):
    file = str(tmp_path / "a.json")
    made = circuit(TEXT, transcoders=str(folder), keep=0.95, edges=0.98, into=file)
    first = made.graph.ids[0]
    for asked, said in (
        ({"nodes": ["9_9_9"]}, "no node of this graph '9_9_9'"),
        ({"groups": ["rivers"]}, "no group of this graph 'rivers'"),
        ({"swaps": [first]}, "a swap is ID=FEATURE"),
        ({"swaps": [f"{first}=99"]}, "0 to 23"),
        ({"targets": [first]}, "name one, or give edges"),
        ({"edges": [first]}, "an edge is SOURCE->TARGET"),
    ):
        with pytest.raises(InterpError, match=said):
            check_circuit(file, **asked)
