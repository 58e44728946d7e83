"""Graphs over a model's own neurons: gates and ratios are held, nothing is left over, and what is tried is the activation itself."""

import json
from functools import partial

import pytest
import torch
from transformers.activations import ACT2FN

from interp.circuits.agreement import compare_graphs
from interp.circuits.attribute import attribute
from interp.circuits.carriers import carried
from interp.circuits.correlation import correlate
from interp.circuits.frozen import EMBEDDING, holding
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN
from interp.circuits.held_out import choose_features
from interp.circuits.intervene import Step, check_edges, run_moved, total_effects, written_by
from interp.circuits.neurons import replace_by_neurons
from interp.circuits.page import graph_html, graph_page
from interp.circuits.trials import moved_nodes, predict_move, swap, try_move
from interp.commands.circuits import check_circuit, circuit, circuit_edge, compare_circuits, show_graph
from interp.models import Edit, open_model
from interp.models.mlp import find_mlps
from interp.types import InterpError
from tests.families import save
from tests.transcoders import save_transcoders

KINDS = ("llama", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "mistral", "bloom", "mpt")
WAYS = [*((kind, "held") for kind in KINDS), ("llama", "half"), ("phi3", "half"), ("gemma2", "half")]
TEXT = "the blue city near the river reads music"


def opened(kind, folder):
    return open_model(str(save(kind, folder / kind)), dtype="float32")


def prompt(replacement):
    return torch.tensor(replacement.model.prompt(TEXT))


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def made(request, tmp_path_factory):
    kind, gate = request.param
    replacement = replace_by_neurons(opened(kind, tmp_path_factory.mktemp("neurons")), per_position=6, gate=gate)
    read = replacement.read(prompt(replacement))
    return replacement, read, attribute(replacement, prompt(replacement), read=read)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("neurons-commands") / "llama")


def test_an_edge_is_what_a_change_of_its_source_does_while_patterns_norms_and_gates_are_held(made):
    replacement, read, graph = made
    n, clean = graph.nodes, read.clean
    assert graph.about == {"over": "neurons"}
    for source in torch.randperm(len(n), generator=torch.Generator().manual_seed(0))[:8].tolist():
        if n.kind_N[source] == LOGIT:
            continue
        step = written_by(read, graph, source)
        layer, at, vector = step.layer, step.at, step.vector_D
        hook = EMBEDDING if layer < 0 else replacement.writes[layer]
        edits = list(holding(replacement.norms, clean))
        for each in (EMBEDDING, *replacement.writes):
            now = clean.activations[each].clone()
            if each == hook:
                now[0, at] += 0.1 * vector  # the held pass is linear, so any share will do
            edits.append(Edit(each, partial(lambda now, out, _: now, now)))
        run = replacement.model.run(clean.tokens_T[None], replacement.reads, edits, logits=True, last=1)
        for target in graph.edges_NN[:, source].abs().topk(6).indices.tolist():
            if n.kind_N[target] == FEATURE:
                one, place = read.layers[n.layer_N[target]], int(n.position_N[target])
                entry = one.find(torch.tensor([place]), torch.tensor([int(n.index_N[target])]))
                x = replacement.reads[one.number]
                change_D = (run.activations[x] - clean.activations[x])[0, place]
                did = float(change_D @ one.read_rows(entry)[0])
            else:
                change_V = run.logits[0, -1] - clean.logits_V
                did = float(change_V[n.index_N[target]] - change_V.mean())
            said = 0.1 * float(graph.edges_NN[target, source])
            assert did == pytest.approx(said, rel=2e-3, abs=2e-4)


def test_a_neuron_reads_its_activation_and_its_constant(made):
    """Row times what is read, and the constant: the activation itself, in every family and by either way."""
    replacement, read, _ = made
    for layer in read.layers:
        x_ED = read.clean.activations[replacement.reads[layer.number]][0, layer.position_E]
        rows_ED = layer.read_rows(torch.arange(len(layer.feature_E)))
        torch.testing.assert_close((x_ED * rows_ED).sum(1) + layer.constant_E, layer.value_E, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "gate"), [("llama", "held"), ("llama", "half"), ("gpt2", "held")])
