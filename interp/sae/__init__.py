"""Sparse autoencoders: weights, encode, decode, one file an architecture, and their sparse mathematics."""

from dataclasses import MISSING, fields
from typing import Any

from interp.sae.architecture import Architecture
from interp.sae.batchtopk import BatchTopK
from interp.sae.bundle import Bundle
from interp.sae.crosscoder import Crosscoder
from interp.sae.dictionary import Dictionary, join, split
from interp.sae.gated import Gated
from interp.sae.jumprelu import JumpReLU
from interp.sae.matryoshka import Matryoshka
from interp.sae.sae import SAE
from interp.sae.standard import Standard
from interp.sae.topk import TopK
from interp.sae.transcoder import Transcoder
from interp.types import InterpError, unknown

ARCHITECTURES: dict[str, Any] = {
    "standard": Standard,
    "gated": Gated,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "matryoshka": Matryoshka,
    "transcoder": Transcoder,
    "crosscoder": Crosscoder,
}


def make_architecture(name: str, **options: Any) -> Architecture:
    """The architecture of that name with those options.

    Raises InterpError for a name that does not exist, and for an option it does not take or cannot do without.
    """
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    made = ARCHITECTURES[name]
    known = [field.name for field in fields(made)]
    for option in options:
        if option not in known:
            raise InterpError(f"{name} takes no {option}; it takes {', '.join(known)}.")
    missing = [f.name for f in fields(made) if f.name not in options and f.default is MISSING]
    if missing:
        raise InterpError(f"{name} needs {', '.join(missing)}.")
    return made(**options)


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
    "Standard",
    "TopK",
    "Transcoder",
    "join",
    "make_architecture",
    "split",
]
