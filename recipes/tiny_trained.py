"""A tiny T5 that reverses words and a tiny Mamba that goes on repeating: families whose trained weights come in no package.

    python recipes/tiny_trained.py          # both: some ten minutes on one core
    python recipes/tiny_trained.py t5       # or one

Each is trained by transformers' own class, until it does what it is to do on words that it has not seen; opened by `open_model`;
an edit that changes nothing changes no bit; an SAE of 128 features is trained by the library; and one finding is checked by an
edit. The finding, the same for both: for each letter the features are taken that fire on it in at least half of its places and of
whose firings at least half are on it, on some words; on others they are ablated while the model writes, and the letters that it
writes are compared with what they should be, those that are that letter and all others apart. Beside it the same with as many
features that belong to no or another letter, of the nearest densities.

Trained on random words, which are made here from a seed. docs/families.md has what came of it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import smollm2 as embedded
import torch
from torch import Tensor

from interp import places
from interp.progress import bar
from interp.render.terminal import say

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "tiny_trained"
RESULTS = ROOT / "benchmarks/results/tiny_trained.json"
LETTERS = "abcdefghijkl"
PAD, START, END = 0, 1, 2
SPECIAL = ["<pad>", "<start>", "<end>"]
LENGTHS = range(4, 9)
PERIODS, REPEATS = range(4, 8), 32
"""Letters until a text of the Mamba's repeats itself, and of the whole text."""


def tokenizer() -> Any:
    """A token for each letter."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE({word: i for i, word in enumerate([*SPECIAL, *LETTERS])}, []))
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<start>", eos_token="<end>")


def words(count: int, seed: int) -> list[str]:
    """Random words of LENGTHS letters."""
    draw = np.random.default_rng(seed)
    return ["".join(draw.choice(list(LETTERS), draw.choice(LENGTHS))) for _ in range(count)]


def repeating(count: int, seed: int) -> list[str]:
    """Random words of PERIODS letters, none twice in a word, over and over."""
    draw = np.random.default_rng(seed)
    once = ("".join(draw.choice(list(LETTERS), draw.choice(PERIODS), replace=False)) for _ in range(count))
    return [(word * REPEATS)[:REPEATS] for word in once]


def ids(word: str) -> list[int]:
    return [len(SPECIAL) + LETTERS.index(letter) for letter in word]


def t5() -> Any:
    """With random weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(SPECIAL) + len(LETTERS), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
            relative_attention_num_buckets=32, relative_attention_max_distance=16, dropout_rate=0.0,
            pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD,
        )
    )  # fmt: skip


def mamba() -> Any:
    """With random weights."""
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(
        MambaConfig(
            vocab_size=len(SPECIAL) + len(LETTERS), hidden_size=64, num_hidden_layers=2, state_size=16,
            pad_token_id=PAD, bos_token_id=START, eos_token_id=END,
        )
    )  # fmt: skip


def reversals(size: int, seed: int) -> dict[str, Tensor]:
    """A batch of words and what is to be written of each."""
    some = words(size, seed)
    rows = [torch.tensor([*ids(word), END]) for word in some]
    back = [torch.tensor([*ids(word[::-1]), END]) for word in some]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    labels = torch.nn.utils.rnn.pad_sequence(back, batch_first=True, padding_value=-100)
    return {"input_ids": tokens, "attention_mask": (tokens != PAD).long(), "labels": labels}


def repetitions(size: int, seed: int) -> dict[str, Tensor]:
    """A batch of texts that repeat themselves; what stands before the first repetition cannot be known, and is not asked."""
    rows = torch.tensor([[START, *ids(text)] for text in repeating(size, seed)])
    labels = rows.masked_fill(torch.arange(rows.shape[1]) <= max(PERIODS), -100)
    return {"input_ids": rows, "labels": labels}


def train(model: Any, batch: Callable[[int, int], dict[str, Tensor]], steps: int, size: int = 64, lr: float = 3e-3) -> list[float]:
    """Adam, whose rate falls in a line after a warm-up of a twentieth; gives the loss of each step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    warm, log = max(steps // 20, 1), []
    model.train()
    with bar("training", steps) as advance:
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = lr * min((step + 1) / warm, 1 - step / steps)
            loss = model(**batch(size, step)).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            log.append(float(loss.detach()))
            advance(1, f"loss {log[-1]:.3f}")
    model.eval()
    return log