def test_a_neurons_edges_and_its_constant_add_up_to_its_activation(kind, gate, tmp_path):
    """These have no biases outside the MLPs, and of those inside every part gets its node here, so that nothing is left."""
    model = opened(kind, tmp_path)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if kind == "gpt2" and "c_fc" in name and name.endswith("bias"):
                parameter.add_(torch.randn(len(parameter), generator=torch.Generator().manual_seed(2)))
    replacement = replace_by_neurons(model, per_position=8, gate=gate)
    read = replacement.read(prompt(replacement))
    assert (kind == "gpt2") == any(float(layer.constant_E.abs().max()) > 0.01 for layer in read.layers)
    for layer in read.layers:
        said = torch.zeros_like(layer.out_TD).index_add_(0, layer.position_E, layer.written_ED)
        layer.error_TD.copy_(layer.out_TD - said)
    graph = attribute(replacement, prompt(replacement), read=read)
    assert float(graph.bias_S.abs().max()) < 1e-4
    assert float(torch.from_numpy(graph.nodes.value_N).abs().max()) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_neurons_there_is_no_error(kind, tmp_path):
    replacement = replace_by_neurons(opened(kind, tmp_path), per_position=10_000)
    for layer in replacement.read(prompt(replacement)).layers:
        assert float(layer.error_TD.abs().max()) < 1e-4 * float(layer.out_TD.abs().max())


@pytest.mark.parametrize(
    ("kind", "config"), [("llama", "hidden_act"), ("phi3", "hidden_act"), ("gpt2", "activation_function")]
)
def test_what_is_held_is_the_gate_or_the_ratio_and_the_strongest_are_nodes(kind, config, tmp_path):
    model = opened(kind, tmp_path)
    act = ACT2FN[getattr(model.module.config, config)]
    replacement = replace_by_neurons(model, per_position=5)
    read = replacement.read(prompt(replacement))
    for layer, part in zip(read.layers, replacement.parts, strict=True):
        seen = {name: read.clean.activations[name][0] for name in part.hooks}
        x_TD = seen[part.reads]
        z_TM = x_TD @ (part.mlp.W_up if kind == "gpt2" else part.mlp.W_gate).T
        held_TM = act(z_TM) / (z_TM if kind == "gpt2" else 1)
        ((_, scale_E),) = layer.reads
        torch.testing.assert_close(scale_E, held_TM[layer.position_E, layer.feature_E], atol=1e-4, rtol=1e-4)
        size_TM = seen[part.measures].abs() * part.W_dec.norm(dim=1)
        for at in range(1, len(x_TD)):
            chosen = set(layer.feature_E[layer.position_E == at].tolist())
            assert chosen == set(size_TM[at].topk(5).indices.tolist())
        assert not (layer.position_E == 0).any(), "the first position does not count"
        assert not layer.error_TD[0].any(), "what opens every text is no error"


def test_half_a_gate_is_the_mean_of_either_side_alone(tmp_path):
    model = opened("llama", tmp_path)
    held, half = (
        replace_by_neurons(model, per_position=4, gate=gate).read(torch.tensor(model.prompt(TEXT)))
        for gate in ("held", "half")
    )
    for one, other, mlp in zip(held.layers, half.layers, find_mlps(model), strict=True):
        some = torch.arange(len(one.feature_E))
        gate_E = held.clean.activations[mlp.gate][0][one.position_E, one.feature_E]
        by_gate_ED = (one.value_E / gate_E)[:, None] * mlp.W_gate[one.feature_E]
        torch.testing.assert_close(other.read_rows(some), (one.read_rows(some) + by_gate_ED) / 2)


