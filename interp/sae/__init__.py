"""Sparse autoencoders: weights, encode, decode, selection rules, and their sparse mathematics."""

from typing import Any

from interp.sae.batchtopk import BatchTopK
from interp.sae.sae import SAE
from interp.sae.topk import TopK

ARCHITECTURES: dict[str, Any] = {"topk": TopK, "batchtopk": BatchTopK}

__all__ = ["ARCHITECTURES", "SAE", "BatchTopK", "TopK"]
