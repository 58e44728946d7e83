"""Simple predicates over token positions: what they say, where they hold, and which explains where a feature fires.

`explain` gives a feature's simplest predicate and its clean level; a `Claim` is whatever can be said of a position, written as a
search is. Start at `predicate.py` (the kinds), `level.py` (the rules) and `claim.py` (the language).
"""

from typing import TYPE_CHECKING

from interp.renamed import renamed

if TYPE_CHECKING:
    from interp.predicates.claim import Claim, read_claim
    from interp.predicates.level import Clean, explain
    from interp.predicates.predicate import KINDS, Predicate
    from interp.predicates.text import Around, Text
    from interp.predicates.tokens import CLASSES, Vocabulary

_HOME = {
    "CLASSES": "tokens",
    "KINDS": "predicate",
    "Around": "text",
    "Claim": "claim",
    "Clean": "level",
    "Predicate": "predicate",
    "Text": "text",
    "Vocabulary": "tokens",
    "explain": "level",
    "read_claim": "claim",
}
__all__ = [
    "CLASSES", "KINDS", "Around", "Claim", "Clean", "Predicate", "Text", "Vocabulary", "explain", "read_claim",
]  # fmt: skip
__getattr__ = renamed(__name__, {}, _HOME)
