"""A name for a set of weights: the SHA-256 of what they are, wherever they are stored."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the distinct tensors' shape and bytes, rounded to bfloat16.

    Rounded, so that a model has one name whether it was opened in float32 or bfloat16. The same storage under two names (tied embeddings) counts once, so that it does not matter which
    of the names a file or a wrapper happens to keep.
    """
    digest, seen = hashlib.sha256(), set()
    parts = []
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        raw = tensor.to(torch.bfloat16).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        inner = hashlib.sha256(raw).hexdigest()
        parts.append(f"{tuple(tensor.shape)}{inner}")
    # Sorted by content: a wrapper that renames its submodules must not change the name of the weights.
    for part in sorted(parts):
        digest.update(part.encode())
    return digest.hexdigest()
