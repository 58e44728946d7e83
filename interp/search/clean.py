"""Firings above a feature's clean level, which are those that `token:`, `fires:` and `only:` count where there is one.

Below its clean level a feature fires on other things than its strongest examples show (see `FeatureIndex.clean`). What is
left out is said with each hit, and `@all` behind the key counts every firing.
"""

import numpy as np

from interp.index import FeatureIndex
from interp.render.words import counted
from interp.search.query import Term
from interp.types import unknown

ALL = "all"


def counts_clean(term: Term, index: FeatureIndex) -> bool:
    """Whether a key of which `all` is the only option counts firings above the clean level only.

    Raises InterpError for another option.
    """
    if term.option not in ("", ALL):
        raise unknown(f"{term.key}@", term.option, [ALL], try_=f"(At character {term.at}.)")
    return index.has_clean_levels and not term.option


def left_out(index: FeatureIndex, feature: int) -> str:
    """What of a feature's firings is not counted, as the end of a reason; nothing where all are."""
    level, fires = float(index.clean_above[feature]), int(index.features["fires"].iloc[feature])
    above = int(index.clean_fires[feature])
    if level == -np.inf or above >= fires:
        return ""
    return f"; above its clean level {level:.3g}, which leaves out {1 - above / fires:.0%} of its firings"


def below_only(term: Term, passed_F: np.ndarray, all_F: np.ndarray) -> str:
    """The note of how many features pass only if all of their firings count; nothing where that is none."""
    more = int(np.count_nonzero(all_F & ~passed_F))
    return (
        f"left out below their clean level: {counted(more, 'feature')} ({term.key}@all: counts every firing)"
        if more
        else ""
    )
