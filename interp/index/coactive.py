"""Which features fire together: counts over positions, read at random from the features in order of position.

Axes    N position, F feature, G feature of a chunk.
"""

from typing import Any

import numpy as np

from interp.index.stats import Activations

SAMPLED = 1024
"""Positions of a feature that are looked at, evenly spaced among its own; all of them if it has fewer."""
TOP = 10


def coactive_columns(
    rows: Activations,
    columns: dict[str, Any],
    codes: np.ndarray,
    offset_N: np.ndarray,
    fires_F: np.ndarray,
    kept: int,
) -> dict[str, Any]:
    """For each feature those that fire with it most, by Jaccard index: number, count and lift.

    `codes` holds the features active at position p at offset_N[p] to offset_N[p + 1]. The count is out of
    `coactive_of` sampled positions; the lift is the share of them over the other's density (`kept` positions count).
    """
    ids, counts, lifts, sampled = [], [], [], []
    start = np.concatenate([[0], np.cumsum(columns["fires"])])
    for g, feature in enumerate(columns["feature"]):
        position = rows.position_M[start[g] : start[g + 1]]
        if len(position) > SAMPLED:
            position = position[np.arange(SAMPLED) * len(position) // SAMPLED]
        both_F = count_at(codes, offset_N, position, len(fires_F))
        both_F[feature] = 0
        other = np.flatnonzero(both_F)
        share = both_F[other] / len(position)
        together = share * fires_F[feature]
        jaccard = together / (fires_F[feature] + fires_F[other] - together)
        best = np.lexsort((other, -jaccard))[:TOP]
        ids.append(other[best])
        counts.append(both_F[other[best]])
        lifts.append(share[best] / (fires_F[other[best]] / kept))
        sampled.append(len(position))
    lengths = np.array([len(part) for part in ids])
    return {
        "coactive": (lengths, np.concatenate(ids)),
        "coactive_count": (lengths, np.concatenate(counts)),
        "coactive_lift": (lengths, np.concatenate(lifts)),
        "coactive_of": np.array(sampled),
    }


def count_at(codes: np.ndarray, offset_N: np.ndarray, position: np.ndarray, d_sae: int) -> np.ndarray:
    """At how many of the positions each feature fires."""
    first = offset_N[position]
    length = offset_N[position.astype(np.int64) + 1] - first
    end = np.cumsum(length)
    if not len(end):
        return np.zeros(d_sae, dtype=np.int64)
    at = np.arange(end[-1]) + np.repeat(first - (end - length), length)
    return np.bincount(codes[at], minlength=d_sae)
