"""Stretches of text around positions, and what they are about.

One stretch every STRIDE tokens, SIDE tokens to either side within a document and the model's block, is read by a sentence encoder; a
position's context is the stretch whose middle is nearest.

Axes    W window, E width of a vector, P position.
Source  Reimers and Gurevych 2019 for the vectors.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from interp.predicates.text import Text
from interp.types import InterpError

SIDE = 8
"""Tokens on either side of a window's middle: what a feature answers to stands mostly closer than a sentence is long."""
STRIDE = 4
"""Tokens from one window to the next: a context's middle is at most half of it away from its window's."""
SAMPLE = 2_000
"""Windows of the training documents by which it is said how near to a phrase is near."""
NEAREST = 0.1
"""A context is about a phrase when it is nearer to it than all but this share of the sample."""
MOST = 100_000
"""Windows that are read for one claim, which takes some ten minutes."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Vectors of stretches of text."""

    middle_W: np.ndarray
    """Position at the middle of each window, ascending."""
    vector_WE: np.ndarray
    """Unit vectors, the mean of all taken off: what all texts share says nothing of one."""

    text: Text

    def at(self, position_P: np.ndarray) -> np.ndarray:
        """The window of each position, by number: that of the nearest middle in its document and block."""
        right = np.clip(np.searchsorted(self.middle_W, position_P), 0, len(self.middle_W) - 1)
        left = np.maximum(right - 1, 0)
        away = [np.abs(self.middle_W[side] - position_P).astype(np.float64) for side in (left, right)]
        for side, distance in zip((left, right), away, strict=True):
            distance[~self.text.together(self.middle_W[side], position_P)] = np.inf
        return np.where(away[0] <= away[1], left, right)


def windows(text: Text, position_P: np.ndarray, texts: Sequence[str], encode: Callable[[list[str]], Any]) -> Windows:
    """Windows over the positions (ascending), SIDE tokens to either side within their document and block."""
    stretch = position_P // text.block * (int(text.document_N.max()) + 1) + text.document_N[position_P]
    begins = np.flatnonzero(np.diff(stretch, prepend=-1))
    rank = np.arange(len(position_P)) - np.repeat(begins, np.diff(begins, append=len(position_P)))
    middle = position_P[rank % STRIDE == STRIDE // 2]
    alone = position_P[begins[np.diff(begins, append=len(position_P)) <= STRIDE // 2]]
    middle = np.sort(np.concatenate([middle, alone])).astype(np.int64)
    vector = encode([passage(text, int(p), texts) for p in middle]).double().numpy()
    vector -= vector.mean(0)
    return Windows(middle, vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-12), text)


def passage(text: Text, position: int, texts: Sequence[str]) -> str:
    """The text SIDE tokens to either side, within the document and the model's block."""
    near = np.arange(max(position - SIDE, 0), min(position + SIDE + 1, len(text.token_N)))
    near = near[text.together(near, np.full(len(near), position)) & (text.token_N[near] != text.separator)]
    return "".join(texts[int(token)] for token in text.token_N[near]).strip()


@dataclass(frozen=True, eq=False)
class Subjects:
    """What the contexts of a text are about. What was read once is kept: claims are asked of the same positions again and again."""

    text: Text
    encode: Callable[[list[str]], Any]
    """Unit vectors of passages."""
    _phrases: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _least: dict[str, float] = field(default_factory=dict, repr=False)

    def elsewhere(self, text: Text) -> "Subjects":
        """The same of another text: what is common to contexts, and how near is near, stay those of this one."""
        other = Subjects(text, self.encode, self._phrases, self._least)
        other.__dict__["_sample"] = self._sample
        return other

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean vector of contexts, unit vectors of the sample with the mean taken off)."""
        draw = np.random.default_rng(self.text.seed)
        position = self.text.train_P
        some = np.sort(draw.choice(position, min(SAMPLE, len(position)), replace=False))
        vector = self._encoded(self._middle_N[some])
        mean = vector.mean(0)
        return mean, _unit(vector - mean)

    @cached_property
    def _read(self) -> "_Read":
        return _Read(len(self.text.token_N))

    @cached_property
    def _middle_N(self) -> np.ndarray:
        return middles(self.text, np.arange(len(self.text.token_N)))

    def _encoded(self, middle_W: np.ndarray) -> np.ndarray:
        texts = self.text.vocabulary.texts
        return self.encode([passage(self.text, int(p), texts) for p in middle_W]).double().numpy()

    def _rows(self, position_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(vectors of all windows that were read, the row of each position's); InterpError for more than are read at once."""
        mean = self._sample[0]
        return self._read.rows(self._middle_N[position_P], lambda new_W: _unit(self._encoded(new_W) - mean))

    def vectors(self, position_P: np.ndarray) -> np.ndarray:
        """Unit vectors of the contexts of positions, the mean of all taken off; InterpError for more than are read at once."""
        vector_WE, row_P = self._rows(position_P)
        return np.asarray(vector_WE[row_P])

    def read_phrases(self, phrases: Iterable[str]) -> None:
        """Read those phrases together that were not read yet: alone, each takes ten times as long."""
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._phrases]
        if new:
            mean = self._sample[0]
            self._phrases.update(zip(new, _unit(self.encode(new).double().numpy() - mean), strict=True))

    def phrase(self, phrase: str) -> np.ndarray:
        """The unit vector of a phrase, the mean of all contexts taken off."""
        self.read_phrases([phrase])
        return self._phrases[phrase]

    def near(self, phrase: str) -> tuple[np.ndarray, float]:
        """(unit vector of a phrase, cosine above which a context is about it)."""
        vector = self.phrase(phrase)
        if phrase not in self._least:
            self._least[phrase] = float(np.quantile(self._sample[1] @ vector, 1 - NEAREST))
        return vector, self._least[phrase]

    def holds(self, phrase: str, position_P: np.ndarray) -> np.ndarray:
        """Which positions' contexts are about the phrase."""
        vector, least = self.near(phrase)
        if not len(position_P):  # of a text of which nothing was read yet, there are no vectors to compare
            return np.zeros(0, dtype=bool)
        vector_WE, row_P = self._rows(position_P)
        return np.asarray((vector_WE @ vector.astype(np.float32))[row_P] > least)


