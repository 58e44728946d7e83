"""What a language model is shown of a feature: stretches of text with one token marked, from documents of given splits only.

    firings          strong, middle and weak ones (PARTS: from which bands, and how many), one a document
    counterexamples  where the feature is silent although it might fire: its tokens elsewhere, and where its nearest features fire

Text that may not be passed on is left out, unless whoever asks says that it may be sent. Of an index that keeps examples only, no
position is known to be silent, and there are no counterexamples.

Axes    M firing, P position, N position of the text, D document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from interp.index import FeatureIndex
from interp.predicates.written import REACH

PARTS = {"strong": ((0.0, 0.05), 5), "middle": ((0.25, 0.6), 3), "weak": ((0.7, 1.0), 2)}
"""Which firings, ranked from the strongest down as shares, and how many of them are shown."""
BANDS = {"strong": (0,), "middle": (2, 3), "weak": (4, 5)}
"""The same of an index that keeps examples only, by `Example.band`."""
SAME_TOKEN, NEAREST = 4, 3
"""Counterexamples of each kind."""
SIDE = 12
"""Tokens shown on either side."""
MARKS = "<<", ">>"
TRIES = 400
"""Positions that are looked at for one that is silent."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One stretch of text."""

    position: int
    kind: str
    """strong, middle, weak; same token, nearest, random."""
    text: str
    """With its token between MARKS."""
    strength: float = 0.0
    """Of the feature's largest activation, 0 where it is silent."""

    @property
    def fires(self) -> bool:
        return self.strength > 0


