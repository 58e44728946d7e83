"""Sparse autoencoders: weights, encode, decode, one file an architecture, and their sparse mathematics."""

from interp.sae.architecture import Architecture
from interp.sae.batchtopk import BatchTopK
from interp.sae.bundle import Bundle
from interp.sae.crosscoder import Crosscoder
from interp.sae.dictionary import Dictionary, join, split
from interp.sae.gated import Gated
from interp.sae.jumprelu import JumpReLU
from interp.sae.matryoshka import Matryoshka
from interp.sae.options import ARCHITECTURES, Options, make_architecture
from interp.sae.sae import SAE
from interp.sae.standard import Standard
from interp.sae.topk import TopK
from interp.sae.transcoder import Transcoder

__all__ = [
    "ARCHITECTURES",
    "SAE",
    "Architecture",
    "BatchTopK",
    "Bundle",
    "Crosscoder",
    "Dictionary",
    "Gated",
    "JumpReLU",
    "Matryoshka",
    "Options",
    "Standard",
    "TopK",
    "Transcoder",
    "join",
    "make_architecture",
    "split",
]
