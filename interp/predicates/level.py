"""The simplest predicate that explains where a feature fires, and its clean level.

Mined on the training split's documents:
1. `propose` reads candidates off the strong firings.
2. For each, the firings are gone through from the strongest down. Its *level* is the lowest activation above which it
   holds at PRECISION of the firings, at least LEAST of them in at least LEAST_DOCUMENTS documents.
3. It must say something: it is LIFT times as common above the level as in the text, and the feature fires at RECALL of its
   places (of a document's value: in that share of its documents; of `near`: around that share of the words).
4. How well it explains is the harmonic mean of the share of the firing that it accounts for (weighted by activation, above
   its level) and of that recall. The simplest candidate within SIMPLER of the best is taken.

Tested on the held-out split: how often it holds above the level, with Wilson's interval. A level is mined, so only the held-out
figure says how clean it is.

Axes    M firing of one feature, Q candidate.
"""

import math
from dataclasses import dataclass

import numpy as np

from interp.predicates.predicate import KINDS, Predicate
from interp.predicates.propose import RECALL, propose
from interp.predicates.text import COLUMNS, Around, Text
from interp.statistics import wilson

PRECISION = 0.9
LEAST, LEAST_DOCUMENTS = 20, 5
"""Firings above a level, and documents they are in, below which nothing is said: at 20 of 20 Wilson's interval reaches down to
.84, and what is of fewer documents may be one table that is repeated."""
LIFT = 3.0
"""What holds at a third of the text explains nothing."""
SIMPLER = 0.8


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What a feature means above an activation, and how far that is true."""

    predicate: Predicate
    level: float
    """Above it (strictly), at least PRECISION of the training split's firings are where the predicate holds; 0 is all of
    them."""
    recall: float
    """Share of the predicate's places in the training split at which the feature fires, however weakly."""
    explained: float
    """Share of all activation in the training split that is above the level and where the predicate holds."""
    share: float
    """Share of all firings that lie above the level, in every split."""
    n: int
    """Firings of the held-out split above the level."""
    precision: float
    """Share of these at which the predicate holds; nan where there is none."""
    interval: tuple[float, float]
    """Wilson's, 95 %."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    predicate: Predicate
    level: float
    recall: float
    explained: float

    @property
    def quality(self) -> float:
        return 2 * self.explained * self.recall / max(self.explained + self.recall, 1e-12)


def explain(position_M: np.ndarray, value_M: np.ndarray, text: Text) -> Clean | None:
    """The predicate and level of the feature that fires at these positions (ascending) so strongly; None where no
    predicate explains it."""
    train = np.flatnonzero(text.train_D[text.document_N[position_M]])
    order = train[np.lexsort((position_M[train], -value_M[train]))]
    if len(order) < LEAST:
        return None
    firings, falling_M = text.around(position_M[order]), value_M[order].astype(np.float64)
    ends = first_ends(falling_M, firings.document)
    if not len(ends):
        return None
    known = [_measured(one, firings, falling_M, ends) for one in propose(firings)]
    found = [one for one in known if one is not None]
    if not found:
        return None
    best = max(one.quality for one in found)
    chosen = min((one for one in found if one.quality >= SIMPLER * best), key=_simplicity)
    return _tested(chosen, position_M, value_M, text)


def _simplicity(one: _Candidate) -> tuple[int, int, float]:
    return *simplicity(one.predicate), -one.quality


def simplicity(predicate: Predicate) -> tuple[int, int]:
    """What comes first is simpler: its kind, then how many tokens it names."""
    tokens = sum(len(slot) for slot in (predicate.here, predicate.before, predicate.next) if isinstance(slot, tuple))
    return KINDS.index(predicate.kind), len(predicate.near) + tokens


def first_ends(falling_M: np.ndarray, document_M: np.ndarray) -> np.ndarray:
    """Counts of strongest firings after which a level may be drawn: enough of them, of enough documents, and the next one is
    weaker."""
    _, first = np.unique(document_M, return_index=True)
    if len(falling_M) < LEAST or len(first) < LEAST_DOCUMENTS:
        return np.zeros(0, dtype=np.int64)
    least = max(LEAST, int(np.sort(first)[LEAST_DOCUMENTS - 1]) + 1)
    weaker = np.append(falling_M[1:] < falling_M[:-1], True)
    ends = np.flatnonzero(weaker) + 1
    return ends[ends >= least]


def _measured(predicate: Predicate, firings: Around, falling_M: np.ndarray, ends: np.ndarray) -> _Candidate | None:
    """The candidate with its level; None when it has none, or says nothing."""
    holds_M = predicate.holds(firings)
    hits = np.cumsum(holds_M)[ends - 1]
    clean = np.flatnonzero(hits >= PRECISION * ends)
    if not len(clean):
        return None
    count = int(ends[clean[-1]])
    precision = hits[clean[-1]] / count
    if precision < LIFT * predicate.base(firings.text):
        return None
    recall = _recall(predicate, holds_M, firings)
    if recall < RECALL:
        return None
    explained = float((falling_M[:count] * holds_M[:count]).sum() / falling_M.sum())
    return _Candidate(predicate, _level(falling_M, count), recall, explained)


def _level(falling_M: np.ndarray, count: int) -> float:
    """Half way between the last activation that is in and the first that is out, so that float16 does not move one across."""
    return 0.0 if count == len(falling_M) else float((falling_M[count - 1] + falling_M[count]) / 2)


def _recall(predicate: Predicate, holds_M: np.ndarray, firings: Around) -> float:
    text = firings.text
    if predicate.kind in COLUMNS:
        known, _ = text.values[predicate.kind]
        documents = text.value_counts[predicate.kind][1][known.index(predicate.value)]
        return len(np.unique(firings.document[holds_M])) / max(int(documents), 1)
    if predicate.kind == "near":
        place = text.places(predicate.near)
        place = place[text.kept_N[place] & text.train_D[text.document_N[place]]]
        return float(text.around(place).near(np.sort(firings.position_P)).mean()) if len(place) else 0.0
    return int(holds_M.sum()) / max(predicate.count(text), 1)


def _tested(chosen: _Candidate, position_M: np.ndarray, value_M: np.ndarray, text: Text) -> Clean:
    above = value_M > chosen.level
    heldout = position_M[above & text.heldout_D[text.document_N[position_M]]]
    hits = int(chosen.predicate.holds(text.around(heldout)).sum())
    precision, low, high = wilson(hits, len(heldout))
    return Clean(
        predicate=chosen.predicate,
        level=chosen.level,
        recall=chosen.recall,
        explained=chosen.explained,
        share=float(above.mean()),
        n=len(heldout),
        precision=precision if len(heldout) else math.nan,
        interval=(low, high),
    )
