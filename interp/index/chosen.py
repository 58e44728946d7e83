"""Some blocks of an index's text: chosen so that given features fire in them, and what fires there.

Axes    N position of the index, B block, T position of a block, P counted position of the chosen blocks, F feature.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_matrix

from interp.index.read import FeatureIndex
from interp.types import InterpError


def choose_blocks(index: FeatureIndex, features: Sequence[int], count: int) -> Int[np.ndarray, " B"]:
    """Numbers of `count` blocks (all, where there are no more), ascending, of those whose text is on this machine.

    Up to half of them hold examples of these features, the first of each, then the second, and so on; the others lie
    evenly over the text.
    """
    readable = readable_blocks(index)
    in_turn = dict.fromkeys(_example_blocks(index, features).tolist())
    chosen = np.array(list(in_turn), dtype=np.int64)
    chosen = chosen[np.isin(chosen, readable)][: count // 2]
    rest = np.setdiff1d(readable, chosen)
    left = min(count - len(chosen), len(rest))
    even = rest[np.linspace(0, len(rest) - 1, left).astype(np.int64)] if left else rest[:0]
    return np.sort(np.concatenate([chosen, even]))


def readable_blocks(index: FeatureIndex) -> Int[np.ndarray, " B"]:
    """Numbers of the whole blocks of which every token is known."""
    whole = len(index.tokens) // index.block * index.block
    return np.flatnonzero(~index.missing[:whole].reshape(-1, index.block).any(1))


def _example_blocks(index: FeatureIndex, features: Sequence[int]) -> Int[np.ndarray, " E"]:
    """The blocks of the features' examples: the first of each, then the second."""
    if not len(features):
        return np.zeros(0, dtype=np.int64)
    wanted = ", ".join(str(int(feature)) for feature in features)
    rows = index.sql(f"SELECT position FROM {{examples}} WHERE feature IN ({wanted}) ORDER BY rank, band, feature")
    return rows["position"].to_numpy().astype(np.int64) // index.block


def block_tokens(index: FeatureIndex, blocks_B: Int[np.ndarray, " B"]) -> Int[np.ndarray, "B T"]:
    """The token ids of these blocks."""
    whole = len(index.tokens) // index.block * index.block
    return index.tokens[:whole].reshape(-1, index.block)[blocks_B].astype(np.int64)


def block_counted(index: FeatureIndex, blocks_B: Int[np.ndarray, " B"]) -> Bool[np.ndarray, "B T"]:
    """Which positions of these blocks count."""
    whole = len(index.kept) // index.block * index.block
    return index.kept[:whole].reshape(-1, index.block)[blocks_B].astype(bool)


def block_activations(
    index: FeatureIndex, blocks_B: Int[np.ndarray, " B"], counted_BT: Bool[np.ndarray, "B T"]
) -> csr_matrix:
    """Activations at the counted positions of these blocks, positions × features.

    Raises InterpError on an index that keeps examples only.
    """
    if index.partial:
        raise InterpError(f"the index in {index.folder} keeps examples only; `interp index SAE` builds the full one.")
    rows = index.sql(
        "SELECT position, feature, CAST(value AS FLOAT) AS value FROM {positions} "
        "WHERE position // ? IN (SELECT unnest(?)) ORDER BY position, feature",
        [index.block, [int(block) for block in blocks_B]],
    )
    position = rows["position"].to_numpy().astype(np.int64)
    place = np.searchsorted(blocks_B, position // index.block) * index.block + position % index.block
    row_of, counted = np.cumsum(counted_BT.ravel()) - 1, counted_BT.ravel()[place]
    entries = (rows["value"].to_numpy()[counted], (row_of[place[counted]], rows["feature"].to_numpy()[counted]))
    return csr_matrix(entries, shape=(int(counted_BT.sum()), index.d_sae))
