"""An indexed text as predicates look at it: what stands at and around a position, and how often.

Two positions belong together where the model reads them together: in one document and one block. What is mined is mined on
the training split's positions that count, and every count here is over these.

Axes    N position, V vocabulary, D document, P position that is asked about, L value of a column.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from interp.predicates.language import LANGUAGES, languages
from interp.predicates.syntax import syntax
from interp.predicates.tokens import Vocabulary
from interp.predicates.written import REACH, Written
from interp.types import InterpError

OFFSETS = (-2, -1, 0, 1)
"""Where predicates look, seen from the position."""
COLUMNS = ("source", "language", "topic")
AT_ONCE = 1 << 20
"""Positions that are counted together."""
SAMPLED = 20_000
"""Positions drawn to estimate how common something is that cannot be counted token by token."""


@dataclass(frozen=True, eq=False)
class Text:
    """Tokens of a text in order, and the documents they are of."""

    token_N: np.ndarray
    document_N: np.ndarray
    kept_N: np.ndarray
    """True where a position counts."""
    block: int
    separator: int
    vocabulary: Vocabulary
    split_D: Sequence[str]
    columns: dict[str, Sequence[str]] = field(repr=False)
    """`source` and `topic` of each document, and `title` where it is known."""
    seed: int = 0
    write: Callable[[], Written] | None = field(default=None, repr=False)
    """Makes the documents' text; None where the tokens' bytes are not at hand."""
    encode: Callable[[list[str]], Any] | None = field(default=None, repr=False)
    """Gives unit sentence vectors of passages, a tensor of shape (passages, E); None where there is no encoder."""
    language_known_D: np.ndarray | None = field(default=None, repr=False)
    """The number of each document's language in LANGUAGES, where that is known from more than what stands here."""
    remembered: dict[str, Any] = field(default_factory=dict, repr=False)
    """What others found out about this text by that encoder, so that it is found out once."""

    # ---- around a position ----

    def around(self, position_P: np.ndarray) -> "Around":
        """What stands at and beside these positions."""
        return Around(np.asarray(position_P, dtype=np.int64), self)

    def together(self, one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray:
        """Whether two positions are of one document and one block."""
        same = self.document_N[one_P] == self.document_N[other_P]
        return np.asarray(same & (one_P // self.block == other_P // self.block))

    def read_by(self, encode: Callable[[list[str]], Any] | None) -> "Text":
        """The same text with a sentence encoder; what was counted stays."""
        copied = copy.copy(self)
        object.__setattr__(copied, "encode", encode)
        object.__setattr__(copied, "remembered", {})
        return copied

    # ---- what the tokens write ----

    @cached_property
    def written(self) -> Written:
        """The documents' text; InterpError where it is not at hand."""
        if self.write is None:
            raise InterpError("the text of these documents is not at hand; ask of an index.")
        return self.write()

    @cached_property
    def syntax_N(self) -> np.ndarray:
        """What each position is in Python source, as a sum of `syntax.BIT`."""
        titles = self.columns.get("title") or [""] * len(self.split_D)
        return syntax(self.written, [title or "" for title in titles], self.document_N)

    @cached_property
    def first_D(self) -> np.ndarray:
        """The first position of each document that is no separator, -1 where it has none."""
        first = np.full(len(self.split_D), -1, dtype=np.int64)
        place = np.flatnonzero(self.token_N != self.separator)[::-1]
        first[self.document_N[place]] = place  # the last to be written is the first of the document
        return first

    # ---- splits and columns ----

    @cached_property
    def train_D(self) -> np.ndarray:
        return np.array([split == "train" for split in self.split_D], dtype=bool)

    @cached_property
    def heldout_D(self) -> np.ndarray:
        return np.array([split == "heldout" for split in self.split_D], dtype=bool)

    @cached_property
    def train_P(self) -> np.ndarray:
        """Positions that count, of the training split."""
        return np.flatnonzero(self.kept_N & self.train_D[self.document_N])

    @cached_property
    def sample(self) -> "Around":
        """Some of `train_P`, drawn by `seed`."""
        draw = np.random.default_rng(self.seed)
        return self.around(np.sort(draw.choice(self.train_P, min(SAMPLED, len(self.train_P)), replace=False)))

    @cached_property
    def values(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """By column: its values, and for each document the number of its own (-1: not known)."""
        out = {}
        for name in COLUMNS:
            if name == "language":
                out[name] = list(LANGUAGES), self._language_D
                continue
            known = sorted({value for value in self.columns[name] if value})
            number = {value: i for i, value in enumerate(known)}
            out[name] = known, np.array([number.get(value, -1) for value in self.columns[name]], dtype=np.int64)
        return out

    @cached_property
    def _language_D(self) -> np.ndarray:
        if self.language_known_D is not None:
            return self.language_known_D
        return languages(self.token_N, self.document_N, len(self.split_D), self.vocabulary)

    @cached_property
    def value_counts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By column, for each value: its positions, and the documents that have any."""
        out = {}
        per_D = np.bincount(self.document_N[self.train_P], minlength=len(self.split_D))
        for name, (known, value_D) in self.values.items():
            some = (value_D >= 0) & (per_D > 0)
            positions = np.bincount(value_D[some], weights=per_D[some], minlength=len(known))
            out[name] = positions, np.bincount(value_D[some], minlength=len(known))
        return out

    # ---- how often ----

    def prepare(self) -> None:
        """Make what many threads are to read."""
        assert len(self.counts) == len(OFFSETS)
        assert len(self.values) == len(COLUMNS)
        _ = self.class_counts, self.value_counts, self.inside_counts, self.near_share_V, self._order, self.sample
        _ = self.vocabulary.word_V, self.vocabulary.content_V

    @cached_property
    def _counted(self) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """`counts` and `inside_counts`, some positions at a time."""
        size = self.vocabulary.nothing + 1
        counts = {offset: np.zeros(size, dtype=np.int64) for offset in OFFSETS}
        inside = np.zeros(size, dtype=np.int64)
        for first in range(0, len(self.train_P), AT_ONCE):
            around = self.around(self.train_P[first : first + AT_ONCE])
            for offset in OFFSETS:
                counts[offset] += np.bincount(around.at(offset), minlength=size)
            inside += np.bincount(around.at(0)[around.inside_word], minlength=size)
        return counts, inside

    @property
    def counts(self) -> dict[int, np.ndarray]:
        """By offset, how often each token stands there, seen from `train_P`; shape (V + 1,)."""
        return self._counted[0]

    @property
    def inside_counts(self) -> np.ndarray:
        """How often each token is a part of a longer word."""
        return self._counted[1]

    @cached_property
    def word_counts(self) -> np.ndarray:
        """How often each word stands there (see `Vocabulary.word_V`), shape (W,)."""
        return np.bincount(self.vocabulary.word_V, weights=self.counts[0])

    @cached_property
    def class_counts(self) -> dict[int, np.ndarray]:
        """By offset, how often a token of each class stands there."""
        return {offset: self.vocabulary.classes_CV @ count_V for offset, count_V in self.counts.items()}

    @cached_property
    def near_share_V(self) -> np.ndarray:
        """For each token the most that its contexts can be of all positions."""
        return np.minimum(1.0, (2 * REACH + 1) * self.counts[0] / max(len(self.train_P), 1))

    # ---- where ----

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in order of their token, and where each token's begin."""
        order = np.argsort(self.token_N, kind="stable").astype(np.uint32)
        count_V = np.bincount(self.token_N, minlength=self.vocabulary.nothing + 1)
        return order, np.concatenate([[0], np.cumsum(count_V)])

    def places(self, tokens: Sequence[int]) -> np.ndarray:
        """All positions of the tokens, ascending."""
        order, start_V = self._order
        parts = [order[start_V[token] : start_V[token + 1]] for token in tokens]
        return np.sort(np.concatenate([np.zeros(0, np.uint32), *parts])).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Around:
    """What stands at and beside some positions; looked up once."""

    position_P: np.ndarray
    text: Text
    _at: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.position_P)

    def take(self, which: np.ndarray) -> "Around":
        """The same for some of the positions, by number or as a mask."""
        return Around(self.position_P[which], self.text, {offset: token[which] for offset, token in self._at.items()})

    def at(self, offset: int) -> np.ndarray:
        """The token so many places on, or `vocabulary.nothing` where the document or the model's block ends."""
        if offset not in self._at:
            self._at[offset] = self._look(offset)
        return self._at[offset]

    def _look(self, offset: int) -> np.ndarray:
        text, there = self.text, self.position_P + offset
        if offset == 0:
            return np.asarray(text.token_N[there])
        there = np.where((there >= 0) & (there < len(text.token_N)), there, self.position_P)
        token = text.token_N[there]
        known = (there != self.position_P) & text.together(self.position_P, there) & (token != text.separator)
        return np.where(known, token, text.vocabulary.nothing)

    @cached_property
    def document(self) -> np.ndarray:
        return np.asarray(self.text.document_N[self.position_P])

    @cached_property
    def inside_word(self) -> np.ndarray:
        """Whether the token is a part of a longer word."""
        joined = self.text.vocabulary.joined
        return np.asarray(joined(self.at(-1), self.at(0)) | joined(self.at(0), self.at(1)))

    def near(self, place: np.ndarray) -> np.ndarray:
        """Whether one of the places (ascending) is within REACH of each position and together with it, but not it itself."""
        found = np.zeros(len(self), dtype=bool)
        if not len(place):
            return found
        left = np.searchsorted(place, self.position_P) - 1
        right = np.searchsorted(place, self.position_P, side="right")
        for at, there in ((left, left >= 0), (right, right < len(place))):
            other = np.where(there, place[np.clip(at, 0, len(place) - 1)], self.position_P)
            close = there & (np.abs(other - self.position_P) <= REACH)
            found |= close & self.text.together(self.position_P, other)
        return found
