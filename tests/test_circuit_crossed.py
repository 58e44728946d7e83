"""Graphs through a cross-layer transcoder: a feature's edges have all that it writes, and whoever moves it moves all of that."""

from pathlib import Path

import numpy as np
import pytest
import torch

from interp.checkpoint.eight_bit import write_features
from interp.circuits.attribute import attribute
from interp.circuits.carriers import carried
from interp.circuits.correlation import correlate
from interp.circuits.crossed import replace_by_cross_layer
from interp.circuits.faithful import measure_faithfulness
from interp.circuits.frozen import EMBEDDING, held_pass
from interp.circuits.graph import FEATURE, LOGIT
from interp.circuits.intervene import changes, check_edges, run_moved, total_effects, written_by
from interp.circuits.layer import Step
from interp.circuits.replacement import make_replacement
from interp.circuits.trials import moved_nodes, predict_move, swap, try_move
from interp.commands.circuits import check_circuit, circuit, compare_circuits
from interp.models import open_model
from interp.types import InterpError
from interp.workbench.replacing import open_circuits
from tests.families import save
from tests.transcoders import random_cross_layer, random_transcoders, save_random_cross_layer

TEXT = "the blue city near the river reads music"


@pytest.fixture(scope="module", params=("llama", "gpt2", "gemma2"))
def made(request, tmp_path_factory):
    model = open_model(str(save(request.param, tmp_path_factory.mktemp("crossed") / "one")), dtype="float32")
    replacement = replace_by_cross_layer(model, random_cross_layer(model))
    tokens = torch.tensor(model.prompt(TEXT))
    read = replacement.read(tokens)
    return replacement, read, attribute(replacement, tokens, read=read)


def features(graph, layer):
    n = graph.nodes
    return np.flatnonzero((n.kind_N == FEATURE) & (n.layer_N == layer)).tolist()


def test_what_all_layers_write_and_the_error_are_the_mlps_output(made):
    replacement, read, _ = made
    for into, layer in enumerate(read.layers):
        said = torch.where(read.counted_LT[into][:, None], replacement.parts[into].transcoder.b_dec[into], 0.0)
        for source in read.layers[: into + 1]:
            written_ED = source.value_E[:, None] * source.rows(into, source.feature_E)
            said = said.index_add(0, source.position_E, written_ED)
        torch.testing.assert_close((said + layer.error_TD)[1:], layer.out_TD[1:], atol=1e-5, rtol=1e-4)


def test_an_edge_is_what_all_that_its_source_writes_does_while_patterns_and_norms_are_held(made):
    replacement, read, graph = made
    n, cuts, reads = graph.nodes, replacement.cuts(read), replacement.reads
    tried = 0
    for source in (*features(graph, 0)[:4], *features(graph, 1)[:3]):
        step = written_by(read, graph, source)
        assert set(step.vectors) == set(range(step.layer, len(read.layers)))
        added = {replacement.writes[m]: torch.zeros_like(read.layers[m].out_TD) for m in step.vectors}
        for m, vector_D in step.vectors.items():
            added[replacement.writes[m]][step.at] = vector_D
        held = held_pass(replacement.model, replacement.norms, read.clean, cuts, reads, added)
        for target in np.flatnonzero(n.kind_N == FEATURE).tolist():
            layer, own = read.layers[n.layer_N[target]], torch.tensor([n.index_N[target]])
            row_D = layer.read_rows(layer.find(torch.tensor([n.position_N[target]]), own))[0]
            name = reads[n.layer_N[target]]
            did = float((held.ends[name].detach() - read.clean.activations[name])[0, n.position_N[target]] @ row_D)
            assert did == pytest.approx(float(graph.edges_NN[target, source]), abs=2e-4, rel=2e-3)
            tried += abs(did) > 1e-3
    assert tried > 20


def test_one_that_writes_nothing_further_has_the_graph_of_its_layers(made):
    model = made[0].model
    tokens = torch.tensor(model.prompt(TEXT))
    one = attribute(replace_by_cross_layer(model, random_cross_layer(model, apart=True)), tokens)
    other = attribute(make_replacement(model, random_transcoders(model)), tokens)
    torch.testing.assert_close(one.edges_NN, other.edges_NN, atol=1e-5, rtol=1e-4)
    assert one.nodes.index_N.tolist() == other.nodes.index_N.tolist()
    assert float((one.edges_NN - made[2].edges_NN).abs().max()) > 0.01


def test_a_small_change_of_the_held_model_is_what_all_paths_predict(made):
    replacement, read, graph = made
    some = [*features(graph, 0)[::5], *features(graph, 1)[::5]]
    total, share = total_effects(graph, some), 1e-3
    moved = run_moved(replacement, read, [[written_by(read, graph, node).times(share)] for node in some], "held", [2])
    targets = [*features(graph, 2), *np.flatnonzero(graph.nodes.kind_N == LOGIT).tolist()]
    did, said = changes(replacement, read, graph, moved, targets) / share, total[targets].T
    assert float(said.abs().max()) > 0.02
    assert float(((did - said).abs() < 0.05 * said.abs().max()).float().mean()) > 0.9
    still = [[Step(0, 2, torch.zeros(read.layers[0].out_TD.shape[1]))]]
    for way in ("live", "direct", "held"):
        logits_BV = run_moved(replacement, read, still, way, []).logits_BV
        torch.testing.assert_close(logits_BV[0], read.clean.logits_V, atol=2e-4, rtol=1e-4)
    said_P, did_P, _ = correlate(replacement, read, graph, features(graph, 1)[:6], "held")
    assert float(torch.corrcoef(torch.stack([said_P, did_P]))[0, 1]) > 0.5


