"""Where a label is wrong: places at which its feature fires although the claim does not hold, and is silent although it does.

1.  A label claims something of positions, and speaks of firings above a level (`labels/testing.py`).
2.  *Beyond* it lie firings above the level at which the claim does not hold: of those that the index has stored, the strongest,
    one a document.
3.  *Short* of it lie places at which the claim holds and the feature does not fire above the level. Only a full index knows where a
    feature is silent. They are drawn by a seed, one a document, out of the documents that labels are tried on where it has any.

How often either happens is measured elsewhere, on text that the label was not made from; these are examples to read.

Axes    P stored firing above the level, N position of the index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.grammar import terms
from interp.index import Example, FeatureIndex
from interp.predicates import Claim, Text, read_claim
from interp.types import check_feature

SHOWN = 6
"""Places of either kind that are shown."""


@dataclass(frozen=True, kw_only=True)
class Contrary:
    """What speaks against one label."""

    claim: str
    """As `at:(…)` takes it."""
    sentence: str
    """In words."""
    level: float
    beyond: Sequence[Example]
    """Firings above the level at which the claim does not hold, strongest first."""
    fired: int
    """Stored firings above the level whose text is here; all of them where the index is a full one."""
    outside: int
    """Those of them at which the claim does not hold."""
    short: Sequence[Example]
    """Places where it holds and the feature does not fire above the level."""
    held: int | None
    """Places of the documents looked at where the claim holds; None where the index cannot say where a feature is silent."""
    silent: int
    """Those of them at which the feature does not fire above the level."""
    lacks: str
    """What could not be looked at, and what would bring it; empty where all was."""


def find_contrary(
    index: FeatureIndex,
    feature: int,
    claim: str,
    level: float,
    *,
    encode: Callable[[list[str]], Any] | None = None,
    seed: int = 0,
) -> Contrary:
    """What speaks against a feature's claim, made of its firings above a level; `encode` is for claims of what a text is about.

    Raises InterpError when there is no such feature, or the claim cannot be read or tried on this text.
    """
    check_feature(feature, index.d_sae, str(index.folder))
    asked = read_claim(claim)
    text = index.passages if encode is None else index.passages.read_by(encode)
    position, value = index.fired(feature)
    above = (value.astype(np.float64) > level) & text.kept_N[position]
    position_P, value_P = position[above].astype(np.int64), value[above].astype(np.float64)
    outside_P = ~asked.holds(text.around(position_P))
    order = np.flatnonzero(outside_P)[np.argsort(-value_P[outside_P], kind="stable")]
    beyond = _one_a_document(position_P[order], text.document_N)
    held, silent_N, lacks = None, np.zeros(0, dtype=np.int64), _why_not(index, asked)
    if not lacks:
        held, silent_N = _silent(asked, text, position_P)
    drawn = np.random.default_rng([seed, feature]).permutation(silent_N)
    return Contrary(
        claim=claim,
        sentence=asked.sentence,
        level=level,
        beyond=index.stretches(feature, beyond),
        fired=len(position_P),
        outside=int(outside_P.sum()),
        short=index.stretches(feature, _one_a_document(drawn, text.document_N)),
        held=held,
        silent=len(silent_N),
        lacks=lacks,
    )


def _why_not(index: FeatureIndex, asked: Claim) -> str:
    """Why places where the feature is silent are not looked for; empty where they can be."""
    if index.partial:
        return (
            "Where the label holds and the feature is silent, an index that keeps examples only cannot say; "
            "`interp index SAE` builds the full one."
        )
    if any(term.key == "about" for term in terms(asked.root)):
        return "Where the label holds and the feature is silent is not looked for: to ask of all text what it is about takes minutes."
    return ""


def _silent(asked: Claim, text: Text, position_P: np.ndarray) -> tuple[int, np.ndarray]:
    """(places where the claim holds, those of them that are none of these firings), in testing documents if there are any."""
    tried_D = np.array([split == "labels" for split in text.split_D], dtype=bool)
    tried_N = text.kept_N & tried_D[text.document_N] if tried_D.any() else text.kept_N
    place = np.flatnonzero(tried_N)
    holds = place[asked.holds(text.around(place))]
    return len(holds), holds[~np.isin(holds, position_P)]


def _one_a_document(position: np.ndarray, document_N: np.ndarray) -> list[int]:
    """The first SHOWN of these positions that lie in unlike documents."""
    _, first = np.unique(document_N[position], return_index=True)
    return [int(position[at]) for at in np.sort(first)[:SHOWN]]
