"""How much of held-out text stands in the training text as well.

A document is a near-duplicate when at least half of its 13-grams occur in the training text; a 13-gram is thirteen words in a
row, a word a run of letters, digits and underscores in small letters.

Axes    W word, G 13-gram.
Source  Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C (overlaps of 13 words).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from interp.corpus.documents import Document

WORDS = 13
SHARED = 0.5
MERGE = 8_000_000
"""13-grams that are gathered before those that came before are left out."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Overlap:
    """The held-out documents of one source."""

    documents: int = 0
    near: int = 0
    """Of them, those with at least `SHARED` of their 13-grams in the training text."""
    short: int = 0
    """Documents of fewer than 13 words beside them, of which nothing can be said."""

    @property
    def share(self) -> float:
        """Near-duplicates among the documents long enough to compare."""
        return self.near / max(self.documents, 1)


def near_duplicates(heldout: Iterable[Document], training: Iterable[Document]) -> dict[str, Overlap]:
    """The near-duplicates among held-out documents, source by source; training text is read once, 8 bytes a 13-gram kept.

    13-grams are compared by 64-bit hashes: beside 10 million known ones, another is taken for one of them once in 10^12.
    """
    known_G = _grams(training)
    overlaps: dict[str, Overlap] = {}
    for doc in heldout:
        one = overlaps.setdefault(doc.source, Overlap())
        grams_G = hashes(doc.text)
        if not len(grams_G):
            one.short += 1
            continue
        at = np.minimum(np.searchsorted(known_G, grams_G), max(len(known_G) - 1, 0))
        shared = float((known_G[at] == grams_G).mean()) if len(known_G) else 0.0
        one.documents += 1
        one.near += shared >= SHARED
    return overlaps


def hashes(text: str, words: int = WORDS) -> np.ndarray:
    """A 64-bit hash of each run of so many words of the text, in its order."""
    words_W = np.fromiter((_word(word) for word in re.findall(r"\w+", text.lower())), np.uint64)
    count = len(words_W) - words + 1
    grams_G = np.zeros(max(count, 0), np.uint64)
    for at in range(words if count > 0 else 0):
        grams_G = grams_G * _BASE + words_W[at : at + count]
    return grams_G


def _grams(documents: Iterable[Document]) -> np.ndarray:
    """The different 13-grams, sorted."""
    known, parts, waiting = np.zeros(0, np.uint64), [], 0
    for doc in documents:
        parts.append(hashes(doc.text))
        waiting += len(parts[-1])
        if waiting > MERGE:
            known, parts, waiting = np.unique(np.concatenate([known, *parts])), [], 0
    return np.unique(np.concatenate([known, *parts]))


@lru_cache(maxsize=1 << 18)
def _word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
