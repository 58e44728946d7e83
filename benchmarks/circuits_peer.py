"""Makes tests/fixtures/peers/circuit_tracer: graphs, scores and prunings by circuit-tracer's own code, on tiny models.

    python benchmarks/circuits_peer.py tests/fixtures/peers/circuit_tracer      # in an environment with circuit-tracer 0.5.0

Imports nothing of `interp`. Each file has the model's weights by Hugging Face's names, its transcoders, the tokens, and what
circuit-tracer said: active features, adjacency matrix, logits, scores, and the masks of three prunings. tests/test_circuits_agreement.py
reads them.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from circuit_tracer.attribution.attribute import attribute
from circuit_tracer.graph import compute_graph_scores, prune_graph
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights, convert_llama_weights

WIDTH, HEADS, LAYERS, INNER, WORDS, PLACES, FEATURES = 16, 2, 3, 24, 40, 16, 12
TOKENS = (1, 7, 19, 30, 7, 12, 25)
"""The first is the one that opens a text."""
THRESHOLD = 0.4
PRUNED = ((0.8, 0.98), (0.6, 0.9), (0.95, 0.999))
"""Shares of the influence that nodes and edges are to hold."""
SHARED: dict[str, Any] = {
    "d_model": WIDTH, "n_heads": HEADS, "d_head": WIDTH // HEADS, "d_mlp": INNER, "n_layers": LAYERS, "n_ctx": PLACES,
    "d_vocab": WORDS, "eps": 1e-5, "device": "cpu", "seed": 0,
}  # fmt: skip
CASES: dict[str, tuple[str, bool]] = {"llama": ("llama", False), "llama-skip": ("llama", True), "gpt2": ("gpt2", False)}
"""Family, and whether the transcoders have a skip connection."""


class Words:
    """What circuit-tracer asks of a tokenizer where it is given ids."""

    all_special_ids = (0, 1, 2)
    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0
    vocab_size = WORDS
    padding_side = "right"

    def decode(self, ids: object, **_: object) -> str:
        """Numbers are the words."""
        return str(ids)


def make_model(family: str) -> tuple[Any, HookedTransformerConfig, dict[str, torch.Tensor]]:
    """(the model in transformers, its configuration in TransformerLens, its weights there); large random weights."""
    torch.manual_seed(5)
    base = {"vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "llama":
        config = transformers.LlamaConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
            intermediate_size=INNER, max_position_embeddings=PLACES, rms_norm_eps=1e-5, **base,
        )  # fmt: skip
        model: Any = transformers.LlamaForCausalLM(config)
        theirs = HookedTransformerConfig(
            **SHARED, act_fn="silu", normalization_type="RMS", positional_embedding_type="rotary", gated_mlp=True,
            rotary_dim=WIDTH // HEADS, rotary_adjacent_pairs=False, final_rms=True, model_name="tiny-llama",
            original_architecture="LlamaForCausalLM",
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(
            n_embd=WIDTH, n_head=HEADS, n_layer=LAYERS, n_inner=INNER, n_positions=PLACES, **base
        )
        model = transformers.GPT2LMHeadModel(config)
        theirs = HookedTransformerConfig(
            **SHARED, act_fn="gelu_new", normalization_type="LN", model_name="tiny-gpt2",
            original_architecture="GPT2LMHeadModel",
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * (0.3 if "weight" in name else 0.1))
    convert = convert_llama_weights if family == "llama" else convert_gpt2_weights
    return model, theirs, convert(model, theirs)


def make_transcoders(skip: bool) -> TranscoderSet:
    """A random transcoder for every layer, whose features fire at about a third of the positions."""
    draw = torch.Generator().manual_seed(11)
    made = {}
    for layer in range(LAYERS):
        one = SingleLayerTranscoder(
            WIDTH, FEATURES, JumpReLU(torch.full((FEATURES,), THRESHOLD)), layer, skip_connection=skip,
            device=torch.device("cpu"), dtype=torch.float32,
        )  # fmt: skip
        with torch.no_grad():
            for name, scale in (("W_enc", WIDTH**-0.5), ("W_dec", WIDTH**-0.5), ("b_enc", 0.1), ("b_dec", 0.1)):
                tensor = getattr(one, name)
                tensor.copy_(torch.randn(tensor.shape, generator=draw) * scale)
            if skip:
                one.W_skip.copy_(torch.randn(one.W_skip.shape, generator=draw) / WIDTH)
        made[layer] = one
    return TranscoderSet(made, "mlp.hook_in", "hook_mlp_out", scan="tiny")


def run(family: str, skip: bool) -> dict[str, np.ndarray]:
    """Everything of one case."""
    theirs, config, weights = make_model(family)
    transcoders = make_transcoders(skip)
    model = TransformerLensReplacementModel(config)
    config.tokenizer_name = "tiny"  # before, it would be looked for on the hub
    model.load_and_process_state_dict(
        {name: tensor.detach().clone() for name, tensor in weights.items()},
        fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False,
    )  # fmt: skip
    model.tokenizer = Words()
    model._configure_replacement_model(transcoders)
    graph = attribute(torch.tensor(TOKENS), model, batch_size=64)
    kept = {}
    for number, shares in enumerate(PRUNED):
        pruned = prune_graph(graph, *shares)
        kept[f"nodes{number}"], kept[f"edges{number}"] = pruned.node_mask.numpy(), np.packbits(pruned.edge_mask.numpy())
    about = {
        "family": family, "config": theirs.config.to_diff_dict(), "pruned": PRUNED,
        "versions": {name: version(name) for name in ("circuit-tracer", "transformer-lens", "transformers", "torch")},
    }  # fmt: skip
    # lm_head shares GPT-2's embedding, and is written for Llama only.
    named = {f"model.{name}": tensor.numpy() for name, tensor in theirs.state_dict().items()}
    if family == "gpt2":
        named.pop("model.lm_head.weight")
    for layer, one in enumerate(transcoders):
        named |= {f"transcoder.{layer}.{name}": tensor.numpy() for name, tensor in one.state_dict().items()}
    return {
        **named,
        **kept,
        "about": np.array(json.dumps(about, default=str)),
        "tokens": np.array(TOKENS),
        "adjacency": graph.adjacency_matrix.numpy(),
        "active": graph.active_features.numpy().astype(np.int32),
        "values": graph.activation_values.detach().numpy(),
        "logits": graph.logit_token_ids.numpy(),
        "probabilities": graph.logit_probabilities.detach().numpy(),
        "scores": np.array(compute_graph_scores(graph)),
        "cumulative": prune_graph(graph).cumulative_scores.numpy(),
    }


def main(into: Path) -> None:
    """All cases, a file each."""
    into.mkdir(parents=True, exist_ok=True)
    for name, (family, skip) in CASES.items():
        made = run(family, skip)
        np.savez_compressed(into / f"{name}.npz", **made)
        print(f"{name}: {len(made['adjacency'])} nodes, scores {made['scores']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("into", type=Path)
    main(parser.parse_args().into)
