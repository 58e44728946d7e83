"""Checked edges: what is predicted is what happens where a graph is a picture of it, and what is planted false is not confirmed."""

import pytest
import torch

from interp.circuits.attribute import attribute
from interp.circuits.correlation import correlate, correlate_by_distance
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN
from interp.circuits.intervene import (
    CONTROLS,
    Step,
    check_edges,
    judge,
    run_moved,
    total_effects,
    written_by,
)
from interp.circuits.replacement import make_replacement
from interp.models import open_model
from interp.types import InterpError
from tests.families import save
from tests.transcoders import random_transcoders


@pytest.fixture(scope="module", params=("llama", "gpt2", "gemma2"))
def made(request, tmp_path_factory):
    model = open_model(str(save(request.param, tmp_path_factory.mktemp("moved") / "one")), dtype="float32")
    replacement = make_replacement(model, random_transcoders(model, skip=request.param == "llama"))
    tokens = torch.tensor(model.prompt("the blue city near the river reads music"))
    read = replacement.read(tokens)
    return replacement, read, attribute(replacement, tokens, read=read)


def test_nothing_moved_changes_nothing_in_any_way(made):
    replacement, read, _ = made
    still = [[Step(0, 2, torch.zeros(replacement.transcoders[0].d_out))]] * 3
    layers = list(range(len(read.layers)))
    for way in ("live", "direct", "held"):
        moved = run_moved(replacement, read, still, way, layers)
        torch.testing.assert_close(moved.logits_BV[1], read.clean.logits_V, atol=2e-4, rtol=1e-4)
        for layer, x_BTD in moved.read.items():
            clean = read.clean.activations[replacement.reads[layer]]
            torch.testing.assert_close(x_BTD, clean.expand_as(x_BTD), atol=2e-4, rtol=1e-4)


def test_a_small_change_of_the_held_model_is_what_all_paths_predict(made):
    """Small, so that no feature begins or ceases to fire: then the held model is linear, and its paths are all in the graph."""
    replacement, read, graph = made
    nodes = graph.nodes
    some = [n for n in range(len(nodes)) if nodes.kind_N[n] != LOGIT and nodes.layer_N[n] < len(read.layers) - 1][::9]
    total = total_effects(graph, some)
    share = 1e-3
    moves = []
    for node in some:
        step = written_by(read, graph, node)
        moves.append([step.times(share)])
    moved = run_moved(replacement, read, moves, "held", [])
    logits = torch.from_numpy(nodes.kind_N == LOGIT)
    did = (moved.logits_BV - read.clean.logits_V) @ graph.directions_KV.T / share
    said = total[logits].T
    assert float(said.abs().max()) > 0.1
    # A feature beside its threshold may still begin to fire, so not all agree, but nearly all do.
    agree = (did - said).abs() < 0.05 * said.abs().max()
    assert float(agree.float().mean()) > 0.9
    if all(one.W_skip is None for one in replacement.transcoders):
        assert float((did - said).abs().median()) < 0.02 * float(said.abs().max())


def test_ablating_features_in_the_held_model_goes_as_predicted(made):
    replacement, read, graph = made
    some = [int(n) for n in torch.from_numpy(graph.nodes.kind_N == FEATURE).nonzero()[:, 0][::7]]
    said, did, apart = correlate(replacement, read, graph, some)
    assert int(apart.min()) == 1
    near = correlate_by_distance(replacement, read, graph, some, "held", (1, 3))
    assert near["1"] > 0.99, "what the next layer reads is linear while patterns and norms are held"
    assert len(said) == len(did) > 100
    assert float(torch.corrcoef(torch.stack([said, did]))[0, 1]) > 0.5  # random features are not sparse and not smooth


