"""Attribution graphs: every edge is what a change of its source does while patterns and norms are held, and nothing is left over."""

import pytest
import torch

from interp.circuits.attribute import attribute, difference
from interp.circuits.frozen import EMBEDDING, holding
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN
from interp.circuits.prune import influence, prune, scaled, score
from interp.circuits.replacement import Replacement, make_replacement
from interp.models import Edit, open_model
from interp.types import InterpError
from tests.families import save
from tests.transcoders import random_transcoders

KINDS = ("llama", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "mistral")
TEXT = "the blue city near the river reads music"


@pytest.fixture(scope="module", params=KINDS)
def replacement(request, tmp_path_factory) -> Replacement:
    folder = save(request.param, tmp_path_factory.mktemp("circuits") / request.param)
    model = open_model(str(folder), dtype="float32")
    return make_replacement(model, random_transcoders(model, skip=request.param in ("llama", "gpt2")))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Replacement:
    model = open_model(str(save("llama", tmp_path_factory.mktemp("circuits") / "one")), dtype="float32")
    return make_replacement(model, random_transcoders(model))


def prompt(replacement: Replacement) -> torch.Tensor:
    return torch.tensor(replacement.model.prompt(TEXT))


def test_an_edge_is_what_a_change_of_its_source_does_while_patterns_and_norms_are_held(replacement):
    model, tokens = replacement.model, prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    nodes, clean = graph.nodes, read.clean
    for source in torch.randperm(len(nodes), generator=torch.Generator().manual_seed(0))[:12].tolist():
        kind, layer, at = nodes.kind_N[source], nodes.layer_N[source], nodes.position_N[source]
        if kind == LOGIT:
            continue
        if kind == TOKEN:
            hook, added = EMBEDDING, clean.activations[EMBEDDING][0, at]
        else:
            own = read.layers[layer]
            hook = replacement.writes[layer]
            row = nodes.value_N[source] * own.W_dec[nodes.index_N[source]]
            added = own.error_TD[at] if kind == ERROR else row
        moved = {hook: torch.zeros_like(clean.activations[hook])}
        moved[hook][0, at] = 0.1 * added  # the held pass is linear, so any share will do
        edits = list(holding(replacement.norms, clean))
        for cut in replacement.cuts(read):
            edits += _held(cut, clean, moved)
        if hook == EMBEDDING:
            edits.append(Edit(EMBEDDING, lambda out, _, moved=moved: out + moved[EMBEDDING]))
        run = model.run(tokens[None], replacement.reads, edits, logits=True, last=1)
        for target in graph.edges_NN[:, source].abs().topk(8).indices.tolist():
            kind_t, layer_t, at_t = nodes.kind_N[target], nodes.layer_N[target], nodes.position_N[target]
            if kind_t == FEATURE:
                change = (run.activations[replacement.reads[layer_t]] - clean.activations[replacement.reads[layer_t]])[
                    0, at_t
                ]
                did = float(change @ replacement.transcoders[layer_t].W_enc[:, nodes.index_N[target]])
            else:
                change_V = run.logits[0, -1] - clean.logits_V
                did = float(change_V[nodes.index_N[target]] - change_V.mean())
            said = 0.1 * float(graph.edges_NN[target, source])
            assert did == pytest.approx(said, rel=2e-3, abs=2e-5)


def _held(cut, clean, moved):
    now = {}

    def note(out, _):
        now["x"] = out
        return out

    def hold(out, _):
        held = clean.activations[cut.writes] + moved.get(cut.writes, 0)
        if cut.skip_TDD is not None:
            held = held + torch.einsum("btd,tod->bto", now["x"] - clean.activations[cut.reads], cut.skip_TDD)
        return held

    return [Edit(cut.reads, note), Edit(cut.writes, hold)]


def test_a_features_edges_and_biases_add_up_to_its_preactivation(llama):
    """Llama has no biases of its own, so what is left is b_dec's, and what the token says that opens every text."""
    tokens = prompt(llama)
    read = llama.read(tokens)
    graph = attribute(llama, tokens, read=read)
    assert float(graph.bias_S.abs().max()) > 1e-3
    for layer in read.layers:  # all that is constant made an error, so that every part has its node
        said = torch.zeros_like(layer.out_TD).index_add_(0, layer.position_E, layer.written_ED)
        layer.error_TD.copy_(layer.out_TD - said)
    assert float(attribute(llama, tokens, read=read).bias_S.abs().max()) < 1e-4


