"""Sparse autoencoders: weights, encode, decode, selection rules, and their sparse mathematics."""

from interp.sae.batchtopk import BatchTopK
from interp.sae.sae import SAE
from interp.sae.topk import TopK

ARCHITECTURES = {"topk": TopK, "batchtopk": BatchTopK}

__all__ = ["ARCHITECTURES", "SAE", "BatchTopK", "TopK"]
