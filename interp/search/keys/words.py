"""What features are called: `text:`, by words or by meaning.

Axes    F feature, E width of a sentence vector.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from interp.index import FeatureIndex
from interp.labels import Label, LabelBook
from interp.search.answer import Answer, Collection
from interp.search.query import Term

Encode = Callable[[list[str]], Any]
"""From texts to unit sentence vectors, a tensor of shape (N, E)."""
MEANS = 0.3
"""Cosine of meanings from which a text counts as found: unrelated descriptions lie below (docs/search.md)."""
_KEPT: "WeakKeyDictionary[LabelBook, _Named]" = WeakKeyDictionary()
"""What was last made of each book's labels: queries follow each other faster than labels do."""


@dataclass(eq=False)
class _Named:
    """What features are called by these labels and, where there is none, by their descriptions."""

    labels: Mapping[int, Label]
    index: FeatureIndex
    vectors: tuple[Encode, Any] | None = None
    """An encoder, and what it makes of every feature's text, shape (F, E)."""

    @cached_property
    def called(self) -> dict[int, str]:
        """What the label of every feature with one means (`Label.meant`)."""
        return {f: label.meant for f, label in self.labels.items()}

    @cached_property
    def named_F(self) -> np.ndarray:
        """Whether a feature has a label."""
        named = np.zeros(self.index.d_sae, dtype=bool)
        named[list(self.labels)] = True
        return named

    @cached_property
    def lower(self) -> list[str]:
        """Every feature's text in small letters."""
        return [(self.called.get(f) or self.index.descriptions[f]).lower() for f in range(self.index.d_sae)]

    def meanings(self, encode: Encode) -> Any:
        """Sentence vectors of every feature's text, shape (F, E)."""
        if self.vectors is None or self.vectors[0] is not encode:
            self.follow(_Named({}, self.index, (encode, self.index.meanings)))
        assert self.vectors is not None
        return self.vectors[1]

    def follow(self, before: "_Named") -> None:
        """Take over the vectors of what features were called before, where that has not changed."""
        assert before.vectors is not None
        encode, vectors_FE = before.vectors
        gone = [f for f in before.called if f not in self.called]
        other = [f for f, text in self.called.items() if before.called.get(f) != text]
        if gone or other:
            vectors_FE = vectors_FE.clone()
        if gone:
            assert self.index.meanings is not None
            vectors_FE[gone] = self.index.meanings[gone]
        if other:
            vectors_FE[other] = encode([self.called[f] for f in other]).to(vectors_FE.dtype)
        self.vectors = encode, vectors_FE


def _names(collection: Collection) -> _Named:
    book, labels, index = collection.labels, collection.labels.all(), collection.index
    kept = _KEPT.get(book)
    if kept is None or kept.labels is not labels or kept.index is not index:
        now = _Named(labels, index)
        if kept is not None and kept.index is index and kept.vectors is not None:
            now.follow(kept)
        kept = _KEPT[book] = now
    return kept


def find_text(term: Term, collection: Collection) -> Answer:
    """Quoted: every word is in the label, the note, or (without a label) the automatic description. Bare: the cosine of
    its meaning with theirs. Either way the score is the cosine, where an encoder is at hand."""
    names = _names(collection)
    named = names.named_F
    cosine = _cosines(term.value, names, collection)
    passed = _with_words(term.value, names.lower) if term.quoted or cosine is None else cosine >= MEANS
    if cosine is None:
        score, partial = np.where(passed, np.where(named, 1.0, 0.5), 0.0), not term.quoted
    else:
        score, partial = cosine, False
    kind = {True: "label", False: "automatic description, untested"}

    def why(f: int) -> str:
        return f"{kind[bool(named[f])]}" + (f", meaning {score[f]:.2f}" if cosine is not None else ", by words only")

    return Answer(passed, score, why, partial)


def _with_words(asked: str, texts: Sequence[str]) -> np.ndarray:
    """For each text in small letters, whether it has every word."""
    words = asked.lower().split()
    left = list(range(len(texts)))
    for word in words:  # what has the letters somewhere; of few texts, then, whether they are a word
        left = [i for i in left if word in texts[i]]
    for whole in map(whole_word, words):
        left = [i for i in left if whole.search(texts[i])]
    passed = np.zeros(len(texts), dtype=bool)
    passed[left] = True
    return passed


def whole_word(word: str) -> re.Pattern[str]:
    """Finds a word that begins and ends where words do; in scripts without spaces, anywhere."""
    begins, ends = (r"(?<!\w)" if word[0].isascii() else ""), (r"(?!\w)" if word[-1].isascii() else "")
    return re.compile((begins if word[0].isalnum() else "") + re.escape(word) + (ends if word[-1].isalnum() else ""))


def _cosines(asked: str, names: _Named, collection: Collection) -> np.ndarray | None:
    """Cosine of the meaning of `asked` with each feature's text; None when no encoder is at hand."""
    if collection.index.meanings is None or collection.meanings is None:
        return None
    vectors_FE = names.meanings(collection.meanings)
    cosine_F = (vectors_FE @ collection.meanings([asked])[0]).numpy().astype(np.float64)
    cosine_F[collection.index.features["fires"].to_numpy() == 0] *= 0
    return cosine_F
