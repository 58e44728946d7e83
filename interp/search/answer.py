"""What a search goes through, and what one key of it answers.

Axes    F feature, D width of the residual stream, T token, N text, E width of a sentence vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from interp.index import FeatureIndex
from interp.labels import LabelBook
from interp.search.query import Term
from interp.types import InterpError, check_feature

if TYPE_CHECKING:
    from torch import Tensor

    from interp.lenses.said import Said


@runtime_checkable
class Activated(Protocol):
    """A text's activations, as `workbench.Spectrum` has them: an entry for each token and feature that fires there."""

    @property
    def tokens(self) -> Sequence[str]:
        """The text's tokens, the separator first."""

    @property
    def counted(self) -> Sequence[bool]:
        """By token, whether it counts: no separator, no sink."""

    @property
    def rows(self) -> np.ndarray:
        """The token of each entry."""

    @property
    def features(self) -> np.ndarray:
        """The feature of each entry."""

    @property
    def values(self) -> np.ndarray:
        """The activation of each entry, above 0."""


@runtime_checkable
class Evidence(Protocol):
    """What was tested of features, as `interp.evidence` has it: columns of evidence.parquet."""

    def column(self, name: str) -> np.ndarray:
        """A value a feature, nan or None where it is not known; InterpError, with the command, for a part that was not made."""


@dataclass(frozen=True)
class Collection:
    """The features that a search goes through, and what is known of them; what is None, its keys say so."""

    index: FeatureIndex
    labels: LabelBook
    directions: "Callable[[], Tensor] | None" = None
    """Decoder rows, shape (F, D)."""
    unembedding: "Callable[[list[int]], Tensor] | None" = None
    """What the logits of these tokens read from the residual stream, less the mean over all tokens; shape (T, D)."""
    said: "Said | None" = None
    """What lenses that were judged say of the features; None where none was."""
    activations: Callable[[str], Activated] | None = None
    """A text's activations; runs the model."""
    largest: Callable[[list[str], int], np.ndarray] | None = None
    """Each feature's largest activation on each text, of which so many tokens are read, shape (N, F); runs the model."""
    meanings: "Callable[[list[str]], Tensor] | None" = None
    """Unit sentence vectors of texts, shape (N, E)."""
    inside: Callable[[np.ndarray], np.ndarray] | None = None
    """Which features stand inside an outline of places on the map, shares of its width and height: (P, 2) to (F,)."""
    evidence: Callable[[], Evidence] | None = None
    """Raises InterpError, with the command, where none was made."""


@dataclass
class Answer:
    """What one key says of all features: which pass, and their scores (None where the key only filters)."""

    passed: np.ndarray
    """Shape (F,), bool."""
    score: np.ndarray | None
    """Shape (F,)."""
    why: Callable[[int], str]
    """The evidence for one feature, in words."""
    partial: bool = False
    """Whether it came from what a small index keeps."""
    note: str = ""
    """What the answer, such as one of no features, does not say by itself."""


Handler = Callable[[Term, Collection], Answer]


def asked_feature(term: Term, index: FeatureIndex) -> int:
    """The feature that a term names by its number; InterpError when it is none of the index's."""
    if not term.value.isdecimal():
        raise InterpError(f"{term.key}:{term.value} must name a feature by its number (at character {term.at}).")
    return check_feature(int(term.value), index.d_sae, "this SAE")
