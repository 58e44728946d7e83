"""Seconds that SAEDashboard takes for a batch of features, on a model and SAE given as folders. Imports nothing of `interp`.

    .peers-dashboard/bin/python benchmarks/dashboard_peer.py SAE_FOLDER MODEL_FOLDER STORE_FOLDER SHARDS

Its own runner with 128 features a batch, as its Neuronpedia runner has them, on activations that are cached on disk already
in its own way (those of a harvest, so that its rate is not that of its forward passes). The model, whose unembedding it
reads, is TransformerLens' own Llama, which this version of it does not know by name, so its configuration is written out.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
BATCH, BATCHES = 128, 2
MINIBATCH = 64
"""Sequences a forward pass, its default."""


def hooked(folder: str) -> Any:
    """The Llama in a folder as a HookedSAETransformer."""
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    c = AutoConfig.from_pretrained(folder)
    c.rope_theta = rope_theta(folder)  # where this version looks for it
    hf = AutoModelForCausalLM.from_pretrained(folder, config=c, dtype=torch.float32)
    cfg = HookedTransformerConfig(
        n_layers=c.num_hidden_layers,
        d_model=c.hidden_size,
        n_ctx=1024,
        d_head=c.hidden_size // c.num_attention_heads,
        n_heads=c.num_attention_heads,
        n_key_value_heads=c.num_key_value_heads,
        d_mlp=c.intermediate_size,
        d_vocab=c.vocab_size,
        act_fn="silu",
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=c.hidden_size // c.num_attention_heads,
        rotary_base=int(c.rope_theta),
        rotary_adjacent_pairs=False,
        eps=c.rms_norm_eps,
        final_rms=True,
        gated_mlp=True,
        dtype=torch.float32,
        original_architecture="LlamaForCausalLM",
        model_name="smollm2",
        device="cpu",
    )
    file = str(Path(folder) / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    model = HookedSAETransformer(cfg)
    model.tokenizer = tokenizer
    model.load_state_dict(convert_llama_weights(hf, model.cfg), strict=False)
    ids = torch.tensor([[0, 504, 1330, 282, 260]])
    with torch.inference_mode():
        assert torch.allclose(model(ids)[0, -1].softmax(-1), hf(ids).logits[0, -1].softmax(-1), atol=1e-3)
    return model


def rope_theta(folder: str) -> float:
    """Newer configurations keep it one level down."""
    config = json.loads((Path(folder) / "config.json").read_text())
    return float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])


def cached(store: str, shards: int | None, hook: str, cache: Path) -> torch.Tensor:
    """Write a harvest's first shards (None: all) as SAEDashboard caches them; the tokens come back, shape (sequences, 256)."""
    import pyarrow.parquet as pq
    from sae_dashboard.feature_data_generator import save_tensor_dict_torch

    manifest = json.loads((Path(store) / "manifest.json").read_text())
    block, files, number = manifest["recipe"]["block"], manifest["shards"][:shards], 0
    for entry in files:
        with safe_open(Path(store) / entry["file"], framework="pt") as file:
            x = file.get_tensor(hook).float().view(-1, block, file.get_slice(hook).get_shape()[1])
        for part in x.split(MINIBATCH):
            save_tensor_dict_torch({hook: part.clone()}, cache / f"model_activations_{number}.pt")
            number += 1
    tokens = pq.read_table(Path(store) / "tokens.parquet", columns=["token"])["token"].to_numpy()
    return torch.from_numpy(tokens[: sum(e["positions"] for e in files)].astype("int64")).view(-1, block)


def main(sae_folder: str, model_folder: str, store: str, shards: str) -> None:
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import SAE

    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        model = hooked(model_folder)
        sae = SAE.load_from_disk(sae_folder, device="cpu")
        hook = sae.cfg.metadata.hook_name
        sae.cfg.hook_name = hook  # where this version looks for it
        tokens = cached(store, int(shards), hook, Path(folder))
        seconds = []
        for batch in range(BATCHES):
            cfg = SaeVisConfig(
                hook_point=hook,
                features=list(range(batch * BATCH, (batch + 1) * BATCH)),
                minibatch_size_features=BATCH,
                minibatch_size_tokens=MINIBATCH,
                device="cpu",
                cache_dir=Path(folder),
            )
            began = time.perf_counter()
            data = SaeVisRunner(cfg).run(encoder=sae, model=model, tokens=tokens)
            seconds.append(round(time.perf_counter() - began, 1))
            assert len(data.feature_data_dict) == BATCH
    print(json.dumps({"features/s": round(BATCH * BATCHES / sum(seconds), 2), "batches of 128, s": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
