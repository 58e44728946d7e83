"""A feature's statistics, examples and tokens from its activations; many features at a time.

Axes    M activation, sorted by (feature, position); G feature with at least one; R run of a feature in one document.

All of it is exact: values are float32 as encoded, sums float64. `tests/test_index.py` has the slow, obvious twin.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from interp.index.format import WINDOW

BINS = 50
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
TOP_TOKENS = 20
TOP_EXAMPLES = 20
BANDS, PER_BAND = 5, 5
LOW32 = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class Near:
    """Which activations an index of examples keeps: those of an example's stretch of positions, and of as many before and after."""

    stretch: int = WINDOW
    """Positions, in whole multiples of it."""
    sides: int = 1

    @staticmethod
    def of(kind: str, block: int) -> "Near":
        """Of text and sound a window; of pictures and items, which are seen whole, all of one (which is a block)."""
        return Near(block, 0) if kind in ("pictures", "numbers") else Near()

    def wanted(self, feature_E: np.ndarray, position_E: np.ndarray) -> np.ndarray:
        """(feature, stretch) of these examples, as one number each, ascending."""
        at = (feature_E.astype(np.int64) << 32) + position_E.astype(np.int64) // self.stretch
        return np.unique(np.concatenate([at + step for step in range(-self.sides, self.sides + 1)]))

    def keys(self, feature_M: np.ndarray, position_M: np.ndarray) -> np.ndarray:
        """(feature, stretch) of activations."""
        return (feature_M.astype(np.int64) << 32) + position_M // self.stretch


AROUND = Near()


@dataclass(frozen=True)
class Activations:
    """Activations of some features, all of each, sorted by (feature, position)."""

    feature_M: np.ndarray
    position_M: np.ndarray
    value_M: np.ndarray

    def __len__(self) -> int:
        return len(self.feature_M)

    def slice(self, start: int, stop: int) -> "Activations":
        return Activations(self.feature_M[start:stop], self.position_M[start:stop], self.value_M[start:stop])

    @staticmethod
    def join(parts: "list[Activations]") -> "Activations":
        columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("feature_M", "position_M", "value_M"))
        return Activations(*columns)


@dataclass(frozen=True)
class FeatureStatistics:
    """What a chunk of features gave."""

    columns: dict[str, Any]
    """By statistic: an array with a row a feature, or a list column as (lengths, flat values)."""
    pairs: pa.Table
    examples: pa.Table
    near_M: np.ndarray
    """True where an activation is in the window of one of its feature's examples."""


def whole_features(batches: Iterable[Any], at_least: int = 1 << 20) -> Iterator[Activations]:
    """The sorted rows in chunks of at least `at_least` (the last may be less), each feature in one chunk only."""
    held: list[Activations] = []
    for batch in batches:
        columns = (batch[name].to_numpy(zero_copy_only=False) for name in ("feature", "position", "value"))
        held.append(Activations(*columns))
        if sum(map(len, held)) < at_least:
            continue
        rows = Activations.join(held)
        cut = int(np.searchsorted(rows.feature_M, rows.feature_M[-1]))
        held = [rows.slice(cut, len(rows))]
        if cut:
            yield rows.slice(0, cut)
    if sum(map(len, held)):
        yield Activations.join(held)


def measure(rows: Activations, token_N: np.ndarray, document_N: np.ndarray, near: Near = AROUND) -> FeatureStatistics:
    """The statistics of the features in `rows`; `token_N` and `document_N` belong to every position of the index."""
    start_G = _runs(rows.feature_M)
    count_G = np.diff(start_G, append=len(rows))
    local_M = np.repeat(np.arange(len(start_G)), count_G)
    value_M = rows.value_M.astype(np.float64)
    columns: dict[str, Any] = {
        "feature": rows.feature_M[start_G],
        "fires": count_G,
        "total": np.add.reduceat(value_M, start_G),
        "max": np.maximum.reduceat(rows.value_M, start_G),
    }
    columns["quantiles"] = _quantiles(rows.value_M, local_M, start_G, count_G)
    columns["histogram"] = _histogram(value_M, local_M, columns["max"])
    tokens, pairs = _tokens(rows, value_M, local_M, token_N)
    found, examples, near_M = _examples(rows, local_M, document_N, near)
    columns["near"] = np.add.reduceat(near_M, start_G, dtype=np.int64)
    return FeatureStatistics(columns | tokens | found, pairs, examples, near_M)


def _runs(*keys: np.ndarray) -> np.ndarray:
    """Where a new value of any of the keys begins."""
    changed = np.zeros(len(keys[0]), dtype=bool)
    changed[:1] = True
    for key in keys:
        changed[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changed)


def _place(group: np.ndarray) -> np.ndarray:
    """Rank of each entry in its group; groups stand together."""
    starts = _runs(group)
    return np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))


def _quantiles(value_M: np.ndarray, local_M: np.ndarray, start_G: np.ndarray, count_G: np.ndarray) -> np.ndarray:
    """QUANTILES of each feature's values, interpolated linearly (numpy's default); shape (G, 6)."""
    # Positive floats are ordered as their bits are: one sort of integers sorts every feature's values.
    key = np.sort((local_M << 32) | value_M.view(np.int32))
    ordered = (key & LOW32).astype(np.int32).view(np.float32)
    at = np.asarray(QUANTILES) * (count_G[:, None] - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, count_G[:, None] - 1)
    a, b = ordered[start_G[:, None] + low].astype(np.float64), ordered[start_G[:, None] + high].astype(np.float64)
    return (a + (b - a) * (at - low)).astype(np.float32)


