"""The project's one interval of a share, bootstrap, permutation p-value and correction for many tests.

Axes    P prompt, S seed, U unit that is drawn (a block of text, a prompt), D draw, F test.

Intervals are 95 %, bootstraps percentile ones of DRAWS draws. What a record of steering holds is compared for equality
when it is replayed, so draws, seeds and the order of sums are part of what these functions promise.
"""

import math
from typing import overload

import numpy as np
from jaxtyping import Float, Shaped

DRAWS = 2_000
"""Of a bootstrap."""
Z = 1.959964
"""Of a two-sided 95 % interval, to the digits that recorded intervals were made with."""
TAILS = 2.5, 97.5
"""Percentiles between which 95 % of a bootstrap's draws lie."""
DRAWN_AT_ONCE = 4_000_000
"""Units that are drawn together, so that a long text takes no more memory than a short one."""
EXACT_FLIPS = 16
"""Units up to which every pattern of signs is tried; of more, FLIPS patterns are drawn."""
FLIPS = 9_999


@overload
def wilson(hits: int, of: int) -> tuple[float, float, float]: ...
@overload
def wilson(hits: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
def wilson(
    hits: int | np.ndarray, of: int | np.ndarray
) -> tuple[float, float, float] | tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share, low, high) of `hits` among `of` (Wilson 1927); of none (nan, 0, 1). Arrays give arrays.

    SciPy's `binomtest(...).proportion_ci(method="wilson")` is the same to seven digits, takes one pair at a time, and has
    another last digit than the intervals in records.
    """
    n = np.asarray(of, dtype=np.float64)
    known = n > 0
    some = np.where(known, n, 1.0)
    share = np.asarray(hits, dtype=np.float64) / some
    centre = share + Z * Z / (2 * some)
    spread = Z * np.sqrt(share * (1 - share) / some + Z * Z / (4 * some * some))
    low, high = (centre - spread) / (1 + Z * Z / some), (centre + spread) / (1 + Z * Z / some)
    made = np.where(known, share, math.nan), np.where(known, low, 0.0), np.where(known, high, 1.0)
    return made if n.ndim else tuple(float(x) for x in made)  # type: ignore[return-value]


def bootstrap(values_PS: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high): prompts are drawn with replacement, then seeds within each; nan cells are left out.

    All three are nan where no cell is finite.
    """
    values = np.asarray(values_PS, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if not np.isfinite(values).any():
        return math.nan, math.nan, math.nan
    draw = np.random.default_rng(seed)
    prompts, seeds = values.shape
    rows = draw.integers(0, prompts, (DRAWS, prompts, 1))
    columns = draw.integers(0, seeds, (DRAWS, prompts, seeds))
    means = _means(values[rows, columns].reshape(DRAWS, -1))
    low, high = np.nanpercentile(means, TAILS)
    return float(_means(values.reshape(1, -1))[0]), float(low), float(high)


def _means(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    count = known.sum(1)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def bootstrap_ratio(
    numerator_U: Shaped[np.ndarray, " U"], denominator_U: Shaped[np.ndarray, " U"], seed: int = 0
) -> tuple[float, float] | None:
    """(low, high) of a ratio of two sums over units; None for a single unit, and for a ratio to nothing."""
    count = len(numerator_U)
    if count < 2 or not denominator_U.sum() > 0:
        return None
    draw, ratios = np.random.default_rng(seed), []
    step = max(DRAWN_AT_ONCE // count, 1)
    for start in range(0, DRAWS, step):
        rows = draw.integers(0, count, (min(step, DRAWS - start), count))
        ratios.append(numerator_U[rows].sum(1) / np.maximum(denominator_U[rows].sum(1), 1e-300))
    low, high = np.percentile(np.concatenate(ratios), TAILS)
    return float(low), float(high)


def bootstrap_median(
    value_N: Shaped[np.ndarray, " N"], unit_N: Shaped[np.ndarray, " N"], seed: int = 0
) -> tuple[float, float] | None:
    """(low, high) of the median of values that belong to units numbered from 0, which are drawn; None for a single unit."""
    count = int(unit_N.max()) + 1 if len(unit_N) else 0
    if count < 2:
        return None
    draw, medians = np.random.default_rng(seed), []
    order = np.argsort(value_N, kind="stable")
    sorted_N, unit_N = value_N[order], unit_N[order]
    step = max(DRAWN_AT_ONCE // len(value_N), 1)
    for start in range(0, DRAWS, step):
        times_DU = draw.multinomial(count, np.full(count, 1 / count), min(step, DRAWS - start))
        below_DN = np.cumsum(times_DU[:, unit_N], axis=1, dtype=np.int64)
        middle_D = np.argmax(2 * below_DN >= below_DN[:, -1:], axis=1)
        medians.append(sorted_N[middle_D])
    low, high = np.percentile(np.concatenate(medians), TAILS)
    return float(low), float(high)


def bootstrap_difference(
    one_U: tuple[Shaped[np.ndarray, " U"], Shaped[np.ndarray, " U"]],
    other_V: tuple[Shaped[np.ndarray, " V"], Shaped[np.ndarray, " V"]],
    *,
    paired: bool,
    seed: int = 0,
) -> tuple[float, float] | None:
    """(low, high) of the difference of two ratios of sums, other less one, each given as (numerators, denominators).

    `paired`: unit by unit the same ones, which are drawn together; else each side is drawn for itself. None where a side
    has a single unit or nothing to divide by.
    """
    if min(len(one_U[0]), len(other_V[0])) < 2 or not one_U[1].sum() > 0 or not other_V[1].sum() > 0:
        return None
    assert not paired or len(one_U[0]) == len(other_V[0])
    draw, differences = np.random.default_rng(seed), []

    def ratio(side: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
        return np.asarray(side[0][rows].sum(1) / np.maximum(side[1][rows].sum(1), 1e-300))

    step = max(DRAWN_AT_ONCE // max(len(one_U[0]), len(other_V[0])), 1)
    for start in range(0, DRAWS, step):
        size = min(step, DRAWS - start)
        rows = draw.integers(0, len(one_U[0]), (size, len(one_U[0])))
        others = rows if paired else draw.integers(0, len(other_V[0]), (size, len(other_V[0])))
        differences.append(ratio(other_V, others) - ratio(one_U, rows))
    low, high = np.percentile(np.concatenate(differences), TAILS)
    return float(low), float(high)


@overload
def permutation_p(observed: float, null_D: Shaped[np.ndarray, " D"]) -> float: ...
@overload
def permutation_p(observed: np.ndarray, null_D: np.ndarray) -> np.ndarray: ...
def permutation_p(observed: float | np.ndarray, null_D: np.ndarray) -> float | np.ndarray:
    """The chance that something exchangeable with the null's draws is as large as `observed`: never 0.

    (1 + draws that reach it) / (1 + draws), one-sided (Phipson and Smyth 2010). An array of F statistics takes a null of
    shape (D, F). Where two samples are to be shuffled, SciPy's `permutation_test` does it, and gives this p-value.
    """
    reached = (np.asarray(null_D) >= np.asarray(observed)).sum(0)
    p = (1 + reached) / (1 + len(null_D))
    return p if np.ndim(observed) else float(p)


def bootstrap_means(
    values_FU: Float[np.ndarray, "F U"], seed: int = 0
) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"]]:
    """(low, high) of the mean of each row over its units, the same draws for all rows; nan of a single unit."""
    tests, count = values_FU.shape
    if count < 2:
        return np.full(tests, math.nan), np.full(tests, math.nan)
    share_DU = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS) / count
    low_F, high_F = np.empty(tests), np.empty(tests)
    step = max(DRAWN_AT_ONCE // DRAWS, 1)
    for start in range(0, tests, step):
        rows = slice(start, start + step)
        low_F[rows], high_F[rows] = np.percentile(share_DU @ values_FU[rows].T, TAILS, axis=0)
    return low_F, high_F


def sign_flip_p(difference_FU: Float[np.ndarray, "F U"], seed: int = 0) -> Float[np.ndarray, " F"]:
    """By row, the chance that differences whose signs are arbitrary have a sum as large as theirs: one-sided, never 0.

    The paired test by randomisation: were nothing different, each unit's difference would be as likely of the other sign
    (Fisher 1935). Up to EXACT_FLIPS units all patterns are tried, so that p is at least 2^-U; of more, FLIPS are drawn.
    """
    tests, count = difference_FU.shape
    exact = count <= EXACT_FLIPS
    if exact:
        sign_NU = 1.0 - 2.0 * ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1)
    else:
        sign_NU = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (FLIPS, count))
    p_F = np.empty(tests)
    step = max(DRAWN_AT_ONCE // len(sign_NU), 1)
    for start in range(0, tests, step):
        some_FU = difference_FU[start : start + step].astype(np.float64)
        # A pattern that ties must be counted, whichever way its sum was rounded.
        least_F = some_FU.sum(1) - 1e-12 * np.abs(some_FU).sum(1)
        reached_F = (sign_NU @ some_FU.T >= least_F).sum(0)
        p_F[start : start + step] = (reached_F + (not exact)) / (len(sign_NU) + (not exact))
    return p_F


def benjamini_hochberg(p_F: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    """The q-value of each test: the smallest false discovery rate at which it is called (SciPy's). A p of nan is 1."""
    from scipy.stats import false_discovery_control

    q_F: np.ndarray = false_discovery_control(np.nan_to_num(p_F, nan=1.0))
    return q_F
