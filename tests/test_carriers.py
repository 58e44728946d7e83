"""Which heads carried an edge, and why they looked there: parts add up, and are what a change does."""

import numpy as np
import pytest
import torch

from interp.circuits.attribute import attribute
from interp.circuits.carriers import carried, looked
from interp.circuits.graph import FEATURE, LOGIT, TOKEN
from interp.circuits.replacement import Replacement, make_replacement
from interp.models import open_model
from interp.types import InterpError
from tests.families import save
from tests.test_circuits import KINDS, prompt
from tests.transcoders import random_transcoders


@pytest.fixture(scope="module", params=KINDS)
def replacement(request, tmp_path_factory) -> Replacement:
    folder = save(request.param, tmp_path_factory.mktemp("carriers") / request.param)
    model = open_model(str(folder), dtype="float32")
    return make_replacement(model, random_transcoders(model, skip=request.param in ("llama", "gpt2")))


def test_heads_and_the_straight_way_add_up_to_the_edge(replacement):
    tokens = prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    n = graph.nodes
    edges = (graph.edges_NN.abs() > 1e-6).nonzero()
    edges = edges[torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))[:12]].tolist()
    assert {int(n.kind_N[target]) for target, _ in edges} <= {FEATURE, LOGIT}
    across = 0
    for target, source in edges:
        found = carried(replacement, read, graph, target, source)
        assert found.straight + found.brought_LH.sum() == pytest.approx(found.edge, rel=1e-3, abs=1e-5)
        apart = n.position_N[target] != n.position_N[source]
        assert not apart or found.straight == pytest.approx(0, abs=1e-6)
        across += bool(apart)
        top = [abs(found.brought_LH[head]) for head in found.heads(3)]
        assert top == sorted(top, reverse=True)
        assert top[:1] == [abs(found.brought_LH).max()] or not found.brought_LH.any()
    assert across  # some edges go from one position to another


def test_a_head_whose_pattern_is_not_there_carries_nothing(replacement):
    """Of all ways through a head: the edge less what is left of it when that head's outputs stay as they were."""
    from interp.circuits.frozen import EMBEDDING, Clean, Cut, clean_pass, held_pass
    from interp.circuits.points import Z

    tokens = prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    n, clean = graph.nodes, read.clean
    tokens_of = np.flatnonzero(n.kind_N == TOKEN)
    target = int(np.flatnonzero(n.kind_N == LOGIT)[0])
    source = int(tokens_of[2])
    found = carried(replacement, read, graph, target, source)
    name = f"blocks.1.{Z}"
    z = clean_pass(replacement.model, replacement.norms, tokens, [name]).activations[name]
    kept = Clean(clean.tokens_T, {**clean.activations, name: z}, clean.logits_V)
    cuts = [*replacement.cuts(read), Cut(name)]
    towards = graph.directions_KV[:1][:, None]
    left = held_pass(replacement.model, replacement.norms, kept, cuts, []).pull("logits", towards, [EMBEDDING])
    without = float(left[EMBEDDING][0, n.position_N[source]] @ clean.activations[EMBEDDING][0, n.position_N[source]])
    assert found.through_LH[1].sum() == pytest.approx(found.edge - without, rel=1e-3, abs=1e-5)


def test_either_side_of_a_score_adds_up_and_falls_by_what_is_taken_out(replacement):
    tokens = prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    layer, query, key = 1, len(tokens) - 1, 3
    found = looked(replacement, read, graph, (layer, 0), query, key)
    n = graph.nodes
    assert found.query_rest + sum(value for _, value in found.query) == pytest.approx(found.score, rel=1e-4, abs=1e-5)
    assert found.key_rest + sum(value for _, value in found.key) == pytest.approx(found.score, rel=1e-4, abs=1e-5)
    assert all(n.layer_N[node] < layer for node, _ in (*found.query, *found.key))
    assert all(n.position_N[node] <= key for node, _ in found.key)
    # A first layer reads embeddings alone: there the parts are what the score loses without them, norms held.
    first = looked(replacement, read, graph, (0, 1), query, key)
    assert {int(n.position_N[node]) for node, _ in first.key} == {key}
    assert {int(n.position_N[node]) for node, _ in first.query} == {query}


def test_what_is_no_head_and_no_position_is_refused(replacement):
    tokens = prompt(replacement)
    read = replacement.read(tokens)
    graph = attribute(replacement, tokens, read=read)
    with pytest.raises(InterpError, match="no head 9.0"):
        looked(replacement, read, graph, (9, 0), 1, 0)
    with pytest.raises(InterpError, match="does not look at"):
        looked(replacement, read, graph, (0, 0), 1, 2)
    token = int(np.flatnonzero(graph.nodes.kind_N == TOKEN)[0])
    with pytest.raises(InterpError, match="only features and logits"):
        carried(replacement, read, graph, token, token)
