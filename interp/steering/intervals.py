"""95 % intervals: bootstraps over prompts and seeds, and Wilson's for shares.

Axes    P prompt, S seed, D draw.
"""

import math

import numpy as np

DRAWS = 2_000
Z = 1.959964


def bootstrap(values_PS: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): prompts are drawn with replacement, then seeds within each; nan cells are left out."""
    values = np.asarray(values_PS, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if not np.isfinite(values).any():
        return math.nan, math.nan, math.nan
    draw = np.random.default_rng(seed)
    prompts, seeds = values.shape
    rows = draw.integers(0, prompts, (DRAWS, prompts, 1))
    columns = draw.integers(0, seeds, (DRAWS, prompts, seeds))
    means = _means(values[rows, columns].reshape(DRAWS, -1))
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(_means(values.reshape(1, -1))[0]), float(low), float(high)


def _means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    count = known.sum(1)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def wilson(hits: int, of: int) -> tuple[float, float, float]:
    """(share, low, high) of `hits` among `of` (Wilson 1927)."""
    if of == 0:
        return math.nan, 0.0, 1.0
    share = hits / of
    centre = share + Z * Z / (2 * of)
    spread = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    return share, (centre - spread) / (1 + Z * Z / of), (centre + spread) / (1 + Z * Z / of)
