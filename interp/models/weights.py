"""A name for a model's weights: the SHA-256 of what they are, wherever they are stored."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

PREFIX = "2:"
"""Before a name of today's kind; one without it is of the first kind, which knew neither names nor types."""


def weights_sha256(tensors: Mapping[str, Tensor], types: Sequence[str] = ()) -> str:
    """`2:` and the SHA-256 over each tensor's name, shape and bytes, and the number types they are stored in.

    Bytes are those of the values rounded to bfloat16, so that a model has one name whether it was opened in float32 or
    bfloat16. Of several names of one storage (tied embeddings) the first counts.
    """
    seen, parts = set(), []
    for name in sorted(tensors):
        if (at := tensors[name].data_ptr()) not in seen:
            seen.add(at)
            parts.append(f"{name} {_content(tensors[name])}\n")
    digest = hashlib.sha256("".join(parts).encode())
    digest.update(" ".join(sorted(set(types))).encode())
    return PREFIX + digest.hexdigest()


def first_sha256(tensors: Mapping[str, Tensor]) -> str:
    """The first kind of name, which cards written before today's have: of shapes and bytes only."""
    seen, parts = set(), []
    for name in sorted(tensors):
        if (at := tensors[name].data_ptr()) not in seen:
            seen.add(at)
            parts.append(_content(tensors[name]))
    return hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()


def _content(tensor: Tensor) -> str:
    tensor = tensor.detach()
    raw = tensor.to(torch.bfloat16).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return f"{tuple(tensor.shape)}{hashlib.sha256(raw).hexdigest()}"


def stored_types(folder: Path) -> list[str]:
    """The number types of the weights in a model's folder, as safetensors spells them; none where none can be read."""
    types = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                types |= {str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return []
    return sorted(types)
