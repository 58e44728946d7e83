"""A simple predicate over token positions: what it says, where it holds, how often.

| kind | holds where |
|---|---|
| `token` | the token is one of a few words (in the cases and spacings named) |
| `piece` | the same, and it is a part of a longer word |
| `class` | the token is of a class (`tokens.CLASSES`) |
| `next` | the token that follows is one of some, or of a class |
| `after` | the token before is one of some, or of a class |
| `ngram` | this token after those one or two, or before that one: several of these together |
| `words` | the token is one of a written list, longer than a reader keeps in mind |
| `language`, `source`, `topic` | the document has this value |
| `near` | one of a few words stands within 16 tokens, and is not the token itself |

The kinds are in order of simplicity; of predicates that explain a feature about as well, the first is taken.

Axes    P position, V vocabulary.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.predicates.text import COLUMNS, Around, Text
from interp.predicates.tokens import CLASSES
from interp.render import visible
from interp.types import InterpError

KINDS = ("token", "piece", "class", "next", "after", "ngram", "words", "language", "source", "topic", "near")
SLOTS = {"earlier": -2, "before": -1, "here": 0, "next": 1}
"""Fields of a predicate that say something of one token, and where it stands."""
SHOWN = 6
"""Tokens of a list that a sentence names."""
LANGUAGE_NAMES = {"en": "English", "fr": "French", "es": "Spanish", "code": "code"}

WRITTEN_AS = {"here": "token", "earlier": "before@2", "before": "before", "next": "next"}
"""Slots by the keys of a claim."""
_WRITTEN = {" ": " ", "/": "\\/", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
"""Characters that a query writes otherwise than a regular expression's escape does."""

