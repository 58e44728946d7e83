"""A word for what a feature's tokens have in common, by WordNet: nations, diseases, bodies of water.

Of the words that a feature fires on (above its clean level; whole words of training documents), each is a kind of many things. The one
that tells where the feature fires (F1 of "the token is a word for a kind of it") names them when it holds at PRECISION of the
firings, the feature fires at RECALL of its places, and WORDS words are among them. Of several that tell it about as well, the one whose
name means most what the words mean is taken (sentence vectors): two, three and four are playing cards too.

Axes    V vocabulary, S synset, M firing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse

from interp.predicates import Around, Text
from interp.predicates.level import LIFT
from interp.predicates.wordnet import wordnet

PRECISION, RECALL, WORDS = 0.5, 0.1, 3
AS_WELL = 0.6
"""Share of the best F1 from which on a name's meaning decides."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the tokens are kinds of, and how far that holds on the documents it was found on."""

    name: str
    precision: float
    recall: float
    words: int
    """Words, in whatever form, that the feature fires on and that are kinds of it."""

    @property
    def claim(self) -> str:
        """As search and labels write it."""
        return f'kind:"{self.name}"' if " " in self.name else f"kind:{self.name}"


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which tokens of a text are kinds of what, looked up once."""

    text: Text

    @cached_property
    def _whole_V(self) -> np.ndarray:
        """How often each token is a whole word, in training documents."""
        return np.asarray(self.text.counts[0] - self.text.inside_counts)

    @cached_property
    def _names(self) -> tuple[list[str], sparse.csr_matrix]:
        """(names, shape (V, names): which tokens are words for kinds of what has the name)."""
        kinds_V, name_S = self.text.vocabulary.kinds, wordnet().name_S
        row: list[int] = []
        column: list[int] = []
        number: dict[str, int] = {}
        for token in np.flatnonzero(self._whole_V > 0):
            for name in {name_S[synset] for synset in kinds_V[token]}:
                row.append(int(token))
                column.append(number.setdefault(name, len(number)))
        shape = len(self._whole_V), len(number)
        ones = np.ones(len(row), dtype=np.float32)
        return list(number), sparse.csr_matrix((ones, (row, column)), shape=shape)

    @cached_property
    def _all_S(self) -> np.ndarray:
        return np.asarray(self._whole_V @ self._names[1])

    def best(self, firings: Around, encode: Callable[[list[str]], torch.Tensor]) -> Kind | None:
        """The kind of the tokens at these firings of training documents; None where none holds well enough.

        `encode` gives unit vectors of words.
        """
        names, of = self._names
        token_M, whole_M = firings.at(0), ~firings.inside_word
        fires_V = np.bincount(token_M[whole_M], minlength=of.shape[0])
        hit_S = np.asarray(fires_V @ of)
        precision_S, recall_S = hit_S / max(len(token_M), 1), hit_S / np.maximum(self._all_S, 1)
        says = precision_S >= LIFT * self._all_S / max(len(self.text.train_P), 1)
        good = np.flatnonzero(says & (precision_S >= PRECISION) & (recall_S >= RECALL))
        words = {place: self._words(fires_V, of, place) for place in good.tolist()}
        good = np.array([place for place in good if len(words[int(place)]) >= WORDS], dtype=np.int64)
        if not len(good):
            return None
        f1 = 2 * precision_S[good] * recall_S[good] / (precision_S[good] + recall_S[good])
        near = good[f1 >= AS_WELL * f1.max()]
        meant = encode([names[place] for place in near]) @ encode(sorted(words[int(near[0])])).mean(0)
        chosen = int(near[int(meant.argmax())])
        figures = float(precision_S[chosen]), float(recall_S[chosen])
        return Kind(name=names[chosen], precision=figures[0], recall=figures[1], words=len(words[chosen]))

    def _words(self, fires_V: np.ndarray, of: sparse.csr_matrix, place: int) -> set[str]:
        """The words, in their first form, that fire and are of this kind."""
        column = of.getcol(place)
        return {self._lemma(int(token)) for token in column.nonzero()[0] if fires_V[token]}

    def _lemma(self, token: int) -> str:
        return wordnet().lemma(self.text.vocabulary.texts[token].strip(" "))
