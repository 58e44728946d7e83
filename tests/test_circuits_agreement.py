"""Edges, scores and prunings agree with circuit-tracer's own code, whose output is a fixture; where they do not, why is asserted.

benchmarks/circuits_peer.py made tests/fixtures/peers/circuit_tracer. docs/circuits_agreement.md has the differences in a table.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits.attribute import attribute
from interp.circuits.frozen import EMBEDDING
from interp.circuits.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph, Nodes
from interp.circuits.prune import influence, prune, score
from interp.circuits.replacement import Read, Replacement, make_replacement
from interp.models import open_model
from interp.sae import SAE

FIXTURES = Path(__file__).parent / "fixtures" / "peers" / "circuit_tracer"
CASES = ("llama", "llama-skip", "gpt2")


@dataclass(frozen=True, eq=False)
class Case:
    """What circuit-tracer said, and our graph of the same prompt."""

    about: dict[str, Any]
    theirs: dict[str, torch.Tensor]
    replacement: Replacement
    read: Read
    ours: Graph


def _words(count: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(count)}, unk_token="<0>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<0>", bos_token="<1>", eos_token="<2>")


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> Case:
    import transformers

    with np.load(FIXTURES / f"{request.param}.npz") as file:
        held = {name: file[name] for name in file.files}
    about = json.loads(str(held.pop("about")))
    theirs = {name: torch.from_numpy(array) for name, array in held.items()}
    kind = {"llama": "Llama", "gpt2": "GPT2"}[about["family"]]
    config = getattr(transformers, f"{kind}Config")(**about["config"])
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    weights = {name.removeprefix("model."): t for name, t in theirs.items() if name.startswith("model.")}
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"lm_head.weight"}  # GPT-2's is its embedding
    folder = tmp_path_factory.mktemp("agreement") / request.param
    model.save_pretrained(folder)
    _words(config.vocab_size).save_pretrained(folder)
    opened = open_model(str(folder), dtype="float32")
    replacement = make_replacement(opened, [_transcoder(theirs, layer) for layer in range(_layers(theirs))])
    read = replacement.read(theirs["tokens"].long())
    return Case(about, theirs, replacement, read, attribute(replacement, theirs["tokens"].long(), read=read))


def _layers(theirs: dict[str, torch.Tensor]) -> int:
    return len({name.split(".")[1] for name in theirs if name.startswith("transcoder.")})


def _transcoder(theirs: dict[str, torch.Tensor], layer: int) -> SAE:
    of = {name.split(".", 2)[2]: t.clone() for name, t in theirs.items() if name.startswith(f"transcoder.{layer}.")}
    return SAE(
        W_enc=of["W_enc"].T.contiguous(),
        b_enc=of["b_enc"],
        W_dec=of["W_dec"],
        b_dec=of["b_dec"],
        threshold=of["activation_function.threshold"],
        W_skip=of.get("W_skip"),
        centred=False,
        name=f"layer-{layer}",
        reads=f"blocks.{layer}.mlp.hook_in",
        writes=f"blocks.{layer}.hook_mlp_out",
    )


def masks(graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """(errors at the first position, tokens), as columns."""
    nodes = graph.nodes
    first = (nodes.kind_N == ERROR) & (nodes.position_N == 0)
    return torch.from_numpy(first), torch.from_numpy(nodes.kind_N == TOKEN)


def test_the_same_features_fire_as_strongly_and_the_same_logits_are_asked(case):
    nodes, theirs = case.ours.nodes, case.theirs
    features = nodes.kind_N == FEATURE
    active = np.stack([nodes.layer_N, nodes.position_N, nodes.index_N], axis=1)[features]
    np.testing.assert_array_equal(active, theirs["active"].numpy())
    np.testing.assert_allclose(nodes.value_N[features], theirs["values"].numpy(), rtol=1e-4, atol=1e-5)
    logits = nodes.kind_N == LOGIT
    np.testing.assert_array_equal(nodes.index_N[logits], theirs["logits"].numpy())
    np.testing.assert_allclose(nodes.value_N[logits], theirs["probabilities"].numpy(), rtol=1e-4, atol=1e-6)


def test_the_edges_are_the_same(case):
    """But for errors at the first position, which it leaves out, and GPT-2's tokens, which it counts without their positions."""
    first, tokens = masks(case.ours)
    same = ~first & ~tokens if case.about["family"] == "gpt2" else ~first
    ours, theirs = case.ours.edges_NN, case.theirs["adjacency"]
    if case.replacement.transcoders[0].W_skip is not None:
        # What is read goes on through its skip connection at the first position, too; here all that is written there is error.
        assert not torch.allclose(ours[:, same], theirs[:, same], rtol=1e-4, atol=1e-4)
        read = replace(case.read, counted_LT=torch.ones_like(case.read.counted_LT))
        ours = attribute(case.replacement, case.read.clean.tokens_T, read=read).edges_NN
    assert int((theirs[:, same].abs() > 1e-3).sum()) > 200
    torch.testing.assert_close(ours[:, same], theirs[:, same], rtol=1e-4, atol=1e-5)


