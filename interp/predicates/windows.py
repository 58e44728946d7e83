"""Stretches of text around positions, and what they are about.

One stretch every STRIDE tokens, SIDE tokens to either side within a document and the model's block, is read by a sentence encoder; a
position's context is the stretch whose middle is nearest.

Axes    W window, E width of a vector, P position.
Source  Reimers and Gurevych 2019 for the vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

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


def windows(
    text: Text, position_P: np.ndarray, texts: Sequence[str], encode: Callable[[list[str]], torch.Tensor]
) -> Windows:
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
    """What the contexts of a text are about."""

    text: Text
    encode: Callable[[list[str]], torch.Tensor]
    """Unit vectors of passages."""
    _read: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    """Vectors of the windows that were read, by their middle: claims are asked of the same positions again and again."""

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean vector of contexts, unit vectors of the sample with the mean taken off)."""
        draw = np.random.default_rng(self.text.seed)
        position = self.text.train_P
        some = np.sort(draw.choice(position, min(SAMPLE, len(position)), replace=False))
        vector = self._encoded(middles(self.text, some))
        mean = vector.mean(0)
        return mean, _unit(vector - mean)

    def _encoded(self, middle_W: np.ndarray) -> np.ndarray:
        texts = self.text.vocabulary.texts
        return self.encode([passage(self.text, int(p), texts) for p in middle_W]).double().numpy()

    def vectors(self, position_P: np.ndarray) -> np.ndarray:
        """Unit vectors of the contexts of positions, the mean of all taken off; InterpError for more than are read at once."""
        middle, which_P = np.unique(middles(self.text, position_P), return_inverse=True)
        if len(middle) > MOST:
            raise InterpError(
                f"about: reads {len(middle):,} stretches of text here, and {MOST:,} are the most; ask of fewer documents."
            )
        new = np.array([int(p) for p in middle if int(p) not in self._read], dtype=np.int64)
        if len(new):
            self._read.update(
                zip(new.tolist(), _unit(self._encoded(new) - self._sample[0]).astype(np.float32), strict=True)
            )
        return np.stack([self._read[int(p)] for p in middle])[which_P]

    def near(self, phrase: str) -> tuple[np.ndarray, float]:
        """(unit vector of a phrase, cosine above which a context is about it)."""
        mean, sample_WE = self._sample
        vector = _unit(self.encode([phrase]).double().numpy()[0] - mean)
        return vector, float(np.quantile(sample_WE @ vector, 1 - NEAREST))

    def holds(self, phrase: str, position_P: np.ndarray) -> np.ndarray:
        """Which positions' contexts are about the phrase."""
        vector, least = self.near(phrase)
        return np.asarray(self.vectors(position_P) @ vector > least)


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
