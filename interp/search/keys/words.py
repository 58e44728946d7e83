"""What features are called: `text:`, by words or by meaning.

Axes    F feature, E width of a sentence vector.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from interp.search.answer import Answer, Collection
from interp.search.query import Term

MEANS = 0.3
"""Cosine of meanings from which a text counts as found: unrelated descriptions lie below (docs/search.md)."""


def find_text(term: Term, collection: Collection) -> Answer:
    """Quoted: every word is in the label, the note, or (without a label) the automatic description. Bare: the cosine of
    its meaning with theirs. Either way the score is the cosine, where an encoder is at hand."""
    index, labels = collection.index, collection.labels.all()
    label_of = {f: f"{label.text} {label.note}".strip() for f, label in labels.items()}
    named = np.zeros(index.d_sae, dtype=bool)
    named[list(labels)] = True
    cosine = _cosines(term.value, label_of, collection)
    if term.quoted or cosine is None:
        passed = _with_words(term.value, (label_of.get(f) or index.descriptions[f] for f in range(index.d_sae)))
    else:
        passed = cosine >= MEANS
    if cosine is None:
        score, partial = np.where(passed, np.where(named, 1.0, 0.5), 0.0), not term.quoted
    else:
        score, partial = cosine, False
    kind = {True: "label", False: "automatic description, untested"}

    def why(f: int) -> str:
        return f"{kind[bool(named[f])]}" + (f", meaning {score[f]:.2f}" if cosine is not None else ", by words only")

    return Answer(passed, score, why, partial)


def _with_words(asked: str, texts: Iterable[str]) -> np.ndarray:
    """For each text, whether it has every word."""
    words = [whole_word(word) for word in asked.lower().split()]
    return np.array([all(word.search(text.lower()) for word in words) for text in texts], dtype=bool)


def whole_word(word: str) -> re.Pattern[str]:
    """Finds a word that begins and ends where words do; in scripts without spaces, anywhere."""
    begins, ends = (r"(?<!\w)" if word[0].isascii() else ""), (r"(?!\w)" if word[-1].isascii() else "")
    return re.compile((begins if word[0].isalnum() else "") + re.escape(word) + (ends if word[-1].isalnum() else ""))


def _cosines(asked: str, label_of: Mapping[int, str], collection: Collection) -> np.ndarray | None:
    """Cosine of the meaning of `asked` with each feature's text; None when no encoder is at hand."""
    vectors = collection.index.meanings
    if vectors is None or collection.meanings is None:
        return None
    asked_E = collection.meanings([asked])[0]
    cosine_F = (vectors @ asked_E).numpy().astype(np.float64)
    if label_of:
        cosine_F[list(label_of)] = (collection.meanings(list(label_of.values())) @ asked_E).numpy()
    cosine_F[collection.index.features["fires"].to_numpy() == 0] *= 0
    return cosine_F
