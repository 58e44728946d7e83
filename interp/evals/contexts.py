"""Do a feature's contexts mean the same: are they nearer to each other than to contexts of the same tokens where it is silent?

1. The held-out text is cut into windows (`predicates.windows`), one every STRIDE tokens, and each becomes a sentence vector; a position's
   context is the window whose middle is nearest. So every feature is measured with the same few thousand vectors.
2. `pairs` draws firings, a few a document, and for each a *control*: a position of the same token, in the same language, with
   no firing within REACH. Where there is none, any position of the same language and source will do.
3. `nearness` compares, within each pair, how near the two are to the firings' contexts in other documents. Under the null
   the two of a pair could be exchanged (document by document), which gives the permutation p-value.

Axes    W window, E width of a vector, P position, K pair, D draw.
Source  Phipson and Smyth 2010 for the p-value; Reimers and Gurevych 2019 for the vectors.
"""

from dataclasses import dataclass

import numpy as np

from interp.predicates import Text
from interp.predicates.written import REACH
from interp.statistics import permutation_p

PER_DOCUMENT = 3
"""Firings of one document, which are never compared with each other, and are exchanged together."""
PAIRS = 32
"""Firings of a feature that are compared: with them, half of a standard error of a share of wins is .045."""
LEAST_PAIRS, LEAST_DOCUMENTS = 8, 5
DRAWS = 199
"""Of the null: the least p-value is .005."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Firings and their controls, pair by pair."""

    firing_K: np.ndarray
    control_K: np.ndarray
    same_token_K: np.ndarray
    """Whether the control has the firing's own token."""

    def __len__(self) -> int:
        return len(self.firing_K)


def pairs(
    firing_P: np.ndarray, every_P: np.ndarray, pool: "Pool", draw: np.random.Generator, most: int = PAIRS
) -> Pairs:
    """Up to `most` of the firings, PER_DOCUMENT of one document at most and drawn, each with a control that is drawn.

    `every_P` has all of the feature's positions, however weak: controls are out of their reach.
    """
    text = pool.text
    mixed = draw.permutation(firing_P.astype(np.int64))
    document = text.document_N[mixed]
    order = np.argsort(document, kind="stable")
    begins = np.flatnonzero(np.diff(document[order].astype(np.int64), prepend=-1))
    place = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    # The first of each document before any second, so that as many documents as can be are in.
    ranked = order[np.lexsort((order, place))]
    some = mixed[ranked[np.sort(place) < PER_DOCUMENT]][:most]
    found = [pool.control(int(p), every_P, draw) for p in some]
    kept = [(p, control, same) for p, (control, same) in zip(some, found, strict=True) if control >= 0]
    firing, control, same = (np.array(column) for column in zip(*kept, strict=True)) if kept else ([], [], [])
    return Pairs(np.array(firing, np.int64), np.array(control, np.int64), np.array(same, bool))


class Pool:
    """Held-out positions to draw controls from, by token and by kind of document."""

    def __init__(self, text: Text, position_P: np.ndarray) -> None:
        self.text = text
        self.position_P = position_P.astype(np.int64)
        self._token = text.token_N[position_P]
        self._by_token = np.argsort(self._token, kind="stable")
        self._sorted = self._token[self._by_token]
        language, source = text.values["language"][1], text.values["source"][1]
        self._kind_D = (language + 1) * (source.max() + 2) + source + 1
        self._language_D = language
        kind = self._kind_D[text.document_N[position_P]]
        self._by_kind = {int(k): self.position_P[kind == k] for k in np.unique(kind)}

    def control(
        self, position: int, every_P: np.ndarray, draw: np.random.Generator, tries: int = 8
    ) -> tuple[int, bool]:
        """(position, whether it has the same token) of a control that is drawn; (-1, False) where none is found."""
        text, document = self.text, int(self.text.document_N[position])
        low, high = np.searchsorted(self._sorted, [text.token_N[position], int(text.token_N[position]) + 1])
        same = self.position_P[self._by_token[low:high]]
        same = same[self._language_D[text.document_N[same]] == self._language_D[document]]
        for pool, own in ((same, True), (self._by_kind[int(self._kind_D[document])], False)):
            some = pool[draw.integers(0, len(pool), tries * 4)] if len(pool) > tries * 4 else draw.permutation(pool)
            some = some[text.document_N[some] != document]
            if len(some):
                some = some[~_within_reach(some, every_P)]
            if len(some):
                return int(some[0]), own
        return -1, False


def _within_reach(position_P: np.ndarray, every_P: np.ndarray) -> np.ndarray:
    """Whether one of the positions `every_P` (ascending) is within REACH, documents aside."""
    right = np.searchsorted(every_P, position_P - REACH)
    return np.asarray(right < np.searchsorted(every_P, position_P + REACH, side="right"))


@dataclass(frozen=True)
class Nearness:
    """How much nearer a feature's contexts are to each other than to their controls."""

    wins: float
    """Share of pairs in which the firing's context is the nearer one to the other firings' (ties are half)."""
    difference: float
    """Mean difference of the two cosines."""
    p: float
    """Of the difference, when the two of each pair are exchanged at random."""


def nearness(
    firing_KE: np.ndarray, control_KE: np.ndarray, document_K: np.ndarray, draw: np.random.Generator
) -> Nearness:
    """Of pairs of vectors from at least two documents."""
    both = np.stack([firing_KE, control_KE], axis=1)
    cosine = np.einsum("iae,jbe->iajb", both, both, optimize=True)
    _, which_K = np.unique(document_K, return_inverse=True)
    swapped = draw.random((DRAWS + 1, int(which_K.max()) + 1)) < 0.5
    swapped[0] = False
    difference_DK = _differences(cosine, swapped[:, which_K], which_K)
    observed = difference_DK[0]
    ties = np.abs(observed) < 1e-9
    p = permutation_p(float(observed.mean()), difference_DK[1:].mean(1))
    wins = float((observed > 0)[~ties].sum() + 0.5 * ties.sum()) / len(observed)
    return Nearness(wins, float(observed.mean()), float(p))


def _differences(cosine: np.ndarray, swapped_DK: np.ndarray, document_K: np.ndarray) -> np.ndarray:
    """For each draw and pair: mean cosine of the one called firing with those called so in other documents, less that of its
    control."""
    other_KK = document_K[:, None] != document_K
    chosen = np.stack([~swapped_DK, swapped_DK], axis=-1).astype(np.float64)
    to_chosen = np.einsum("iajb,djb->dia", cosine * other_KK[:, None, :, None], chosen, optimize=True)
    to_chosen /= np.maximum(other_KK.sum(1), 1)[None, :, None]
    sign = np.where(swapped_DK, -1.0, 1.0)
    return np.asarray(sign * (to_chosen[..., 0] - to_chosen[..., 1]))