def test_nothing_moved_changes_nothing_in_any_way(made):
    replacement, read, _ = made
    still = [[Step(0, 2, torch.zeros(32))]] * 2
    for way in ("live", "direct", "held"):
        moved = run_moved(replacement, read, still, way, [0, 1])
        torch.testing.assert_close(moved.logits_BV[1], read.clean.logits_V, atol=2e-4, rtol=1e-4)
        for layer, seen_BTM in moved.read.items():
            clean_1TM = read.clean.activations[replacement.measures[layer]]
            torch.testing.assert_close(seen_BTM, clean_1TM.expand_as(seen_BTM), atol=2e-4, rtol=1e-4)


def test_the_held_model_does_what_all_paths_predict_whatever_the_size(made):
    """With gates held too nothing bends, so ablating is no more than a small change many times."""
    replacement, read, graph = made
    n = graph.nodes
    some = [node for node in range(len(n)) if n.kind_N[node] != LOGIT and n.layer_N[node] < len(read.layers) - 1][::9]
    total = total_effects(graph, some)[n.kind_N == LOGIT].T
    moves = [[written_by(read, graph, node).times(-1.0)] for node in some]
    did = (run_moved(replacement, read, moves, "held", []).logits_BV - read.clean.logits_V) @ graph.directions_KV.T
    bends = getattr(replacement.model.module.config, "final_logit_softcapping", None)
    assert float(total.abs().max()) > 0.1
    if not bends:
        torch.testing.assert_close(-did, total, atol=5e-3 * float(total.abs().max()), rtol=1e-2)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_measured_is_the_activation_with_its_gate_free(kind, tmp_path):
    replacement = replace_by_neurons(opened(kind, tmp_path), per_position=6)
    read = replacement.read(prompt(replacement))
    graph = attribute(replacement, prompt(replacement), read=read)
    n = graph.nodes
    target, source = next(
        (t, s)
        for t, s, _ in graph.strongest(200)
        if n.kind_N[t] == n.kind_N[s] == FEATURE and n.position_N[t] == n.position_N[s]
    )
    step = written_by(read, graph, source)
    layer, at, vector = step.layer, step.at, step.vector_D
    edits = [
        Edit(name, partial(lambda now, out, _: now, read.clean.activations[name].clone()))
        for name in replacement.writes
    ]
    gone = read.clean.activations[replacement.writes[layer]].clone()
    gone[0, at] -= vector
    edits[layer] = Edit(replacement.writes[layer], lambda out, _: gone)
    post = replacement.measures[int(n.layer_N[target])]
    place = int(n.position_N[target]), int(n.index_N[target])
    now = replacement.model.run(read.clean.tokens_T[None], [post], edits).activations[post][0][place]
    (trial,) = try_move(replacement, read, graph, moved_nodes(read, graph, [source], "one"), [target])
    (check,) = check_edges(replacement, read, graph, [(target, source)])
    by_hand = float(read.clean.activations[post][0][place] - now)
    assert trial.low - 1e-4 <= by_hand <= trial.high + 1e-4, "ablating is one of the three sizes"
    assert trial.measured == pytest.approx(check.measured, rel=1e-3)
    assert trial.predicted == pytest.approx(check.edge, rel=1e-3)
    alone = run_moved(replacement, read, [[Step(layer, at, -vector)]], "direct", [int(n.layer_N[target])])
    assert float(alone.read[int(n.layer_N[target])][0][place]) == pytest.approx(float(now), rel=1e-4, abs=1e-5)


