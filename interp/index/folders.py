"""Which folder of pictures or clips a feature prefers: what stands in for the topics of texts, where names of patches say only where.

1.  The items of a feature's examples, at most MOST, the strongest first and each once, are dealt in turn to two halves.
2.  On the first half that folder is chosen, of all above its items, whose share there exceeds its share of all items the most.
3.  On the second half it is counted. A feature scores by how far the lower end of that share (Wilson, 95 %) lies above the share of all.
4.  It is said of a feature where chance would seldom count as many: the binomial p-value, over all features with q of at most Q
    (Benjamini and Hochberg 1995). Items of one folder are taken as drawn apart, which likenesses among them make too bold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp.statistics import benjamini_hochberg, wilson

LEAST = 4
"""Items that the second half must have."""
MOST = 16
Q = 0.1


@dataclass(frozen=True, kw_only=True)
class Preference:
    """The folder that a feature's strongest items are from more often than others are."""

    folder: str
    hits: int
    of: int
    """Items by which it was not chosen, and those of them in the folder."""
    share: float
    """Of all items."""
    q: float

    @property
    def score(self) -> float:
        """How far the lower end of the share lies above the share of all; 0 where it does not."""
        return max(0.0, wilson(self.hits, self.of)[1] - self.share)

    @property
    def told(self) -> bool:
        """Whether chance would seldom count as many."""
        return self.q <= Q

    def sentence(self, what: str) -> str:
        """The count, of `what` (pictures, clips)."""
        return f"of {self.of} more {what} where it fires most, {self.hits} lie in ‘{self.folder}’; of all {what} {self.share:.0%}"


def find_preferences(titles: Sequence[str], items: Iterable[Sequence[int]]) -> dict[int, Preference]:
    """By feature, of those with enough items; `items` are each feature's, as places in `titles`, strongest first and each once."""
    above = [_above(title) for title in titles]
    share = {folder: count / len(above) for folder, count in Counter(f for each in above for f in each).items()}
    found: dict[int, tuple[str, int, int]] = {}
    for feature, all_of_it in enumerate(items):
        chosen, tried = all_of_it[:MOST:2], all_of_it[1:MOST:2]
        more = {f: n / len(chosen) - share[f] for f, n in Counter(f for each in chosen for f in above[each]).items()}
        if len(tried) >= LEAST and more:
            folder = max(sorted(more), key=more.__getitem__)
            found[feature] = folder, sum(folder in above[each] for each in tried), len(tried)
    if not found:
        return {}
    from scipy.stats import binom  # a second or more to import, which whatever opens an SAE would pay

    p = [float(binom.sf(hits - 1, of, share[folder])) for folder, hits, of in found.values()]
    q = benjamini_hochberg(np.array(p)).tolist()
    return {
        feature: Preference(folder=folder, hits=hits, of=of, share=share[folder], q=q_F)
        for (feature, (folder, hits, of)), q_F in zip(found.items(), q, strict=True)
    }


def items_of(example_rows: tuple[np.ndarray, np.ndarray], document_at: np.ndarray) -> Iterator[list[int]]:
    """The documents of each feature's examples, strongest first, each once."""
    first_F, position_E = example_rows
    for start, stop in zip(first_F[:-1].tolist(), first_F[1:].tolist(), strict=True):
        yield list(dict.fromkeys(document_at[position_E[start:stop]].tolist()))


def best_of_each(preferences: Mapping[int, Preference], features: int) -> np.ndarray:
    """A score for each feature, above 0 for the one that prefers a folder the most."""
    score_F = np.zeros(features)
    ordered = sorted(preferences, key=lambda f: preferences[f].score)
    for feature in {preferences[f].folder: f for f in ordered}.values():
        score_F[feature] = preferences[feature].score
    return score_F


def _above(title: str) -> list[str]:
    """Every folder above an item: of `a/b/c` these are `a` and `a/b`."""
    parts = title.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
