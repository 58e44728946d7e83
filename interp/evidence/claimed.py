"""What labels claim, read out of the label book: a condition on positions, and the activation above which it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from interp.grammar import Term
from interp.labels.automatic import level_said
from interp.labels.label import Label
from interp.labels.testing import Label as Claimed
from interp.predicates import Claim, read_claim
from interp.predicates.claim import check_claim
from interp.search import parse
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What some labels claim."""

    labels: Sequence[Claimed]
    """By feature, ascending."""
    without: Mapping[int, str]
    """Of the features that were asked for and have none, why."""


def read_claims(
    labels: Mapping[int, Label],
    features: Sequence[int],
    level_F: np.ndarray,
    exact: Mapping[int, Claimed] = MappingProxyType({}),
) -> Claims:
    """The claims of these features' labels.

    `level_F` has the level of a label that does not say one: its feature's clean level. A note has three digits of a level; `exact`
    has all, of the labels that were tried.
    """
    found, without = [], {}
    for feature in sorted(set(features)):
        label = labels.get(feature)
        if label is None or not label.text:
            without[feature] = "it has no label"
        elif not label.predicate:
            without[feature] = "its label claims nothing that can be tried"
        else:
            try:
                claim = claim_in(label.predicate)
            except InterpError as error:
                without[feature] = str(error)
                continue
            said, known = level_said(label.note), exact.get(feature)
            level = max(float(level_F[feature]), 0.0) if said is None else said
            same = known is not None and str(known.claim) == str(claim) and f"{known.level:.3g}" == f"{level:.3g}"
            found.append(known if known is not None and same else Claimed(feature=feature, claim=claim, level=level))
    return Claims(labels=found, without=without)


def claim_in(predicate: str) -> Claim:
    """The claim about one position that a label's predicate makes: what stands in `at:(…)`, or all of it.

    Raises InterpError for one that asks something else of a feature.
    """
    if not predicate.lstrip().startswith("at:"):
        return read_claim(predicate)
    root = parse(predicate).root
    if isinstance(root, Term) and root.inner is not None:
        return check_claim(root.inner)
    raise InterpError("its predicate asks more than what holds at one position, at:(…)")
