"""Which folder of pictures or clips a feature prefers: what stands in for the topics of texts, where names of patches say only where.

1.  The items of a feature's examples, at most MOST, the strongest first and each once, are dealt in turn to two halves.
2.  On the first half that folder is chosen, of all above its items, whose share there exceeds its share of all items the most.
3.  On the second half it is counted. A feature scores by how far the lower end of that share (Wilson, 95 %) lies above the share of all.
4.  Of the features that prefer the same folder the best is left.

Axes    F feature.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from interp.index import FeatureIndex
from interp.statistics import wilson

LEAST = 4
"""Items that the second half must have."""
MOST = 16


def preferred(index: FeatureIndex) -> tuple[np.ndarray, Callable[[int], str]]:
    """(score of each feature, above 0 for that one which prefers a folder the most; the sentence that says which, and by what count)."""
    above = [_above(str(title)) for title in index.documents["title"]]
    share = {folder: count / len(above) for folder, count in Counter(f for each in above for f in each).items()}
    score_F = np.zeros(len(index.features))
    found: dict[int, tuple[str, int, int]] = {}
    for feature in range(len(score_F)):
        items = _items(index, feature)
        chosen, tried = items[::2], items[1::2]
        if len(tried) < LEAST:
            continue
        more = {f: n / len(chosen) - share[f] for f, n in Counter(f for each in chosen for f in above[each]).items()}
        if not more:
            continue
        folder = max(sorted(more), key=more.__getitem__)
        hits = sum(folder in above[each] for each in tried)
        score_F[feature] = max(0.0, wilson(hits, len(tried))[1] - share[folder])
        found[feature] = folder, hits, len(tried)

    def sentence(feature: int) -> str:
        folder, hits, of = found[feature]
        what = "pictures" if index.kind == "pictures" else "clips"
        return f"of {of} more {what} where it fires most, {hits} lie in ‘{folder}’; of all {what} {share[folder]:.0%}"

    best = {folder: f for f in np.argsort(score_F, kind="stable") for folder in [found.get(int(f), ("",))[0]]}
    score_F[np.setdiff1d(np.arange(len(score_F)), list(best.values()))] = 0.0
    return score_F, sentence


def _above(title: str) -> list[str]:
    """Every folder above an item: of `a/b/c` these are `a` and `a/b`."""
    parts = title.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _items(index: FeatureIndex, feature: int) -> list[int]:
    """The documents of its examples, strongest first, each once."""
    first_F, position_E = index.example_rows
    own = position_E[int(first_F[feature]) : int(first_F[feature + 1])]
    return list(dict.fromkeys(index.document_at[own].tolist()))[:MOST]