Slot = tuple[int, ...] | str
"""Token ids, or the name of a class; () says nothing."""


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """One predicate; what it does not speak of is empty. Token ids are the model's own."""

    kind: str
    earlier: Slot = ()
    """Two tokens before."""
    before: Slot = ()
    here: Slot = ()
    next: Slot = ()
    inside: bool = False
    """Only parts of longer words."""
    value: str = ""
    """Of the document's source, language or topic."""
    near: tuple[int, ...] = ()

    # ---- in words ----

    def to_json(self) -> str:
        """Compact JSON; `from_json` reads it."""
        said = {name: value for name, value in vars(self).items() if value}
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(written: str) -> "Predicate":
        """Raises InterpError when it is not what `to_json` writes."""
        try:
            raw: dict[str, Any] = json.loads(written)
            said: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
            made = Predicate(**said)
        except (ValueError, TypeError, AttributeError):
            made = None
        if made is None or not made._sound():
            raise InterpError(f"{written[:80]!r} is no predicate as this program writes it; build the index anew.")
        return made

    def _sound(self) -> bool:
        slots = [getattr(self, name) for name in SLOTS]
        named = all(slot in CLASSES if isinstance(slot, str) else _ids(slot) for slot in slots)
        return named and self.kind in KINDS and _ids(self.near) and isinstance(self.value, str)

    def sentence(self, vocabulary: Sequence[str]) -> str:
        """What it says, in words: "the token is ‘ river’ or ‘ lake’"."""
        if self.kind in COLUMNS:
            shown = LANGUAGE_NAMES.get(self.value, self.value) if self.kind == "language" else self.value
            return f"the document's {self.kind} is {shown}"
        if self.kind == "near":
            return f"{_listed(self.near, vocabulary)} stands within 16 tokens"
        parts = []
        for name, words in (("here", "the token is"), ("earlier", "two before it stands"), ("before", "before it stands"),
                            ("next", "after it stands")):  # fmt: skip
            slot: Slot = getattr(self, name)
            if slot:
                parts.append(f"{words} {CLASSES[slot][1] if isinstance(slot, str) else _listed(slot, vocabulary)}")
        if self.inside:
            parts.append("a part of a longer word" if parts else "the token is a part of a longer word")
        return ", ".join(parts)

    def claim(self, vocabulary: Sequence[str]) -> str:
        """The claim that says the same (see `claim.py`), such as `token:/^ river$/ is:"inside word"`."""
        if self.kind in COLUMNS:
            return f"{self.kind}:{_quoted(self.value)}"
        if self.kind == "near":
            return f"near:{_regex(self.near, vocabulary)}"
        slots = [(key, getattr(self, slot)) for slot, key in WRITTEN_AS.items()]
        said = [f"{key}:{_regex(slot, vocabulary)}" for key, slot in slots if slot]
        return " ".join([*said, 'is:"inside word"'] if self.inside else said)

    def query(self, vocabulary: Sequence[str]) -> str:
        """The search for what fires there: `token:/^ river$/`, `topic:…`, or the claim in `at:(…)`."""
        if self.kind in ("source", "topic"):
            return f"topic:{_quoted(f'{self.kind}={self.value}')}"
        alone = self.kind in ("token", "words", "class") and not self.inside
        return self.claim(vocabulary) if alone else f"at:({self.claim(vocabulary)})"

    # ---- where ----

    def holds(self, around: Around) -> np.ndarray:
        """True at the positions where it holds."""
        if self.kind in COLUMNS:
            known, value_D = around.text.values[self.kind]
            number = known.index(self.value) if self.value in known else -2
            return np.asarray(value_D[around.document] == number)
        if self.kind == "near":
            return around.near(around.text.places(self.near))
        true = np.ones(len(around), dtype=bool)
        for name, offset in SLOTS.items():
            slot: Slot = getattr(self, name)
            if slot:
                true &= _of(slot, around.at(offset), around.text)
        return true & around.inside_word if self.inside else true

    def base(self, text: Text) -> float:
        """At which share of the training split's positions it holds (of `near`, by a sample)."""
        total = max(len(text.train_P), 1)
        if self.kind in COLUMNS:
            known, _ = text.values[self.kind]
            return float(text.value_counts[self.kind][0][known.index(self.value)]) / total
        if self.kind == "near":
            return float(self.holds(text.sample).mean()) if len(text.sample) else 0.0
        return self.count(text) / total

    def count(self, text: Text) -> int:
        """At how many positions of the training split it holds, of the kinds that look at single tokens."""
        asked = [(SLOTS[name], getattr(self, name)) for name in SLOTS if getattr(self, name)]
        (offset, slot), more = asked[0] if asked else (0, ()), len(asked) != 1
        if more or (self.inside and (offset or isinstance(slot, str))):
            return self._count_all(text)
        if isinstance(slot, str):
            return int(text.class_counts[offset][list(CLASSES).index(slot)])
        return int((text.inside_counts if self.inside else text.counts[offset])[list(slot)].sum())

    def _count_all(self, text: Text) -> int:
        """The same by looking: at the positions of the rarest token set that it names, or at all."""
        sets = [(SLOTS[name], getattr(self, name)) for name in SLOTS if isinstance(getattr(self, name), tuple)]
        sets = [(offset, slot) for offset, slot in sets if slot]
        if not sets:
            return int(self.holds(text.around(text.train_P)).sum())
        offset, slot = min(sets, key=lambda pair: text.counts[0][list(pair[1])].sum())
        place = text.places(slot) - offset
        place = place[(place >= 0) & (place < len(text.token_N))]
        place = place[text.kept_N[place] & text.train_D[text.document_N[place]]]
        return int(self.holds(text.around(place)).sum())


def _ids(slot: Any) -> bool:
    return isinstance(slot, tuple) and all(type(token) is int and token >= 0 for token in slot)


def _of(slot: Slot, token_P: np.ndarray, text: Text) -> np.ndarray:
    if isinstance(slot, str):
        return np.asarray(text.vocabulary.of_class(slot)[token_P])
    if len(slot) == 1:
        return np.asarray(token_P == slot[0])
    wanted = np.sort(np.asarray(slot))
    return np.asarray(wanted[np.clip(np.searchsorted(wanted, token_P), 0, len(wanted) - 1)] == token_P)


def _listed(tokens: Sequence[int], vocabulary: Sequence[str]) -> str:
    shown = [f"‘{visible(vocabulary[token])}’" for token in tokens[:SHOWN]]
    if len(tokens) > SHOWN:
        return f"one of {len(tokens)} tokens such as {', '.join(shown)}"
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _regex(slot: Slot, vocabulary: Sequence[str]) -> str:
    """What a slot says of one token, as a query writes it, its slashes with it."""
    if isinstance(slot, str):
        return "/" + CLASSES[slot][0].replace("/", "\\/") + "/"
    return f"/^(?:{_alternatives([vocabulary[token] for token in slot])})$/"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _alternatives(texts: Sequence[str]) -> str:
    """A regular expression of the texts, as it stands between the slashes of a query."""
    return "|".join("".join(_WRITTEN.get(character) or re.escape(character) for character in text) for text in texts)