@dataclass(eq=False)
class Examples:
    """Stretches of an index's text, for features of it."""

    index: FeatureIndex
    splits: Sequence[str]
    send_withheld: bool = False
    seed: int = 0
    left_out: set[int] = field(default_factory=set)
    """Positions that might have been shown and may not be passed on."""

    @cached_property
    def _may_D(self) -> tuple[np.ndarray, np.ndarray]:
        """For each document: whether it is of the splits, and whether it may be sent."""
        documents = self.index.documents
        split_D = documents["split"].isin(list(self.splits)).to_numpy(dtype=bool)
        return split_D, documents["passes_on"].to_numpy(dtype=bool) | self.send_withheld

    @cached_property
    def _usable_N(self) -> np.ndarray:
        """Positions that count, of documents that may be shown."""
        split_D, sent_D = self._may_D
        return np.asarray((self.index.kept & ~self.index.missing) & (split_D & sent_D)[self.index.document_at])

    @cached_property
    def _usable_P(self) -> np.ndarray:
        return np.flatnonzero(self._usable_N)

    @cached_property
    def _by_token(self) -> tuple[np.ndarray, np.ndarray]:
        """Usable positions in order of their token, and those tokens."""
        token_P = self.index.tokens[self._usable_P]
        order = np.argsort(token_P, kind="stable")
        return self._usable_P[order], token_P[order]

    def allowed(self, position_M: np.ndarray) -> np.ndarray:
        """Which of a feature's positions may be shown; those that may not be passed on are noted."""
        split_D, sent_D = self._may_D
        document_M = self.index.document_at[position_M]
        inside = split_D[document_M] & ~self.index.missing[position_M] & self.index.kept[position_M]
        self.left_out.update(position_M[inside & ~sent_D[document_M]].tolist())
        return np.asarray(inside & sent_D[document_M])

    # ---- where it fires ----

    def firings(self, feature: int, times: int = 1) -> list[Shown]:
        """So many times the firings of PARTS, strongest first, one a document as far as there are documents."""
        found: list[Shown] = []
        used: set[int] = set()
        taken: list[int] = []
        most = float(self.index.features["max"].iloc[feature])
        for kind, (position_M, value_M) in self._parts(feature).items():
            count = PARTS[kind][1] * times
            new_M = ~np.isin(position_M, taken)  # of few firings the parts overlap
            position_M, value_M = position_M[new_M], value_M[new_M]
            for place in _one_a_document(self.index.document_at[position_M], used, count):
                position = int(position_M[place])
                taken.append(position)
                strength = min(float(value_M[place]) / most, 1.0) if most > 0 else 1.0
                found.append(Shown(position=position, kind=kind, text=self.marked(position), strength=strength))
        return found

    def _parts(self, feature: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(positions, values) of each of PARTS, in the order in which they are taken."""
        if self.index.partial:
            return self._kept_parts(feature)
        position, value = self.index.fired(feature)
        position_M, value_M = position.astype(np.int64), value.astype(np.float64)
        allowed_M = self.allowed(position_M)
        position_M, value_M = position_M[allowed_M], value_M[allowed_M]
        order = np.lexsort((position_M, -value_M))
        draw = np.random.default_rng([self.seed, 2, feature])
        found = {}
        for kind, ((low, high), count) in PARTS.items():
            first, last = int(low * len(order)), max(int(high * len(order)), int(low * len(order)) + count)
            part = order[first:last] if kind == "strong" else draw.permutation(order[first:last])
            found[kind] = position_M[part], value_M[part]
        return found

    def _kept_parts(self, feature: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        shown = self.index.examples(feature, window=1)
        position_M = np.array([one.position for one in shown], dtype=np.int64)
        allowed_M = self.allowed(position_M) if len(shown) else np.zeros(0, dtype=bool)
        good = [one for one, allowed in zip(shown, allowed_M, strict=True) if allowed]
        return {
            kind: (
                np.array([one.position for one in good if one.band in bands], dtype=np.int64),
                np.array([one.value for one in good if one.band in bands], dtype=np.float64),
            )
            for kind, bands in BANDS.items()
        }

    # ---- where it is silent ----

    def silent(self, feature: int, firings: Sequence[Shown], times: int = 1) -> list[Shown]:
        """Counterexamples that are hard to tell; none of an index that keeps examples only."""
        if self.index.partial:
            return []
        draw = np.random.default_rng([self.seed, 3, feature])
        ever_P = self.index.fired(feature)[0].astype(np.int64)
        nearest = [int(other) for other in self.index.row(feature)["nearest"]]
        same = self._take("same token", self._same_token(firings, draw), ever_P, SAME_TOKEN * times, at_all=False)
        near = self._take("nearest", self._of_nearest(nearest, draw), ever_P, NEAREST * times, at_all=True)
        return [*same, *near]

    def random(self, feature: int, count: int) -> list[Shown]:
        """Positions drawn from all, the feature silent around them; none of an index that keeps examples only."""
        if self.index.partial or not len(self._usable_P):
            return []
        draw = np.random.default_rng([self.seed, 4, feature])
        some = iter(self._usable_P[draw.integers(0, len(self._usable_P), TRIES)].tolist())
        return self._take("random", some, self.index.fired(feature)[0].astype(np.int64), count, at_all=True)

    def _same_token(self, firings: Sequence[Shown], draw: np.random.Generator) -> Iterator[int]:
        position_P, token_P = self._by_token
        tokens = [int(self.index.tokens[one.position]) for one in firings]
        ranges = {token: np.searchsorted(token_P, [token, token + 1]) for token in dict.fromkeys(tokens)}
        for _ in range(TRIES // max(len(tokens), 1) + 1):
            for token in tokens:
                low, high = ranges[token]
                if high > low:
                    yield int(position_P[int(draw.integers(low, high))])

    def _of_nearest(self, nearest: Sequence[int], draw: np.random.Generator) -> Iterator[int]:
        """Strong firings of the nearest features, a few of each."""
        for other in nearest:
            position, value = self.index.fired(other)
            allowed_M = self.allowed(position.astype(np.int64))
            strong = np.argsort(-value[allowed_M].astype(np.float64), kind="stable")[:64]
            for place in draw.permutation(position[allowed_M][strong])[:4]:
                yield int(place)

    def _take(
        self, kind: str, positions: Iterator[int], ever_P: np.ndarray, count: int, *, at_all: bool
    ) -> list[Shown]:
        """The first so many at which the feature is silent (`at_all`: nor does it fire within what is shown), of distinct documents."""
        found: list[Shown] = []
        used: set[int] = set()
        for position in positions:
            document = int(self.index.document_at[position])
            reach = REACH if at_all else 0
            low, high = np.searchsorted(ever_P, [position - reach, position + reach + 1])
            if low == high and document not in used:
                used.add(document)
                found.append(Shown(position=position, kind=kind, text=self.marked(position)))
            if len(found) == count:
                break
        return found

    # ---- as text ----

    def marked(self, position: int) -> str:
        """The text around a position on one line, with its token marked."""
        low, high = self.index.stretch(position, SIDE)
        tokens = self.index.text(self.index.tokens[low:high])
        token = tokens[position - low]
        inner = token.lstrip(" ")
        tokens[position - low] = f"{token[: len(token) - len(inner)]}{MARKS[0]}{inner or token}{MARKS[1]}"
        return "".join(tokens).replace("\r", "").replace("\n", "⏎").strip()


def _one_a_document(document_M: np.ndarray, used: set[int], count: int) -> list[int]:
    """Numbers of the first so many of documents that are not used yet; of used ones where there are too few."""
    chosen: list[int] = []
    again: list[int] = []
    for place, document in enumerate(document_M.tolist()):
        if len(chosen) == count:
            break
        if document in used:
            again.append(place)
        else:
            used.add(document)
            chosen.append(place)
    return [*chosen, *again[: count - len(chosen)]]
