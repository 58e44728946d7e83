"""The predicate that is truest of a feature: by F1, where its clean predicate says little.

A clean predicate (`predicates.level`) is right at nine of ten firings above its level, which may be few of all firings, and of many features
there is none. Here the same candidates are weighed by how well "it holds" tells "it fires above a level", each at the level that is
best for it: with its places counted in the training documents, F1 at every level follows from its hits among the strongest firings.

Axes    M firing in the training split, strongest first.
"""

from dataclasses import dataclass

import numpy as np

from interp.predicates import Predicate, Text
from interp.predicates.level import first_ends, simplicity
from interp.predicates.predicate import LANGUAGE_NAMES
from interp.predicates.propose import propose
from interp.predicates.text import COLUMNS

SIMPLER = 0.9
LEAST = 0.1
"""F1 below which a predicate explains nothing."""
MASS = 0.25
"""Share of a feature's activation that a claim must speak of: what holds of its very strongest firings alone is another feature's name."""
MOSTLY, COMMON = 0.9, 0.5
"""Share of the strong firings that must be of a document's value to be said of a feature, and share of all text from which on the value
says nothing."""


@dataclass(frozen=True, kw_only=True)
class Truest:
    """A predicate with the level at which it is truest of the training documents."""

    predicate: Predicate
    level: float
    f1: float


def truest(position_M: np.ndarray, value_M: np.ndarray, text: Text) -> list[Truest]:
    """The simplest predicate within SIMPLER of the truest of the feature that fires at these positions (ascending) so strongly, and the
    truest where that is another one: in some documents only, it may be much the truer."""
    train = np.flatnonzero(text.train_D[text.document_N[position_M]])
    order = train[np.lexsort((position_M[train], -value_M[train]))]
    firings, falling_M = text.around(position_M[order]), value_M[order]
    ends = first_ends(falling_M, firings.document)
    ends = ends[enough(falling_M)[ends - 1]]
    if not len(ends):
        return []
    found: list[tuple[Truest, tuple[int, int]]] = []
    for predicate in propose(firings):
        hits = np.cumsum(predicate.holds(firings))[ends - 1]
        f1 = 2 * hits / (ends + predicate.base(text) * len(text.train_P))
        best = int(f1.argmax())
        if f1[best] >= LEAST:
            level = between(falling_M, int(ends[best]))
            found.append((Truest(predicate=predicate, level=level, f1=float(f1[best])), simplicity(predicate)))
    if not found:
        return []
    truer = max((one for one, _ in found), key=lambda one: one.f1)
    good = [pair for pair in found if pair[0].f1 >= SIMPLER * truer.f1]
    simplest = min(good, key=lambda pair: (*pair[1], -pair[0].f1))[0]
    return [simplest] if simplest is truer else [simplest, truer]


def enough(falling_M: np.ndarray) -> np.ndarray:
    """For each number of strongest firings, whether they make up MASS of all activation."""
    return np.cumsum(falling_M) >= MASS * falling_M.sum()


def between(falling_M: np.ndarray, count: int) -> float:
    """The level that so many firings are above: half way to the next, 0 for all of them."""
    return 0.0 if count == len(falling_M) else float((falling_M[count - 1] + falling_M[count]) / 2)


def settings(strong_M: np.ndarray, text: Text) -> list[tuple[str, str]]:
    """(claim, words) of what documents nearly all of these positions of training documents are in, where most text is not."""
    found = []
    for column in COLUMNS:
        known, value_D = text.values[column]
        value_M = value_D[text.document_N[strong_M]]
        times = np.bincount(value_M[value_M >= 0], minlength=len(known) + 1)
        best = int(times.argmax())
        if best < len(known) and len(strong_M) and times[best] >= MOSTLY * len(strong_M):
            predicate = Predicate(kind=column, value=known[best])
            if predicate.base(text) < COMMON:
                found.append((predicate.claim(text.vocabulary.texts), _in_words(column, known[best])))
    return found


def _in_words(column: str, value: str) -> str:
    if column == "language":
        return f"in {LANGUAGE_NAMES.get(value, value)}"
    return f"in text of {value}" if column == "source" else f"in text on {value}"
