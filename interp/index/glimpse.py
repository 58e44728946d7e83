"""A few words around a feature's strongest example, read without looking for text that the index may not pass on.

For tables and shelves, which show many features and must not wait; the feature's own page has all of its examples.
"""

from dataclasses import dataclass

import numpy as np

from interp.index.read import FeatureIndex

WORDS = 7
"""Tokens before the example's, and after it."""


@dataclass(frozen=True)
class Glimpse:
    """A stretch of text, and how strongly the feature is active on each of its tokens."""

    tokens: list[str]
    values: list[float]
    peak: int
    """Which of the tokens the example is at."""
    position: int


def glimpse(index: FeatureIndex, feature: int, words: int = WORDS) -> Glimpse | None:
    """The strongest example whose text is in the index; None where there is none."""
    token_N, hidden_N = index.stored_tokens
    first_F, position_E = index.example_rows
    position_E = position_E[first_F[feature] : first_F[feature + 1]]
    shown_E = position_E[~hidden_N[position_E]]
    if not len(shown_E):
        return None
    at = int(shown_E[0])
    first = at // index.block * index.block
    near = np.arange(max(first + 1, at - words), min(first + index.block, at + words + 1, len(token_N)))
    near = near[(index.document_at[near] == index.document_at[at]) & (token_N[near] != index.separator)]
    fires, value = index.fired(feature)
    known = dict(zip(fires.tolist(), value.astype(float).tolist(), strict=True))
    return Glimpse(
        index.text(token_N[near]), [known.get(int(n), 0.0) for n in near], int(np.flatnonzero(near == at)[0]), at
    )