def _histogram(value_M: np.ndarray, local_M: np.ndarray, max_G: np.ndarray) -> np.ndarray:
    """Counts in BINS equal bins from 0 to the feature's maximum; bin i holds i <= BINS value / max < i + 1."""
    bins = np.minimum((BINS * value_M / max_G.astype(np.float64)[local_M]).astype(np.int64), BINS - 1)
    counts = np.bincount(local_M * BINS + bins, minlength=len(max_G) * BINS)
    return counts.reshape(-1, BINS).astype(np.uint32)


def _tokens(
    rows: Activations, value_M: np.ndarray, local_M: np.ndarray, token_N: np.ndarray
) -> tuple[dict[str, Any], pa.Table]:
    """Entropy and the strongest tokens of each feature, by total activation; and every (feature, token, count)."""
    key = (local_M << 32) | token_N[rows.position_M].astype(np.int64)
    order = np.argsort(key)
    key = key[order]
    start_P = _runs(key)
    n_P = np.diff(start_P, append=len(key))
    total_P = np.add.reduceat(value_M[order], start_P)
    local_P, token_P = key[start_P] >> 32, (key[start_P] & LOW32).astype(np.uint32)
    start_G = _runs(local_P)
    share_P = n_P / np.repeat(np.add.reduceat(n_P, start_G), np.diff(start_G, append=len(n_P)))
    ranked = np.lexsort((token_P, -total_P, local_P))
    top = ranked[_place(local_P[ranked]) < TOP_TOKENS]
    lengths = np.bincount(local_P[top], minlength=len(start_G))
    columns = {
        "token_entropy": -np.add.reduceat(share_P * np.log(share_P), start_G),
        "top_tokens": (lengths, token_P[top]),
        "top_token_counts": (lengths, n_P[top].astype(np.uint32)),
    }
    feature_P = rows.feature_M[_runs(local_M)][local_P]
    pairs = pa.table({"feature": feature_P.astype(np.uint32), "token": token_P, "count": n_P.astype(np.uint32)})
    return columns, pairs


def _examples(
    rows: Activations, local_M: np.ndarray, document_N: np.ndarray, near: Near
) -> tuple[dict[str, Any], pa.Table, np.ndarray]:
    """The strongest position in each document is a candidate; kept are the top and a few of each fifth.

    Within a fifth, those with the smallest hash of the position are kept: the same every time, and no one's choice.
    """
    document_M = document_N[rows.position_M]
    start_R = _runs(local_M, document_M)
    local_R, peak_R = local_M[start_R], np.maximum.reduceat(rows.value_M, start_R)
    run_M = np.repeat(np.arange(len(start_R)), np.diff(start_R, append=len(rows)))
    at_peak = np.flatnonzero(rows.value_M == peak_R[run_M])
    position_R = rows.position_M[at_peak[_runs(run_M[at_peak])]]  # the first of equals

    order = np.lexsort((position_R, -peak_R, local_R))
    local_R, peak_R, position_R = local_R[order], peak_R[order], position_R[order]
    rank_R = _place(local_R)
    documents_G = np.bincount(local_R)
    band_R = _band(rank_R, documents_G[local_R])
    top = rank_R < TOP_EXAMPLES
    kept = np.flatnonzero(~top)
    kept = kept[np.lexsort((_hash(position_R[kept]), band_R[kept], local_R[kept]))]
    place = _place(local_R[kept] * (BANDS + 1) + band_R[kept])
    kept, place = kept[place < PER_BAND], place[place < PER_BAND]

    chosen = np.concatenate([np.flatnonzero(top), kept])
    band = np.concatenate([np.zeros(int(top.sum()), dtype=np.int64), band_R[kept]])
    rank = np.concatenate([rank_R[top], place]) + 1
    local, position, value = local_R[chosen], position_R[chosen], peak_R[chosen]
    sort = np.lexsort((rank, band, local))
    feature_G = rows.feature_M[_runs(local_M)]
    table = pa.table(
        {
            "feature": feature_G[local[sort]].astype(np.uint32),
            "band": band[sort].astype(np.uint8),
            "rank": rank[sort].astype(np.uint8),
            "position": position[sort].astype(np.uint32),
            "value": pa.array(value[sort].astype(np.float16)),
        }
    )
    first_G = np.cumsum(documents_G) - documents_G
    edge = np.ceil(np.arange(BANDS + 1) * documents_G[:, None] / BANDS).astype(np.int64)
    edges = peak_R[first_G[:, None] + np.minimum(edge, documents_G[:, None] - 1)]
    near_M = _near(rows, local_M, local, position, near)
    return {"documents": documents_G, "band_edges": edges}, table, near_M


def _band(rank: np.ndarray, count: np.ndarray) -> np.ndarray:
    """1 to BANDS: which fifth of `count` documents a rank is in (edges rounded up)."""
    return np.minimum(rank * BANDS // np.maximum(count, 1) + 1, BANDS)


def _hash(position: np.ndarray) -> np.ndarray:
    """A fixed scramble of integers (the finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    x = position.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _near(rows: Activations, local_M: np.ndarray, local: np.ndarray, position: np.ndarray, near: Near) -> np.ndarray:
    """Which activations are near an example of their own feature."""
    wanted, key_M = near.wanted(local, position), near.keys(local_M, rows.position_M)
    edges = np.zeros(len(rows) + 1, dtype=np.int64)
    np.add.at(edges, np.searchsorted(key_M, wanted), 1)
    np.add.at(edges, np.searchsorted(key_M, wanted, side="right"), -1)
    return np.cumsum(edges[:-1]) > 0