def test_groups_and_swaps_of_neurons_are_tried(made):
    replacement, read, graph = made
    n = graph.nodes
    inner = [[i for i in range(len(n)) if n.kind_N[i] == FEATURE and n.layer_N[i] == layer] for layer in (0, 1)]
    group = [inner[0][0], inner[1][0], graph.at(ERROR, 1, 3), graph.at(TOKEN, -1, 2)]
    direct_N, _ = predict_move(replacement, read, graph, moved_nodes(read, graph, group, "group"))
    ends = torch.from_numpy((n.kind_N == FEATURE) | (n.kind_N == LOGIT))
    torch.testing.assert_close(direct_N[ends], graph.edges_NN[:, group].sum(1)[ends], atol=2e-3, rtol=2e-3)
    node = inner[0][0]
    other = (int(n.index_N[node]) + 1) % len(read.layers[0].W_dec)
    move = swap(read, graph, node, other)
    own = read.layers[0]
    row_D = own.W_dec[other] * (float(n.value_N[node]) - float(own.dense_TF[int(n.position_N[node]), other]))
    torch.testing.assert_close(move.steps[1].vector_D, row_D)
    assert all(trial.low <= trial.measured <= trial.high for trial in try_move(replacement, read, graph, move))


def test_a_neuron_that_is_put_somewhere_stays_there_in_the_live_model(tmp_path):
    """Taking out a lower neuron moves the one above; both as a group: that one is gone, whatever it would have become."""
    replacement = replace_by_neurons(opened("llama", tmp_path), per_position=6)
    read = replacement.read(prompt(replacement))
    graph = attribute(replacement, prompt(replacement), read=read)
    n = graph.nodes
    high, low = next(
        (t, s) for t, s, _ in graph.strongest(400) if n.kind_N[t] == n.kind_N[s] == FEATURE and n.layer_N[t] == 1
    )
    move = moved_nodes(read, graph, [low, high], "both")
    gone = [each.times(-1.0) for each in move.steps]
    found = run_moved(replacement, read, [gone], "live", [2])
    first = run_moved(replacement, read, [gone[:1]], "live", [1])
    still = float(first.read[1][0, int(n.position_N[high]), int(n.index_N[high])])
    assert abs(still - float(n.value_N[high])) > 1e-3
    by_hand = [gone[0], Step(1, gone[1].at, -still * read.layers[1].W_dec[int(n.index_N[high])])]
    slow = run_moved(replacement, read, [by_hand], "live", [2])
    torch.testing.assert_close(found.read[2], slow.read[2], atol=1e-4, rtol=1e-3)


def test_heads_carry_edges_of_neurons_and_predictions_hold_one_layer_on(made):
    replacement, read, graph = made
    n = graph.nodes
    target, source = next(
        (t, s) for t, s, _ in graph.strongest(300) if n.kind_N[t] == FEATURE and n.position_N[t] != n.position_N[s]
    )
    found = carried(replacement, read, graph, target, source)
    assert found.straight + found.brought_LH.sum() == pytest.approx(found.edge, rel=2e-3, abs=1e-4)
    some = [int(i) for i in torch.from_numpy((n.kind_N == FEATURE) & (n.layer_N == 0)).nonzero()[:, 0][:6]]
    said, did, apart = correlate(replacement, read, graph, some, "direct")
    assert len(said) == len(did) > 20
    assert int(apart.min()) == 1


def test_what_has_no_neurons_and_what_cannot_be_asked_is_said(tmp_path):
    with pytest.raises(InterpError, match="neither a plain nor a gated one .*mixtures of experts"):
        replace_by_neurons(opened("mixtral", tmp_path))
    model = opened("llama", tmp_path)
    with pytest.raises(InterpError, match="no way to treat gates 'third'"):
        replace_by_neurons(model, gate="third")
    with pytest.raises(InterpError, match="at least one a position, not 0"):
        replace_by_neurons(model, per_position=0)
    with pytest.raises(InterpError, match="of transcoders' features"):
        choose_features(replace_by_neurons(model), [])
    read = replace_by_neurons(model, per_position=2).read(torch.tensor(model.prompt(TEXT)))
    quiet = next(f for f in range(64) if f not in read.layers[0].feature_E)
    with pytest.raises(InterpError, match=f"{quiet} of layer 0 is not active at position 3"):
        read.layers[0].find(torch.tensor([3]), torch.tensor([quiet]))


