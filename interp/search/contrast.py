"""Which features separate two sets of texts: effect size, AUROC, Mann–Whitney p-value, Benjamini–Hochberg q.

Axes    A text of the first set, B text of the second, F feature.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from interp.corpus import read_texts, second_set
from interp.search.query import Term
from interp.statistics import benjamini_hochberg
from interp.types import InterpError

LARGEST = 1000
"""Texts of a set that are read: those with the smallest SHA-256, so that the choice is fixed and no one's."""
POOL = 20_000
"""Texts of a corpus among which they are chosen."""
TOKENS = 64
"""Tokens of a text that are read."""


@dataclass(frozen=True)
class Contrast:
    """A row of figures a feature; features active on no text have AUROC .5 and p 1."""

    auroc_F: np.ndarray
    """Chance that a text of the first set has the larger maximum; ties count half."""
    effect_F: np.ndarray
    """Difference of mean maxima, in pooled standard deviations (Cohen's d); infinite where neither set varies."""
    p_F: np.ndarray
    q_F: np.ndarray
    """Over all features of the dictionary."""
    sizes: tuple[int, int]


def contrast(first_AF: np.ndarray, second_BF: np.ndarray) -> Contrast:
    """The figures of each feature from its largest activation on each text."""
    from scipy import stats

    sizes = len(first_AF), len(second_BF)
    auroc_F, effect_F, p_F = np.full(first_AF.shape[1], 0.5), np.zeros(first_AF.shape[1]), np.ones(first_AF.shape[1])
    live = np.flatnonzero(first_AF.any(0) | second_BF.any(0))
    for part in np.array_split(live, max(len(live) // 1024, 1)):
        a, b = first_AF[:, part].astype(np.float64), second_BF[:, part].astype(np.float64)
        if not len(part):
            continue
        test = stats.mannwhitneyu(a, b, axis=0, method="asymptotic")
        auroc_F[part], p_F[part] = test.statistic / (sizes[0] * sizes[1]), test.pvalue
        pooled = ((sizes[0] - 1) * a.var(0, ddof=1) + (sizes[1] - 1) * b.var(0, ddof=1)) / (sum(sizes) - 2)
        apart, spread = a.mean(0) - b.mean(0), np.sqrt(pooled)
        varies = spread > 1e-9 * (a.mean(0) + b.mean(0))  # beyond rounding; activations are not negative
        effect_F[part] = np.where(varies, apart / np.where(varies, spread, 1.0), np.copysign(np.inf, apart))
        effect_F[part] = np.where(apart == 0, 0.0, effect_F[part])
    p_F = np.nan_to_num(p_F, nan=1.0)
    return Contrast(auroc_F, effect_F, p_F, benjamini_hochberg(p_F), sizes)


def sets(term: Term) -> tuple[list[str], list[str]]:
    """The two sets of texts that a `contrast:` names; InterpError when there are not two different ones."""
    parts = [part.strip() for part in term.value.split(",") if part.strip()]
    if len(parts) != 2:
        raise InterpError(
            f"contrast:{term.value} names {len(parts)} set(s) of texts (at character {term.at}); write contrast:A,B."
        )
    first, second = parts[0], second_set(*parts)
    found = texts(first), texts(second)
    shared = set(found[0]) & set(found[1])
    if shared:
        raise InterpError(f"{first} and {second} have {len(shared)} text(s) in common; contrast two different sets.")
    for name, these in zip((first, second), found, strict=True):
        if len(these) < 5:
            raise InterpError(f"{name} has {len(these)} text(s); a contrast needs at least 5 in each set.")
    return found


def texts(name: str) -> list[str]:
    """The texts of a set (see `corpus.open_texts`), at most LARGEST."""
    seen: set[str] = set()
    for number, text in enumerate(read_texts(name)):
        if number >= POOL and len(seen) >= LARGEST:
            break
        seen.add(text.strip())
    return sorted(seen, key=lambda text: hashlib.sha256(text.encode()).digest())[:LARGEST]


def smallest_p(sizes: tuple[int, int]) -> float:
    """The p-value of a feature that is active on every text of one set, equally, and on none of the other: the test has
    none smaller."""
    from scipy import stats

    return float(stats.mannwhitneyu(np.ones(sizes[0]), np.zeros(sizes[1]), method="asymptotic").pvalue)


def warning(sizes: tuple[int, int], d_sae: int, q: float) -> str:
    """What sets so small cannot show; empty when one feature alone may reach the q-value."""
    together = math.ceil(smallest_p(sizes) * d_sae / q)
    if together <= 1:
        return ""
    needed = next(n for n in range(5, LARGEST) if smallest_p((n, n)) * d_sae <= q)
    return (
        f"with {sizes[0]} and {sizes[1]} texts no single feature can pass: the smallest p there is, "
        f"{smallest_p(sizes):.1e}, reaches q ≤ {q:g} over {d_sae:,} features only where {together:,} of them "
        f"separate the sets without exception; give at least {needed} texts in each set."
    )
