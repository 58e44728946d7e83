"""How often each feature fires on each of some tokens; `FeatureIndex.fires_on` adds tokens up."""

import numpy as np
from jaxtyping import Int

from interp.index.read import FeatureIndex
from interp.types import InterpError


def fires_on_each(index: FeatureIndex, tokens_W: Int[np.ndarray, " W"]) -> Int[np.ndarray, "W F"]:
    """Counts over the index's text, exact.

    Raises InterpError on an index that keeps examples only.
    """
    if index.partial:
        raise InterpError(f"the index in {index.folder} keeps examples only; `interp index SAE` builds the full one.")
    feature, start, token_P, count_P, _ = index._pairs
    place_V = np.full(len(index.vocabulary), -1)
    place_V[tokens_W] = np.arange(len(tokens_W))
    feature_P = np.repeat(feature, np.diff(np.append(start, len(token_P))))
    mine_P = place_V[token_P] >= 0
    out = np.zeros((len(tokens_W), index.d_sae), dtype=np.int64)
    out[place_V[token_P[mine_P]], feature_P[mine_P]] = count_P[mine_P]
    return out