def test_what_mlps_write_at_the_first_position_has_no_node_there_and_is_here_an_error_only_of_a_text_that_nothing_opens(
    case,
):
    first, _ = masks(case.ours)
    assert not case.theirs["adjacency"][:, first].any()
    opened = int(case.read.clean.tokens_T[0]) == case.replacement.model.separator
    assert bool(case.ours.edges_NN[:, first].any()) != opened


@pytest.mark.parametrize("case", ["gpt2"], indirect=True)
def test_a_token_of_gpt2_is_its_embedding_there_and_its_embedding_at_its_position_here(case):
    _, tokens = masks(case.ours)
    assert not torch.allclose(case.ours.edges_NN[:, tokens], case.theirs["adjacency"][:, tokens], atol=1e-2)
    clean = case.read.clean
    bare = case.theirs["model.transformer.wte.weight"][clean.tokens_T][None]
    read = replace(case.read, clean=replace(clean, activations={**clean.activations, EMBEDDING: bare}))
    # The held pass is linear, so edges do not depend on what the embedding is there, but for the tokens' own vectors.
    graph = attribute(case.replacement, clean.tokens_T, read=read)
    torch.testing.assert_close(graph.edges_NN[:, tokens], case.theirs["adjacency"][:, tokens], rtol=1e-4, atol=1e-5)


def _of_theirs(case: Case) -> Graph:
    """A graph of their edges, with our nodes."""
    return replace(case.ours, edges_NN=case.theirs["adjacency"], bias_S=None)


def test_scores_of_the_same_edges_are_the_same(case):
    said = score(_of_theirs(case))
    assert [said.replacement, said.completeness] == pytest.approx(case.theirs["scores"].tolist(), abs=1e-5)


def test_the_same_nodes_and_edges_are_kept(case):
    graph = _of_theirs(case)
    for number, shares in enumerate(case.about["pruned"]):
        kept = prune(graph, *shares)
        rows = _keys(graph.nodes)
        mask = np.isin(rows, _keys(kept.nodes))
        np.testing.assert_array_equal(mask, case.theirs[f"nodes{number}"].numpy())
        count = len(rows)
        packed = case.theirs[f"edges{number}"].numpy()
        edges = np.unpackbits(packed, count=count * count).reshape(count, count).astype(bool)
        np.testing.assert_array_equal(kept.edges_NN.numpy() != 0, edges[mask][:, mask])
        assert 0 < mask.sum() < count


def _keys(nodes: Nodes) -> np.ndarray:
    columns = (nodes.kind_N, nodes.layer_N, nodes.position_N, nodes.index_N)
    return np.array([f"{a} {b} {c} {d}" for a, b, c, d in zip(*columns, strict=True)])


def test_influence_is_the_one_that_their_cumulative_scores_come_from(case):
    graph = _of_theirs(case)
    total = influence(graph.edges_NN, graph.weights())
    order = total.argsort(descending=True)
    said = torch.zeros_like(total)
    said[order] = total[order].cumsum(0) / total.sum()
    # Nodes of equal influence (those of none) stand in an order of their own.
    some = total > 1e-6
    torch.testing.assert_close(said[some], case.theirs["cumulative"][some], rtol=1e-4, atol=1e-5)