class _Read:
    """Vectors of the windows that were read, in the order in which they were."""

    def __init__(self, positions: int) -> None:
        self._row_N = np.full(positions, -1, dtype=np.int32)
        """By its middle, the row of a window; -1 where it was not read."""
        self._vector_WE = np.zeros((0, 0), dtype=np.float32)
        self._turn = threading.Lock()

    def rows(self, middle_P: np.ndarray, encode: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(all vectors, the row of the window with each of these middles); `encode` reads those that are new.

        Raises InterpError for more than are read at once.
        """
        with self._turn:
            new_W = np.unique(middle_P[self._row_N[middle_P] < 0])
            if len(new_W) > MOST:
                raise InterpError(
                    f"about: reads {len(new_W):,} stretches of text here, and {MOST:,} are the most; ask of fewer documents."
                )
            if len(new_W):
                vector, have = encode(new_W).astype(np.float32), len(self._vector_WE)
                self._vector_WE = np.concatenate([self._vector_WE.reshape(have, vector.shape[1]), vector])
                self._row_N[new_W] = np.arange(have, len(self._vector_WE))
            return self._vector_WE, self._row_N[middle_P]


def subjects(text: Text) -> Subjects:
    """What the text's contexts are about; InterpError where no sentence encoder is at hand."""
    if text.encode is None:
        raise InterpError("about: reads contexts by a sentence encoder, which is not at hand here.")
    found: Subjects = text.remembered.setdefault("subjects", Subjects(text, text.encode))
    return found


def middles(text: Text, position_P: np.ndarray) -> np.ndarray:
    """The middle of each position's window: windows lie in a row from where its document begins in the model's block."""
    position = position_P.astype(np.int64)
    begins = np.flatnonzero(
        (np.diff(text.document_N.astype(np.int64), prepend=-1) != 0) | (np.arange(len(text.token_N)) % text.block == 0)
    )
    start = begins[np.searchsorted(begins, position, side="right") - 1]
    ends = np.append(begins[1:], len(text.token_N)) - 1
    last = ends[np.searchsorted(begins, position, side="right") - 1]
    return np.minimum(start + (position - start) // STRIDE * STRIDE + STRIDE // 2, last)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12))
