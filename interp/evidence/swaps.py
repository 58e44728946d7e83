"""Tokens that may stand in another one's place: near ones, by what the model takes them to be, and far ones.

near    the NEAR tokens whose embeddings have the largest cosine with the token's
far     tokens of about the same frequency, none of them among the ALIKE nearest

Both are of the token's own form (a space before it or not, small letters, a capital, digits, signs), stand in the text at least
SEEN times, and are another word: no other case, no plural, no other ending of it.

Axes    V vocabulary, D width of the embedding.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.predicates import Vocabulary

NEAR, ALIKE, FREQUENT = 8, 200, 64
"""How many tokens are near, are too near to be far, and are about as frequent."""
SEEN = 5
_FORMS: tuple[Callable[[str], bool], ...] = (
    str.isdecimal,
    lambda text: text.isalpha() and text.islower(),
    lambda text: text.isalpha() and text.isupper(),
    lambda text: text.isalpha() and text[0].isupper() and text[1:].islower(),
    str.isalpha,
    str.isalnum,
    str.isspace,
    lambda text: bool(text) and not any(c.isalnum() or c.isspace() for c in text),
)
"""What a token may consist of, the first that it does; of any other, nothing is like it."""
_ENDINGS = re.compile(r"(?:'s|’s|ies|es|s|ed|d|ing|ly|y|e)$")


@dataclass(frozen=True, eq=False)
class Swaps:
    """What each token of one model can be swapped for."""

    vocabulary: Vocabulary
    count_V: np.ndarray
    """How often each token stands in the text."""
    embedding_VD: Float[Tensor, "V D"] | None = field(repr=False)
    """None where the model has none: then nothing is near, and anything may be far."""

    def near(self, token: int, draw: np.random.Generator) -> list[int]:
        """Tokens like this one, in an order that is drawn."""
        nearest = self._nearest(token)
        return [] if nearest is None else [int(one) for one in draw.permutation(nearest[:NEAR])]

    def far(self, token: int, draw: np.random.Generator) -> list[int]:
        """Tokens unlike this one, as frequent and of the same form, in an order that is drawn."""
        others, nearest = self._others(token), self._nearest(token)
        if nearest is not None:
            others = others[~np.isin(others, nearest[: min(ALIKE, len(nearest) // 2)])]
        away = np.abs(np.log(self.count_V[others]) - np.log(max(int(self.count_V[token]), 1)))
        return [int(one) for one in draw.permutation(others[np.argsort(away, kind="stable")[:FREQUENT]])]

    def _others(self, token: int) -> np.ndarray:
        """All tokens of the same form that are another word."""
        form = self._form_V[token]
        if form < 0:
            return np.zeros(0, dtype=np.int64)
        stem = self._stem_V[token]
        return np.array([one for one in self._of_form[form].tolist() if self._stem_V[one] != stem], dtype=np.int64)

    def _nearest(self, token: int) -> np.ndarray | None:
        """Others in order of their cosine, nearest first; None where there is no embedding."""
        unit_VD = self._unit_VD
        if unit_VD is None:
            return None
        others = self._others(token)
        others = others[others < len(unit_VD)]
        if token >= len(unit_VD) or not len(others):
            return np.zeros(0, dtype=np.int64)
        cosine = unit_VD[torch.from_numpy(others)] @ unit_VD[token]
        return np.asarray(others[np.argsort(-cosine.cpu().numpy(), kind="stable")])

    @cached_property
    def _unit_VD(self) -> Tensor | None:
        if self.embedding_VD is None:
            return None
        return self.embedding_VD / self.embedding_VD.norm(dim=1, keepdim=True).clamp_min(1e-12)

    @cached_property
    def _form_V(self) -> np.ndarray:
        """A number for the form of each token that the text has often enough, -1 for the rest."""
        return np.array([self._form(token, text) for token, text in enumerate(self.vocabulary.texts)], dtype=np.int64)

    def _form(self, token: int, text: str) -> int:
        if token >= len(self.count_V) or self.count_V[token] < SEEN or "\\x" in text:
            return -1
        spaced, core = text.startswith(" "), text.removeprefix("##").removeprefix(" ")
        found = next((i for i, form in enumerate(_FORMS) if form(core)), -1)
        return -1 if found < 0 else 4 * found + 2 * text.startswith("##") + spaced

    @cached_property
    def _of_form(self) -> dict[int, np.ndarray]:
        return {int(form): np.flatnonzero(self._form_V == form) for form in np.unique(self._form_V)}

    @cached_property
    def _stem_V(self) -> list[str]:
        """Each token without case, spaces and its ending; of short ones the whole."""
        return [_stem(text.removeprefix("##").strip(" ").lower() or text) for text in self.vocabulary.texts]


def _stem(word: str) -> str:
    return _ENDINGS.sub("", word) if len(word) > 3 else word
