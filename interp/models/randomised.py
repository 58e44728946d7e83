"""A model's copy with random weights: what anything found in the model is to be held against.

The values of each weight tensor are shuffled within it, in an order that the seed and the tensor's name fix. So every tensor
keeps its own mean, variance and tails, and nothing else that training put there; and as rounding goes value by value, the
copy is the same model whether it was opened in float32 or bfloat16. Drawing normal numbers of the same mean and variance,
as the source does, loses the tails instead.

Kept as they are: token and position embeddings (and an unembedding that is tied to them), and the weights of norms. The copy
then knows which tokens are alike, and nothing of what the layers compute. Of the variants in the source that is the one
nearest to the model ("re-randomised excluding embeddings"): what a label must exceed is the most that comes from the text
and its tokens alone, and a copy with random embeddings too would be exceeded more easily.

Source  Heap et al. 2025, "Automated Interpretability Metrics Do Not Distinguish Trained and Random Transformers"
        (arXiv:2501.17727).
"""

import hashlib
import re
from typing import Any

import torch
from torch import nn

from interp.types import InterpError

SEEDS = 2**31
_SPELT = re.compile(r"random-(\d{1,10}):(.+)", re.DOTALL)


def spelt(name: str, seed: int) -> str:
    """What a copy is called, and what `open_model` takes to make it again: `random-1:smollm2`."""
    return f"random-{seed}:{name}"


def read_name(name: str) -> tuple[str, int | None]:
    """(the model's own name, the seed of its random copy; None where the name is the model's itself)."""
    found = _SPELT.fullmatch(name)
    return (found[2], int(found[1])) if found else (name, None)


def check_seed(seed: int) -> int:
    """The seed; InterpError when it is none."""
    if not 0 <= seed < SEEDS:
        raise InterpError(f"the seed of a random copy is {seed}; it must be at least 0 and below {SEEDS:,}.")
    return seed


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> Any:
    """The same module, its weights shuffled in place, each tensor within itself (see the head of the file).

    Tensors that several names share are shuffled once, and not at all where one of these is an embedding.
    """
    check_seed(seed)
    done = {
        parameter.data_ptr()
        for owner in module.modules()
        if isinstance(owner, nn.Embedding) or _is_norm(owner)
        for parameter in owner.parameters(recurse=False)
    }
    for name, parameter in module.named_parameters():
        if parameter.data_ptr() in done:
            continue
        done.add(parameter.data_ptr())
        values = parameter.data.flatten()
        parameter.data.copy_(values[_order(values.numel(), seed, name)].view_as(parameter))
    return module


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _order(count: int, seed: int, name: str) -> torch.Tensor:
    """A random order of so many values, which no other tensor shares."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(count, generator=draw)