def test_the_graph_has_every_feature_error_token_and_logit(replacement):
    tokens = prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    counts = [int((graph.nodes.kind_N == kind).sum()) for kind in (FEATURE, ERROR, TOKEN)]
    assert counts == [read.entries, len(read.layers) * len(tokens), len(tokens)]
    assert graph.left_out == pytest.approx(0, abs=1e-6)
    assert not graph.edges_NN.triu(1)[: counts[0], : counts[0]].any(), "an edge never goes to an earlier layer"


def test_fewer_nodes_are_those_of_most_influence_and_what_is_left_out_is_told(llama):
    tokens = prompt(llama)
    whole = attribute(llama, tokens)
    total = influence(whole.edges_NN, whole.weights())
    some = attribute(llama, tokens, max_nodes=20, batch=5)
    assert (some.nodes.kind_N == FEATURE).sum() == 20
    assert 0 < some.left_out < 1
    known = {
        (layer, at, index): float(value)
        for kind, layer, at, index, value in zip(
            whole.nodes.kind_N, whole.nodes.layer_N, whole.nodes.position_N, whole.nodes.index_N, total, strict=True
        )
        if kind == FEATURE
    }
    chosen = [
        known[key]
        for key in zip(some.nodes.layer_N[:20], some.nodes.position_N[:20], some.nodes.index_N[:20], strict=True)
    ]
    assert sum(chosen) > 0.6 * sum(sorted(known.values())[-20:])
    row = whole.at(FEATURE, int(some.nodes.layer_N[3]), int(some.nodes.position_N[3]), int(some.nodes.index_N[3]))
    column = whole.at(TOKEN, -1, 2)
    assert float(some.edges_NN[3, some.at(TOKEN, -1, 2)]) == pytest.approx(float(whole.edges_NN[row, column]), abs=1e-5)


def test_influence_is_the_sum_of_all_paths_to_the_logits(llama):
    graph = attribute(llama, prompt(llama))
    over, weight = scaled(graph.edges_NN).double(), graph.weights().double()
    inverse = torch.linalg.inv(torch.eye(len(over), dtype=torch.float64) - over) - torch.eye(len(over))
    torch.testing.assert_close(
        influence(graph.edges_NN, graph.weights()).double(), weight @ inverse, atol=1e-5, rtol=1e-4
    )


def test_pruning_keeps_what_holds_the_influence(llama):
    graph = attribute(llama, prompt(llama))
    kept = prune(graph, 0.6, 0.9)
    assert 0 < len(kept.nodes) < len(graph.nodes)
    assert (kept.nodes.kind_N == TOKEN).sum() == len(graph.tokens)
    middle = kept.nodes.kind_N == FEATURE
    assert (kept.edges_NN != 0).any(0)[torch.from_numpy(middle)].all()
    assert (kept.edges_NN != 0).any(1)[torch.from_numpy(middle)].all()
    assert len(prune(graph, 1.0, 1.0).nodes) <= len(graph.nodes)
    scores = score(graph)
    assert 0 < scores.replacement < 1
    assert 0 < scores.completeness < 1


def test_a_question_of_two_tokens_is_the_difference_of_their_edges(llama):
    tokens = prompt(llama)
    read = llama.read(tokens)
    graphs = [attribute(llama, tokens, difference(read.clean.logits_V, a, b)) for a, b in ((7, 9), (9, 7))]
    torch.testing.assert_close(graphs[0].edges_NN[-1], -graphs[1].edges_NN[-1], atol=1e-5, rtol=1e-4)


def test_a_missing_layer_and_another_number_type_are_refused(llama, tmp_path):
    with pytest.raises(InterpError, match="no transcoder for layer 1 "):
        make_replacement(llama.model, [llama.transcoders[0], llama.transcoders[2]])
    model = open_model(llama.model.source, dtype="bfloat16")
    with pytest.raises(InterpError, match="float32"):
        make_replacement(model, llama.transcoders)
    with pytest.raises(InterpError, match="a token beside"):
        llama.read(torch.tensor([1]))


def test_sinks_have_no_features(llama):
    tokens = prompt(llama)
    cut = make_replacement(llama.model, llama.transcoders, {llama.reads[1]: 0.0})
    read = cut.read(tokens)
    assert len(read.layers[1].feature_E) == 0
    assert len(read.layers[0].feature_E) > 0
    torch.testing.assert_close(read.layers[1].error_TD[1:], read.layers[1].out_TD[1:])
    assert not read.layers[1].error_TD[0].any(), "what opens every text is no error"
    assert not read.counted_LT[:, 0].any()