def test_an_edge_is_checked_against_controls_and_the_worst_case(made):
    replacement, read, graph = made
    edges = [(t, s) for t, s, _ in graph.strongest(400) if graph.nodes.kind_N[s] in (FEATURE, TOKEN, ERROR)][::40]
    checks = check_edges(replacement, read, graph, edges)
    assert [(c.target, c.source) for c in checks] == edges
    for check in checks:
        assert check.low <= check.measured <= check.high
        assert 1 / (CONTROLS + 1) <= check.p <= 1
        assert check.verdict in ("confirmed", "refuted", "undecided")
        assert check.verdict != "confirmed" or check.measured * check.edge > 0
        assert check.live_verdict != "confirmed" or check.live * check.whole > 0
    again = check_edges(replacement, read, graph, edges[:2])
    assert [c.measured for c in again] == pytest.approx([c.measured for c in checks[:2]], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_edge_that_is_planted_is_confirmed_and_others_mostly_are_not(family, tmp_path):
    model = open_model(str(save(family, tmp_path / family)), dtype="float32")
    replacement = make_replacement(model, random_transcoders(model, linked=True))
    tokens = torch.tensor(model.prompt("the blue city near the river reads music"))
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    n, there = graph.nodes, {}
    for node in range(len(n)):
        if n.kind_N[node] == FEATURE:
            there[int(n.layer_N[node]), int(n.position_N[node]), int(n.index_N[node])] = node
    planted = [(there[layer + 1, at, f], s) for (layer, at, f), s in there.items() if (layer + 1, at, f) in there]
    others = [
        (t, s)
        for (layer, at, f), s in there.items()
        for (to, where, g), t in there.items()
        if (to, where) == (layer + 1, at) and g != f
    ][:: max(len(there) // 10, 1)]
    share = {}
    for name, edges in (("planted", planted), ("others", others)):
        verdicts = [check.verdict for check in check_edges(replacement, read, graph, edges)]
        assert len(verdicts) >= 10
        share[name] = verdicts.count("confirmed") / len(verdicts)
    assert share["planted"] > 0.6
    assert share["others"] < 0.2


def test_the_verdicts_rule():
    assert judge(1.0, 1.2, 0.9, 1.5, 0.05) == "confirmed"
    assert judge(1.0, 1.2, -0.1, 1.5, 0.05) == "undecided", "one of three has the other sign"
    assert judge(1.0, 3.0, 2.5, 3.5, 0.05) == "undecided", "three times as much as predicted"
    assert judge(1.0, 1.2, 0.9, 1.5, 0.20) == "undecided"
    assert judge(1.0, -1.2, -1.5, -0.9, 0.05) == "refuted"
    assert judge(1.0, 0.1, 0.1, 0.1, 0.8) == "refuted"
    assert judge(0.0, 0.0, 0.0, 0.0, 1.0) == "undecided", "nothing was claimed"


def test_what_is_no_source_or_no_target_is_refused(made):
    replacement, read, graph = made
    logit = int(torch.from_numpy(graph.nodes.kind_N == LOGIT).nonzero()[0])
    token = graph.at(TOKEN, -1, 2)
    with pytest.raises(InterpError, match="a logit adds nothing"):
        check_edges(replacement, read, graph, [(logit, logit)])
    with pytest.raises(InterpError, match="only features and logits are targets"):
        check_edges(replacement, read, graph, [(token, graph.at(TOKEN, -1, 1))])


def test_faithfulness_of_nothing_is_0_and_all_features_without_errors_give_the_whole(made):
    from interp.circuits.faithful import measure_faithfulness

    replacement, read, graph = made
    other = replacement.read(torch.tensor(replacement.model.prompt("the green house under the train walks over")))
    if len(other.clean.tokens_T) != len(read.clean.tokens_T):
        other = replacement.read(read.clean.tokens_T.flip(0).roll(1))
    top = read.clean.logits_V.argsort(descending=True)
    found = measure_faithfulness(replacement, read, other, graph, int(top[0]), int(top[-1]))
    assert found.f[0] == 0
    assert found.cmd >= 0
    assert found.whole == pytest.approx(float(read.clean.logits_V[top[0]] - read.clean.logits_V[top[-1]]), abs=1e-2)
    with pytest.raises(InterpError, match="of one length"):
        measure_faithfulness(replacement, read, replacement.read(read.clean.tokens_T[:4]), graph, 1, 2)
    with pytest.raises(InterpError, match="the answer is the same"):
        measure_faithfulness(replacement, read, read, graph, 1, 2)
