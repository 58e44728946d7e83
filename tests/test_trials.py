"""Nodes, groups and swaps that are tried: what is predicted is the sum of their edges and happens while norms and patterns are held,
nothing is counted twice, and a planted swap is confirmed."""

import pytest
import torch

from interp.circuits.attribute import attribute
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN
from interp.circuits.intervene import CONTROLS, Step, changes, check_edges, run_moved
from interp.circuits.replacement import make_replacement
from interp.circuits.trials import moved_nodes, predict_move, swap, try_move
from interp.models import open_model
from interp.types import InterpError
from tests.families import save
from tests.transcoders import random_transcoders

TEXT = "the blue city near the river reads music"


def opened(family, folder, **how):
    model = open_model(str(save(family, folder / family)), dtype="float32")
    replacement = make_replacement(model, random_transcoders(model, **how))
    tokens = torch.tensor(model.prompt(TEXT))
    read = replacement.read(tokens)
    return replacement, read, attribute(replacement, tokens, read=read)


@pytest.fixture(scope="module", params=("llama", "gpt2", "gemma2"))
def made(request, tmp_path_factory):
    return opened(request.param, tmp_path_factory.mktemp("tried"), skip=request.param == "llama")


def features(graph, layer, count=3):
    n = graph.nodes
    own = [node for node in range(len(n)) if n.kind_N[node] == FEATURE and n.layer_N[node] == layer]
    return own[:: max(len(own) // count, 1)][:count]


def group_of(graph):
    """Features of two layers, an error and a token."""
    tokens = len(graph.tokens)
    return [*features(graph, 0), *features(graph, 1), graph.at(ERROR, 1, 3), graph.at(TOKEN, -1, tokens - 2)]


def logits_of(graph):
    return [node for node in range(len(graph.nodes)) if graph.nodes.kind_N[node] == LOGIT]


def quiet_feature(read, graph, node):
    own = read.layers[int(graph.nodes.layer_N[node])]
    fires = set(own.feature_E[own.position_E == int(graph.nodes.position_N[node])].tolist())
    return next(f for f in range(len(own.W_dec)) if f not in fires)


def test_a_groups_direct_effect_is_the_sum_of_its_edges(made):
    replacement, read, graph = made
    nodes = group_of(graph)
    direct_N, whole_N = predict_move(replacement, read, graph, moved_nodes(read, graph, nodes, "group"))
    said_N = graph.edges_NN[:, nodes].sum(1)
    ends = torch.from_numpy((graph.nodes.kind_N == FEATURE) | (graph.nodes.kind_N == LOGIT))
    assert float(said_N.abs().max()) > 0.1
    torch.testing.assert_close(direct_N[ends], said_N[ends], atol=2e-4, rtol=1e-3)
    assert float((whole_N - direct_N).abs().max()) > 1e-3, "paths through other features are counted too"


@pytest.mark.parametrize("kind", ["group", "swap"])
def test_a_small_move_in_the_held_model_does_what_all_paths_predict(made, kind):
    replacement, read, graph = made
    node = features(graph, 0)[1]
    group = [*features(graph, 0), *features(graph, 1)]
    move = (
        moved_nodes(read, graph, group, "group")
        if kind == "group"
        else swap(read, graph, node, quiet_feature(read, graph, node))
    )
    _, whole_N = predict_move(replacement, read, graph, move)
    share = 1e-3
    steps = [each.times(share) for each in move.steps]
    targets = [*features(graph, 2, 40), *logits_of(graph)]
    moved = run_moved(replacement, read, [steps], "held", [2])
    did = changes(replacement, read, graph, moved, targets)[0] / share
    said = whole_N[targets]
    assert float(said.abs().max()) > 0.02
    # A feature beside its threshold may still begin to fire, so not all agree, but nearly all do.
    agree = (did - said).abs() < 0.05 * said.abs().max()
    assert float(agree.float().mean()) > 0.9


def test_members_of_a_group_stay_where_they_were_put(tmp_path):
    """Taking out a lower feature makes the linked one above it fire less: what is then taken out of that is what it still fires."""
    replacement, read, graph = opened("llama", tmp_path, linked=True)
    n = graph.nodes
    there = {(int(a), int(p), int(f)): i for i, (a, p, f) in enumerate(zip(n.layer_N, n.position_N, n.index_N, strict=True)) if n.kind_N[i] == FEATURE}  # fmt: skip
    low = next(key for key in there if key[0] == 0 and (1, *key[1:]) in there)
    nodes = [there[low], there[1, *low[1:]]]
    move = moved_nodes(read, graph, nodes, "both")
    gone = [each.times(-1.0) for each in move.steps]
    found = run_moved(replacement, read, [gone, gone], "live", [1, 2])
    first = run_moved(replacement, read, [gone[:1]], "live", [1])
    one, (_, at, feature) = replacement.transcoders[1], low
    still = float(one.encode_feature(first.read[1][0, at], feature))
    assert still < 0.9 * float(n.value_N[nodes[1]])
    by_hand = [gone[0], Step(1, at, -still * one.W_dec[feature])]
    slow = run_moved(replacement, read, [by_hand], "live", [2])
    torch.testing.assert_close(found.read[2][1], slow.read[2][0], atol=1e-5, rtol=1e-4)
    twice = run_moved(replacement, read, [[Step(s.layer, s.at, s.vector_D) for s in gone]], "live", [2])
    assert float((twice.read[2] - slow.read[2]).abs().max()) > 1e-3


def test_a_node_is_tried_as_its_edges_are(made):
    replacement, read, graph = made
    node = features(graph, 1)[1]
    targets = [*features(graph, 2, 2), logits_of(graph)[0]]
    found = try_move(replacement, read, graph, moved_nodes(read, graph, [node], "one"), targets)
    edges = check_edges(replacement, read, graph, [(target, node) for target in targets])
    for trial, check in zip(found, edges, strict=True):
        assert trial.sources == (node,)
        assert trial.predicted == pytest.approx(check.edge, rel=2e-3, abs=2e-5)
        assert trial.whole == pytest.approx(check.whole, rel=2e-3, abs=2e-5)
        for name in ("measured", "low", "high", "live"):
            assert getattr(trial, name) == pytest.approx(getattr(check, name), rel=1e-3, abs=1e-5)
        assert trial.adversarial == pytest.approx(check.adversarial, rel=1e-3)
        assert 1 / (CONTROLS + 1) <= trial.p <= 1


def test_a_group_is_tried_on_all_logits_and_the_worst_direction_does_more(made):
    replacement, read, graph = made
    nodes = group_of(graph)
    found = try_move(replacement, read, graph, moved_nodes(read, graph, nodes[:-1], "group"))
    assert [trial.target for trial in found] == logits_of(graph)
    assert all(trial.low <= trial.measured <= trial.high for trial in found)
    # By the gradient where nothing has moved, so not the worst of every target, but of most.
    assert sum(t.adversarial > max(t.control, abs(t.measured)) for t in found) > 0.6 * len(found)
    with_token = try_move(replacement, read, graph, moved_nodes(read, graph, nodes, "group"))
    assert all(t.low == t.measured == t.high for t in with_token), "a token among them is only ablated"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_swap_that_is_planted_is_confirmed_at_both_of_its_ends(family, tmp_path):
    """Feature f of a layer reads what f of the layer before writes: f in the place of g lowers g there, and raises f."""
    replacement, read, graph = opened(family, tmp_path, linked=True)
    n, verdicts = graph.nodes, {"taken out": [], "put in": [], "neither": []}
    there = {(int(a), int(p), int(f)): i for i, (a, p, f) in enumerate(zip(n.layer_N, n.position_N, n.index_N, strict=True)) if n.kind_N[i] == FEATURE}  # fmt: skip
    for (layer, at, feature), node in list(there.items()):
        up = [f for (a, p, f) in there if (a, p) == (layer + 1, at)]
        put = [f for f in up if f != feature and (layer, at, f) not in there]
        if feature not in up or not put:
            continue
        other = next((f for f in up if f not in (feature, put[0])), None)
        targets = {"taken out": feature, "put in": put[0], "neither": other}
        numbers = {what: there[layer + 1, at, f] for what, f in targets.items() if f is not None}
        trials = try_move(replacement, read, graph, swap(read, graph, node, put[0]), list(numbers.values()))
        for what, trial in zip(numbers, trials, strict=True):
            assert what == "neither" or trial.predicted * (1 if what == "put in" else -1) > 0
            verdicts[what].append(trial.verdict)
    assert len(verdicts["put in"]) >= 5
    for what in ("taken out", "put in"):
        assert verdicts[what].count("confirmed") > 0.6 * len(verdicts[what])
    assert verdicts["neither"].count("confirmed") < 0.2 * len(verdicts["neither"])


def test_what_cannot_be_moved_or_measured_is_said(made):
    replacement, read, graph = made
    node, logit = features(graph, 0)[0], logits_of(graph)[0]
    with pytest.raises(InterpError, match="a logit adds nothing"):
        moved_nodes(read, graph, [logit], "the answer")
    with pytest.raises(InterpError, match="rivers has no feature"):
        moved_nodes(read, graph, [], "rivers")
    with pytest.raises(InterpError, match="is no feature, and only"):
        swap(read, graph, logit, 3)
    for feature in (int(graph.nodes.index_N[node]), 24, -1):
        with pytest.raises(InterpError, match="another feature of layer 0, 0 to 23"):
            swap(read, graph, node, feature)
    move = moved_nodes(read, graph, [node], "one")
    with pytest.raises(InterpError, match="is moved itself"):
        try_move(replacement, read, graph, move, [node])
    with pytest.raises(InterpError, match="only features and logits are targets"):
        try_move(replacement, read, graph, move, [graph.at(TOKEN, -1, 1)])
