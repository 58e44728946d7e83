"""Two graphs side by side: the same is the same, what is shared is counted by hand, and what cannot be compared is said."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.circuits.agreement import Overlap, compare_graphs
from interp.circuits.attribute import attribute
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph, Nodes
from interp.circuits.prune import prune
from interp.circuits.replacement import make_replacement
from interp.circuits.schema import to_json
from interp.commands.circuits import compare_circuits
from interp.models import open_model
from interp.types import InterpError
from tests.families import save
from tests.transcoders import random_transcoders


def by_hand(influence, words=("a", "b")):
    """Features 7 and 9 of layers 0 and 1, an error of layer 1, two tokens and a logit."""
    nodes = Nodes(
        kind_N=np.array([FEATURE, FEATURE, ERROR, TOKEN, TOKEN, LOGIT], np.int8),
        layer_N=np.array([0, 1, 1, -1, -1, 2]),
        position_N=np.array([0, 1, 1, 0, 1, 1]),
        index_N=np.array([7, 9, -1, 4, 5, 3]),
        value_N=np.ones(6, np.float32),
        says_K=("x",),
    )
    about = {"transcoders": ["t0", "t1"], "scores": {"replacement": 0.5, "completeness": 0.25}}
    return Graph(nodes, torch.zeros(6, 6), (4, 5), influence_N=torch.tensor(influence), words=words, about=about)


def test_shares_are_those_that_can_be_counted_by_hand():
    one, other = by_hand([1.0, 2.0, 1.0, 3.0, 1.0, 0.0]), by_hand([3.0, 0.0, 1.0, 1.0, 3.0, 0.0])
    found = compare_graphs(one, other)
    assert found.overlap("layers") == pytest.approx(1 / 4 + 1 / 4)  # 1/4, 3/4 and 3/4, 1/4
    assert found.overlap("positions") == pytest.approx(1 / 4 + 1 / 4)
    assert found.overlap("words") == pytest.approx(1 / 4 + 1 / 4)
    assert found.overlap("features") == pytest.approx(1 / 3)
    assert found.overlap("kinds") == pytest.approx(3 / 8 + 1 / 8 + 4 / 8)
    assert found.scores == {"replacement": (0.5, 0.5), "completeness": (0.25, 0.25)}
    assert found.to_dict()["features"] == [["L0 #7", pytest.approx(1 / 3), 1.0], ["L1 #9", pytest.approx(2 / 3), 0.0]]
    assert not found.left_out


def test_what_cannot_be_compared_is_said():
    one = by_hand([1.0, 2.0, 1.0, 3.0, 1.0, 0.0])
    other = replace(one, tokens=(4, 6), about={"transcoders": ["others"]}, words=("b", "a"))
    found = compare_graphs(one, other)
    assert found.overlap("words") == pytest.approx(1 / 4 + 1 / 4), "by their text, whatever their positions"
    assert np.isnan(found.overlap("positions"))
    assert np.isnan(found.overlap("features"))
    assert [each.split(":")[0] for each in found.left_out] == ["positions", "features"]
    assert found.scores == {}
    alone = compare_graphs(one, by_hand([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert any(each.startswith("words: one of the graphs has none") for each in alone.left_out)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_graph_agrees_with_itself_and_less_with_a_paraphrase_and_with_other_transcoders(family, tmp_path):
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    made = {}
    for name, text, seed in (("one", "the blue city near the river", 0), ("said", "the city near the blue river", 0), ("other", "the blue city near the river", 5)):  # fmt: skip
        replacement = make_replacement(model, random_transcoders(model, seed=seed))
        graph = prune(attribute(replacement, torch.tensor(model.prompt(text))), 0.9, 0.95)
        words = tuple(model.decode([token]) for token in graph.tokens)
        graph = replace(graph, words=words, about={"prompt": text, "transcoders": [str(seed)]})
        made[name] = graph
        (tmp_path / f"{name}.json").write_text(to_json(graph))
    same = compare_graphs(made["one"], made["one"])
    assert [each.value for each in same.overlaps] == pytest.approx([1.0] * 6)
    found = {name: compare_circuits(str(tmp_path / "one.json"), str(tmp_path / f"{name}.json")) for name in made}
    assert found["one"].overlap("features") == pytest.approx(1)
    assert 0 < found["said"].overlap("features") < 0.99
    assert np.isnan(found["said"].overlap("positions"))
    assert 0 < found["other"].overlap("positions") < 0.9999
    assert np.isnan(found["other"].overlap("features"))
    json.dumps(found["said"].to_dict(), allow_nan=False)


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InterpError, match="attribution graph"):
        compare_circuits(str(tmp_path / "a.json"), str(tmp_path / "a.json"))


def test_ranks_are_of_all_that_either_graph_has_and_of_three_at_least():
    found = Overlap("places", {(0, 1): 0.5, (1, 1): 0.3, (1, 2): 0.2}, {(0, 1): 0.7, (1, 2): 0.1, (2, 2): 0.2})
    assert found.ranks == pytest.approx(1 - 6 * (0 + 4 + 0 + 4) / (4 * 15))  # ranks 4, 3, 2, 1 and 4, 1, 2, 3 by hand
    assert np.isnan(Overlap("places", {(0, 1): 0.5, (1, 1): 0.5}, {(0, 1): 1.0}).ranks)
    assert np.isnan(Overlap("places", {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, {0: 0.5, 1: 0.3, 2: 0.2}).ranks)
