"""A word for a list of tokens that is too long to be a name: what they begin or end with, or what they have to do with.

1. Most of the words begin or end alike: "words that begin with ‘un’". This is a claim of its own.
2. A word is nearer to them, by sentence vectors, than to words drawn from the text (AUROC of the cosine at least ALIKE): "words like
   ‘walk’", "words to do with place". Candidates are the listed words themselves, what several of them are kinds of by WordNet, and the text's
   topics. The claim stays the list.
3. Else there is no one word for it, and the name says so.

Axes    W word of the list, R word drawn from the text, C candidate, E width of a vector.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from interp.predicates import Predicate, Text
from interp.predicates.wordnet import wordnet

LONG = 8
"""Words from which a list is no name."""
WHOLE = 3
"""Letters of a listed token from which it is a word that says something."""
ALIKE = 0.85
AFFIX = 0.8
"""Share of the words that begin or end alike."""
AFFIXES = (4, 3, 2)
"""Letters of what they share."""
DRAWN = 400
"""Words of the text that the list's are compared with."""
CANDIDATES = 24
"""Listed words, and kinds, that are candidates."""
NAMELESS = "no one word"
"""How the name of a list begins that no word is found for."""


@dataclass(frozen=True, eq=False)
class Lists:
    """Names lists of tokens of one text."""

    text: Text
    encode: Callable[[list[str]], torch.Tensor]
    words: bool
    """Whether WordNet is here."""

    def long(self, predicate: Predicate) -> bool:
        """Whether what it says of a token is a list of LONG words or more."""
        here = predicate.here
        return isinstance(here, tuple) and len(set(self.text.vocabulary.word_V[list(here)].tolist())) >= LONG

    def affix(self, predicate: Predicate) -> tuple[str, str] | None:
        """(name, claim) of a beginning or an end that most of the listed words share."""
        assert isinstance(predicate.here, tuple)
        texts = [self.text.vocabulary.texts[token] for token in predicate.here]
        words = [text.strip(" ") for text in texts if text.strip(" ").isalpha()]
        if len(words) < AFFIX * len(texts):
            return None
        space = " " if sum(text.startswith(" ") for text in texts) >= AFFIX * len(texts) else " ?"
        for length in AFFIXES:
            long = [word.lower() for word in words if len(word) > length]
            for begins in (True, False):
                found = Counter(word[:length] if begins else word[-length:] for word in long).most_common(1)
                if found and found[0][1] >= AFFIX * len(texts):
                    affix = found[0][0]
                    either = f"(?i:{re.escape(affix)})"
                    inner = rf"{either}\p{{L}}+" if begins else rf"\p{{L}}+{either}"
                    name = f"words that {'begin' if begins else 'end'} with ‘{affix}’"
                    return name, f"token:/^{space}{inner}$/"
        return None

    def named(self, predicate: Predicate, listed: str) -> str:
        """The name of a long list: a word for it, or that there is none, and its first words."""
        return f"{self.word(predicate) or NAMELESS}: {listed}"

    def word(self, predicate: Predicate) -> str:
        """Words like one of them, or to do with what they are kinds of; "" where nothing tells them from others."""
        assert isinstance(predicate.here, tuple)
        listed = self._words(predicate.here)
        if len(listed) < max(LONG, len(predicate.here) // 2):
            return ""
        found = list(dict.fromkeys([*listed[:CANDIDATES], *self._kinds(listed), *self._topics]))
        word_WE, drawn_RE, said_CE = self._vectors(listed), self._drawn, self._vectors(found)
        near_WC, far_RC = word_WE @ said_CE.T, drawn_RE @ said_CE.T
        for place in range(len(listed[:CANDIDATES])):
            near_WC[place, place] = np.nan  # a word is near to itself
        order_RC = np.sort(far_RC, axis=0)
        auroc_C = np.array(
            [np.nanmean(np.where(np.isnan(near), np.nan, np.searchsorted(far, near) / len(far)))
             for near, far in zip(near_WC.T, order_RC.T, strict=True)]
        )  # fmt: skip
        best = int(auroc_C.argmax())
        if auroc_C[best] < ALIKE:
            return ""
        if best >= len(listed[:CANDIDATES]):
            return f"words to do with {found[best]}"
        return f"words like ‘{wordnet().lemma(found[best]) if self.words else found[best]}’"

    def _words(self, here: Sequence[int]) -> list[str]:
        texts = [self.text.vocabulary.texts[token].strip(" ").lower() for token in here]
        return list(dict.fromkeys(text for text in texts if text.isalpha() and len(text) >= WHOLE))

    def _kinds(self, listed: Sequence[str]) -> list[str]:
        """What at least three of them are kinds of, by WordNet, the commonest first."""
        if not self.words:
            return []
        known = wordnet()
        times = Counter(name for word in listed for name in {known.name_S[synset] for synset in known.kinds(word)})
        return [name for name, count in times.most_common(CANDIDATES) if count >= 3]

    @cached_property
    def _topics(self) -> list[str]:
        return list(self.text.values["topic"][0])[:CANDIDATES]

    @cached_property
    def _drawn(self) -> np.ndarray:
        """Vectors of words of the text, each token that begins one as likely as another."""
        vocabulary = self.text.vocabulary
        usable = np.flatnonzero(vocabulary.content_V[:-1] & (self.text.counts[0][:-1] > 0))
        some = np.random.default_rng(self.text.seed).choice(usable, min(DRAWN, len(usable)), replace=False)
        return self._vectors([vocabulary.texts[int(token)].strip(" ").lower() for token in some])

    def _vectors(self, words: list[str]) -> np.ndarray:
        return self.encode(words).double().numpy()
