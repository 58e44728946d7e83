"""Simple predicates over token positions: what they say, where they hold, and which explains where a feature fires.

`explain` gives a feature's simplest predicate and its clean level; `Predicate` is what labels and measures speak of.
Start at `predicate.py` (the kinds), then `explain.py` (the rules).
"""

from interp.predicates.level import Clean, explain
from interp.predicates.predicate import KINDS, Predicate
from interp.predicates.text import Around, Text
from interp.predicates.tokens import CLASSES, Vocabulary

__all__ = ["CLASSES", "KINDS", "Around", "Clean", "Predicate", "Text", "Vocabulary", "explain"]