@pytest.mark.parametrize("way", ["live", "held"])
def test_a_feature_that_stays_where_it_was_put_does_so_in_all_that_it_writes(made, way):
    """A token taken away changes what features of layer 1 read; one that stays writes what it wrote, into layers 1 and 2."""
    replacement, read, graph = made
    n, clean = graph.nodes, read.clean
    step = next(
        Step(-1, at, -clean.activations[EMBEDDING][0, at]) for at in reversed(range(len(clean.tokens_T))) if (n.position_N[features(graph, 1)] == at).any()
    )  # fmt: skip
    alone = run_moved(replacement, read, [[step]], way, [1, 2])
    one, hook = replacement.parts[1].transcoder.layers[1], replacement.reads[1]
    there = [int(n.index_N[node]) for node in features(graph, 1) if n.position_N[node] == step.at]
    x_D, clean_D = alone.read[1][0, step.at], clean.activations[hook][0, step.at]
    change = {f: float(one.encode_feature(x_D, f) - one.encode_feature(clean_D, f)) for f in there}
    feature = max(change, key=lambda f: abs(change[f]))
    assert abs(change[feature]) > 0.02
    stays = Step(1, step.at, torch.zeros_like(step.vector_D), feature)
    both = run_moved(replacement, read, [[step, stays]], way, [1, 2])
    undone = [step, read.layers[1].step(step.at, feature, -change[feature])]
    by_hand = run_moved(replacement, read, [undone], way, [1, 2])
    torch.testing.assert_close(both.read[2], by_hand.read[2], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(both.logits_BV, by_hand.logits_BV, atol=5e-4, rtol=1e-3)
    assert float((both.logits_BV - alone.logits_BV).abs().max()) > 1e-3


def test_edges_nodes_swaps_and_heads_are_tried_with_all_that_a_feature_writes(made):
    replacement, read, graph = made
    source = features(graph, 0)[2]
    target = max(features(graph, 2), key=lambda node: abs(float(graph.edges_NN[node, source])))
    (check,) = check_edges(replacement, read, graph, [(target, source)])
    gone = run_moved(replacement, read, [[written_by(read, graph, source).times(-1.0)]], "direct", [2])
    # Ablated, halved and doubled: the mean per unit of the source; what is read of one alone is near it.
    did = -float(changes(replacement, read, graph, gone, [target])[0, 0])
    assert check.low - 1e-4 <= did <= check.high + 1e-4
    quiet = next(f for f in range(24) if not read.layers[0].fires(int(graph.nodes.position_N[source]), f))
    for move in (moved_nodes(read, graph, [source], "one"), swap(read, graph, source, quiet)):
        direct_N, _ = predict_move(replacement, read, graph, move)
        (trial,) = try_move(replacement, read, graph, move, [target])
        assert trial.predicted == pytest.approx(float(direct_N[target]))
    direct_N, _ = predict_move(replacement, read, graph, moved_nodes(read, graph, [source], "one"))
    assert float(direct_N[target]) == pytest.approx(float(graph.edges_NN[target, source]), rel=2e-3, abs=2e-4)
    found = carried(replacement, read, graph, target, source)
    assert found.straight + found.brought_LH.sum() == pytest.approx(found.edge, rel=1e-3, abs=1e-4)


def test_with_every_feature_as_in_the_prompt_only_errors_are_the_others(made):
    replacement, read, graph = made
    other = replacement.read(torch.tensor(replacement.model.prompt("the green city near the river reads music")))
    logits_V = read.clean.logits_V - other.clean.logits_V
    found = measure_faithfulness(replacement, read, other, graph, int(logits_V.argmax()), int(logits_V.argmin()))
    assert found.f[0] == pytest.approx(0, abs=1e-6)
    assert len(set(found.f)) > 2


def test_a_folder_is_traced_checked_and_compared_by_the_commands(made, tmp_path):
    model = made[0].model
    folder = str(save_random_cross_layer(model, tmp_path / "clt"))
    file = str(tmp_path / "graph.json")
    said = [[{"density": 0.1, "fires_on": [f" word{n}-{f}"], "share": 1.0, "promotes": []} for f in range(24)] for n in range(3)]  # fmt: skip
    write_features(Path(folder), said)
    drawn = circuit(TEXT, transcoders=folder, into=file)
    n, first = drawn.graph.nodes, features(drawn.graph, 1)[0]
    assert drawn.graph.names[drawn.graph.ids[first]] == f"on ‘ word1-{n.index_N[first]}’"
    assert drawn.graph.about["cross_layer"] is True
    assert drawn.graph.about["transcoders"] == [folder]
    rows = check_circuit(file, count=3).rows
    assert len(rows) == 3
    assert {row["verdict"] for row in rows} <= {"confirmed", "refuted", "undecided"}
    agreed = compare_circuits(file, file).to_dict()
    assert agreed["overlap"]["features"] == pytest.approx(1)


def test_one_of_another_model_or_of_other_layers_is_refused(made, tmp_path):
    model = made[0].model
    with pytest.raises(InterpError, match="was made for"):
        open_circuits(save_random_cross_layer(model, tmp_path / "other", model_sha256="0" * 64))
    whole = random_cross_layer(model)
    whole.set_hooks(tuple(reversed(whole.reads)), tuple(reversed(whole.writes)))
    with pytest.raises(InterpError, match="from the first to the last"):
        replace_by_cross_layer(model, whole)
