"""What a feature's contexts are about, in a word: for features that fire on many different tokens, or on one only here and there.

Of strong firings (one window each, a few a document) and their controls (the same token elsewhere, where the feature is silent), the
candidates are words that stand near many firings and near little else, what those are kinds of by WordNet where its package
is here, and the topics of their documents. The candidate that tells firings from controls best, by the AUROC of its sentence
vector's cosine with theirs, names the feature when it reaches LEAST.

Axes    K pair, E width of a vector, C candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.corpus import archives
from interp.evals.contexts import LEAST_DOCUMENTS, Pairs
from interp.predicates import Text
from interp.predicates.windows import SIDE, subjects
from interp.predicates.wordnet import wordnet

LEAST = 0.75
WORDS = 24
"""Words near the firings that are candidates."""
HIGHER = 2
"""Steps up from a word to what it is a kind of."""
LIFT = 2.0
"""How many times as common a word must be near the firings as in the text."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What contexts are about, and how well that tells them from others."""

    name: str
    auroc: float
    pairs: int

    @property
    def claim(self) -> str:
        """As search and labels write it."""
        return f'about:"{self.name}"' if " " in self.name else f"about:{self.name}"


def subject(compared: Pairs, text: Text, found: Sequence[str] | None = None) -> Subject | None:
    """The word that tells the firings of these pairs from their controls; None where none does well enough.

    `found` are `candidates` where they are known already. Raises InterpError where the text has no sentence encoder.
    """
    if found is None:
        found = candidates(compared.firing_K, text)
    if not found:
        return None
    read = subjects(text)
    read.read_phrases(found)
    firing_KE, control_KE = (read.vectors(place) for place in (compared.firing_K, compared.control_K))
    phrase_CE = np.stack([read.phrase(name) for name in found]).astype(np.float32)
    auroc_C = _auroc(firing_KE @ phrase_CE.T, control_KE @ phrase_CE.T)
    best = int(auroc_C.argmax())
    if auroc_C[best] < LEAST:
        return None
    return Subject(name=found[best], auroc=float(auroc_C[best]), pairs=len(compared))


def _auroc(firing_KC: np.ndarray, control_KC: np.ndarray) -> np.ndarray:
    """For each candidate, how often a firing's cosine is above a control's."""
    above = (firing_KC[:, None] > control_KC[None]).mean((0, 1))
    return np.asarray(above + 0.5 * (firing_KC[:, None] == control_KC[None]).mean((0, 1)))


def candidates(position_K: np.ndarray, text: Text) -> list[str]:
    """Words, kinds and topics that the contexts at these positions might be about; none where they are of too few documents."""
    if len(np.unique(text.document_N[position_K])) < LEAST_DOCUMENTS:
        return []
    words = _near_words(position_K, text)
    known = [] if archives.missing(["wordnet"]) else _above(words)
    values, value_D = text.values["topic"]
    topic_K = value_D[np.unique(text.document_N[position_K])]
    times = np.bincount(topic_K[topic_K >= 0], minlength=len(values))
    topics = [values[int(place)] for place in np.argsort(-times, kind="stable")[:3] if times[place] > 1]
    return list(dict.fromkeys([*words, *known, *topics]))


def _near_words(position_K: np.ndarray, text: Text) -> list[str]:
    """Content words in the windows of several documents' firings, by how much commoner they are there than in the text."""
    around = text.around(position_K)
    steps = list(range(-SIDE, SIDE + 1))
    token = np.concatenate([around.at(step) for step in steps])
    document = np.tile(around.document, len(steps))
    useful = text.vocabulary.content_V[token]
    word = text.vocabulary.word_V
    pair = np.unique(word[token[useful]].astype(np.int64) << 32 | document[useful])
    found, times = np.unique(pair >> 32, return_counts=True)
    common = text.word_counts
    windows = len(np.unique(around.document)) * len(steps)
    chance = np.maximum(common[found] / max(len(text.train_P), 1) * windows, 1e-9)
    keep = (times >= 2) & (times >= LIFT * chance)
    order = np.argsort(-(times * np.log(np.maximum(times / chance, 1)))[keep], kind="stable")[:WORDS]
    first_W = text.vocabulary.first_W
    return [text.vocabulary.texts[int(first_W[number])].strip(" ").lower() for number in found[keep][order]]


def _above(words: list[str]) -> list[str]:
    """What the words are kinds of, HIGHER steps up."""
    known, found = wordnet(), dict[str, bool]()
    for word in words:
        level = set(known.synsets(word))
        for _ in range(HIGHER):
            level = {parent for synset in level for parent in known.parents_S[synset]}
            found |= {known.name_S[synset]: True for synset in sorted(level)}
    return list(found)
