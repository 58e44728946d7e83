"""At which positions a feature is tried: spread over its activations, above and below its clean level, in documents kept for it.

1.  Positions may be taken where the feature fires, where the token after it is of the same document and block, and where
    all tokens of the block up to there are known.
2.  They are taken from the documents that labels are tested on. Where a feature fires there too seldom, held-out documents
    fill up; documents of the training split never do, and those of the final check are never read.
3.  Where the feature has a clean level, half of them lie above it and half below, as far as there are so many.
4.  Of the firings on each side, from strong to weak, equal stretches give one each, drawn by a seed; a document that has
    not given any is preferred.

Axes    M chosen position, N position of the index, F feature, P firing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.index import FeatureIndex
from interp.progress import bar
from interp.types import InterpError, check_feature

POSITIONS = 16
"""Chosen for each feature at most."""
ABOVE, BELOW, NO_LEVEL = 1, 0, -1
"""What `Chosen.above_M` holds."""
TESTING, _HELDOUT = 2, 1
"""How good it is to try a feature at a position of a testing document, and of a held-out one (`usable`)."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """Positions of an index at which features are to be tried."""

    features: np.ndarray
    """All that were asked for, ascending; those that fire nowhere in such documents have no position."""
    feature_M: np.ndarray
    """Ascending."""
    position_M: np.ndarray
    above_M: np.ndarray
    """ABOVE or BELOW the feature's clean level, or NO_LEVEL."""

    def __post_init__(self) -> None:
        lengths = {len(self.feature_M), len(self.position_M), len(self.above_M)}
        known = np.isin(self.feature_M, self.features).all()
        if len(lengths) != 1 or not known or (np.diff(self.feature_M.astype(np.int64)) < 0).any():
            raise InterpError(
                "the positions are not a feature, a position and a side each, by feature; choose them anew."
            )


def choose_positions(
    index: FeatureIndex, features: Sequence[int] | None = None, *, count: int = POSITIONS, seed: int = 0
) -> Chosen:
    """Up to `count` positions for each feature (all, unless told); see the head of the file.

    Of an index that keeps examples only, those are chosen from. Raises InterpError when there is no such feature, when
    `count` is below 1, and when the index has no testing or held-out documents.
    """
    if count < 1:
        raise InterpError(f"{count} positions a feature cannot be measured; ask for at least 1.")
    asked = range(index.d_sae) if features is None else features
    wanted = np.unique([check_feature(f, index.d_sae, str(index.folder)) for f in asked]).astype(np.int64)
    rank_N = usable(index)
    found = []
    with bar("positions", len(wanted), "features") as step:
        for feature in wanted.tolist():
            found.append(_of_feature(index, feature, rank_N, count, np.random.default_rng([seed, feature])))
            step(1)
    sizes = [len(position) for position, _ in found]
    none = np.zeros(0, dtype=np.int64)
    return Chosen(
        wanted,
        np.repeat(wanted, sizes),
        np.concatenate([none, *(position for position, _ in found)]),
        np.concatenate([none, *(above for _, above in found)]).astype(np.int8),
    )


def usable(index: FeatureIndex) -> np.ndarray:
    """At each position of an index, how good it is to try a feature at: 2 in a testing document, 1 in a held-out one, else 0.

    Raises InterpError when there is none.
    """
    token_N, document_N, block = index.tokens, index.document_at, index.block
    split_D = index.documents["split"].to_numpy()
    rank_D = np.where(split_D == "labels", TESTING, np.where(split_D == "heldout", _HELDOUT, 0))
    place_N = np.arange(len(token_N))
    followed_N = np.zeros(len(token_N), dtype=bool)
    followed_N[:-1] = (document_N[1:] == document_N[:-1]) & (token_N[1:] != index.separator)
    followed_N &= place_N % block != block - 1
    unknown_N = np.cumsum(index.missing)
    start_N = place_N - place_N % block
    before_N = np.where(start_N > 0, unknown_N[np.maximum(start_N - 1, 0)], 0)
    known_N = unknown_N[np.minimum(place_N + 1, len(place_N) - 1)] == before_N
    rank_N = np.where(index.kept & followed_N & known_N, rank_D[document_N], 0)
    if not rank_N.any():
        raise InterpError(
            "the index has no text of the splits labels and heldout with its tokens, in which effects are measured; index "
            "more text."
        )
    return rank_N.astype(np.int8)


def _of_feature(
    index: FeatureIndex, feature: int, rank_N: np.ndarray, count: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(positions, which side of the clean level) of one feature, ascending."""
    position_P, value_P = index.fired(feature)
    position_P = position_P.astype(np.int64)
    rank_P = rank_N[position_P]
    if (rank_P == TESTING).sum() >= count:
        rank_P = np.where(rank_P == TESTING, rank_P, 0)
    some = rank_P > 0
    position_P, value_P, rank_P = position_P[some], value_P[some].astype(np.float64), rank_P[some]
    level = index.clean_above[feature]
    above_P = np.full(len(position_P), NO_LEVEL) if np.isinf(level) else (value_P > level).astype(np.int64)
    document_P = index.document_at[position_P]
    taken: list[int] = []
    for side, quota in _quotas(above_P, count).items():
        of_side = np.flatnonzero(above_P == side)
        testing = of_side[rank_P[of_side] == TESTING]
        left = taken + spread(testing, value_P, document_P, quota, draw, document_P[taken])
        heldout = of_side[rank_P[of_side] == _HELDOUT]
        short = quota - (len(left) - len(taken))
        taken = left + spread(heldout, value_P, document_P, short, draw, document_P[left])
    order = np.sort(np.array(taken, dtype=np.int64))
    return position_P[order], above_P[order]


def _quotas(above_P: np.ndarray, count: int) -> dict[int, int]:
    """How many to take of each side: half and half, and more of one where the other has fewer."""
    if not (above_P != NO_LEVEL).any():
        return {NO_LEVEL: count}
    above, below = int((above_P == ABOVE).sum()), int((above_P == BELOW).sum())
    high = min(above, max(count - count // 2, count - below))
    return {ABOVE: high, BELOW: min(below, count - high)}


def spread(
    of: np.ndarray,
    value_P: np.ndarray,
    document_P: np.ndarray,
    count: int,
    draw: np.random.Generator,
    documents: np.ndarray,
) -> list[int]:
    """`count` of these firings (all, where they are fewer): one of each of so many stretches from strong to weak."""
    falling = of[np.argsort(-value_P[of], kind="stable")]
    used, chosen = set(documents.tolist()), []
    for stretch in np.array_split(falling, max(min(count, len(falling)), 1)) if count > 0 else ():
        tried = draw.permutation(stretch).tolist()
        if tried:
            one = next((i for i in tried if int(document_P[i]) not in used), tried[0])
            used.add(int(document_P[one]))
            chosen.append(int(one))
    return chosen
