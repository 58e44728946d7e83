"""Architectures by name, and the options that they take."""

from dataclasses import MISSING, Field, fields
from typing import Any, TypedDict, Unpack

from interp.sae.architecture import Architecture
from interp.sae.batchtopk import BatchTopK
from interp.sae.crosscoder import Crosscoder
from interp.sae.gated import Gated
from interp.sae.jumprelu import JumpReLU
from interp.sae.matryoshka import Matryoshka
from interp.sae.standard import Standard
from interp.sae.topk import TopK
from interp.sae.transcoder import Transcoder
from interp.types import InterpError, unknown

ARCHITECTURES: dict[str, type[Any]] = {
    "standard": Standard,
    "gated": Gated,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpReLU,
    "matryoshka": Matryoshka,
    "transcoder": Transcoder,
    "crosscoder": Crosscoder,
}


class Options(TypedDict, total=False):
    """What one architecture or another takes beside the widths of its hook points; each takes those it has a field for."""

    d_sae: int
    k: int
    l0: float
    l1: float
    form: str
    coefficient: float | None
    bandwidth: float | None
    anneal: float
    prefixes: tuple[int, ...]
    temporal: float
    high: float
    skip: bool


class Sizes(TypedDict, total=False):
    """The widths of what an architecture reads and writes."""

    d_in: int
    d_out: int
    widths: tuple[int, ...]


class AllOptions(Options, Sizes, total=False):
    """Everything that `make_architecture` takes."""


def options_of(name: str) -> tuple[Field[Any], ...]:
    """The fields of the architecture of that name; InterpError when there is none."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    known: tuple[Field[Any], ...] = fields(ARCHITECTURES[name])
    return known


def make_architecture(name: str, **options: Unpack[AllOptions]) -> Architecture:
    """The architecture of that name with those options.

    Raises InterpError for a name that does not exist, and for an option it does not take or cannot do without.
    """
    known = options_of(name)
    for option in options:
        if option not in [field.name for field in known]:
            raise InterpError(f"{name} takes no {option}; it takes {', '.join(field.name for field in known)}.")
    missing = [f.name for f in known if f.name not in options and f.default is MISSING]
    if missing:
        raise InterpError(f"{name} needs {', '.join(missing)}.")
    made: Architecture = ARCHITECTURES[name](**options)
    return made


def name_of(architecture: Architecture) -> str:
    """The name in `ARCHITECTURES` of an architecture's class; InterpError for a class that is not there."""
    names = [name for name, made in ARCHITECTURES.items() if made is type(architecture)]
    if not names:
        raise unknown("architecture", type(architecture).__name__, ARCHITECTURES)
    return names[0]