def test_a_graph_over_neurons_is_traced_checked_compared_and_shown(folder, tmp_path):
    file, other = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    made = circuit(
        TEXT, over="neurons", model=str(folder), per_position=6, gate="half", keep=0.95, edges=0.98, into=file
    )
    assert made.graph.unit == "neuron"
    assert made.graph.about["transcoders"] == []
    assert "--over neurons --per-position 6 --gate half" in made.command()
    inner = [i for i, kind in enumerate(made.graph.nodes.kind_N) if kind == FEATURE]
    n = made.graph.nodes
    names = [each["name"] for each in made.features(10_000)]
    assert any(name.startswith(f"L{n.layer_N[inner[0]]} n{n.index_N[inner[0]]} @") for name in names)
    assert not any("#" in name for name in names)
    node = next(each for each in json.loads((tmp_path / "a.json").read_text())["nodes"] if each["activation"])
    assert node["clerp"] == f"neuron L{node['layer']} n{node['feature']}"
    assert circuit(file).graph.names == {}
    for page in (graph_page(made.graph), graph_html(made.graph)):
        assert "Neurons and errors of most influence" in page
        assert "features" not in page
    ids = made.graph.ids
    logit = next(i for i, kind in enumerate(n.kind_N) if kind == LOGIT)
    swapped = f"{ids[inner[0]]}={(int(n.index_N[inner[0]]) + 1) % 64}"
    found = check_circuit(file, nodes=[ids[inner[0]]], swaps=[swapped], targets=[ids[logit]])
    assert [row["put_in"] for row in found.tried] == [-1, (int(n.index_N[inner[0]]) + 1) % 64]
    assert f"in its place n{(int(n.index_N[inner[0]]) + 1) % 64}" in graph_page(found.graph)
    assert len(check_circuit(file, count=3).rows) == 3
    t, s = next((t, s) for t, s in made.graph.edges_NN.nonzero().tolist() if n.position_N[t] != n.position_N[s])
    assert circuit_edge(file, f"{ids[s]}->{ids[t]}").edge == pytest.approx(float(made.graph.edges_NN[t, s]), rel=1e-3)
    shown = show_graph(file)
    assert shown.unit == "neuron"
    circuit(TEXT, over="neurons", model=str(folder), per_position=6, keep=0.95, edges=0.98, into=other)
    both = compare_circuits(file, other)
    assert 0 < both.overlap("features") < 1, "the same neurons, their gates by halves and held"
    assert both.to_dict()["features"][0][0].split()[1].startswith("n")
    assert set(both.to_dict()["ranks"]) == {"positions", "layers", "places"}
    assert compare_circuits(file, file).to_dict()["ranks"] == pytest.approx({"positions": 1, "layers": 1, "places": 1})


def test_a_prompt_two_ways_is_compared_by_where_its_influence_comes_from(folder, tmp_path):
    model = open_model(str(folder), dtype="float32")
    one = circuit(TEXT, transcoders=str(save_transcoders(model, tmp_path / "transcoders"))).graph
    other = circuit(TEXT, over="neurons", model=str(folder), per_position=6).graph
    found = compare_graphs(one, other)
    assert "features: one of the graphs is over neurons" in found.left_out
    assert 0 < found.overlap("places") <= min(found.overlap("layers"), found.overlap("positions")) <= 1
    assert -1 <= found.to_dict()["ranks"]["places"] <= 1
    assert set(found.scores) >= {"replacement", "completeness"}
    with pytest.raises(InterpError, match="leave --transcoders or --over out"):
        circuit(TEXT, over="neurons", transcoders=str(tmp_path / "transcoders"))
    with pytest.raises(InterpError, match="no thing that a graph can be over 'heads'"):
        circuit(TEXT, over="heads")
