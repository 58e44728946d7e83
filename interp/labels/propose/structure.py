"""What a feature's tokens are by where they stand: the first digit of a number, the last part of a word, one certain word that is written in parts.

    places   the places of claims (`predicates.claim.PLACES`) that most firings are at, and that are commoner there than in the text
    whole    the words that most firings are parts of, where it is at one part of them: ‘Lemma’ at its ‘ma’
    classed  a mined predicate whose lists of tokens are classes, where nearly all firings are of one: after an opening bracket

Axes    M firing above the level, of training documents.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from interp.predicates import Around, Predicate, Text
from interp.predicates.claim import PLACES
from interp.predicates.level import LIFT
from interp.predicates.predicate import SLOTS
from interp.predicates.tokens import CLASSES

MOSTLY = 0.7
"""Share of the firings looked at that a place, or words, must hold at."""
NEARLY = 0.9
"""The same of a class that stands for a list."""
LOOKED_AT = 1024
LISTED = 3
"""Tokens of a list that is left as it is."""
WORDS, SHARE, LONGEST = 3, 0.1, 6
"""Words that a name lists, the share of the firings that each of them has at least, and the tokens that one has at most."""
DOCUMENTS = 3
"""In which a word must be met."""


@dataclass(frozen=True)
class Found:
    """A name and a claim."""

    name: str
    claim: str


@dataclass(frozen=True, eq=False)
class Structure:
    """Looks at firings of one text."""

    text: Text

    @cached_property
    def _base(self) -> dict[str, float]:
        """At which share of the training documents' positions each place is."""
        sample = self.text.sample
        return {name: float(holds(sample).mean()) if len(sample) else 1.0 for name, (_, holds) in PLACES.items()}

    @cached_property
    def _class_sizes(self) -> np.ndarray:
        return self.text.vocabulary.classes_CV @ self.text.counts[0]

    def found(self, firings: Around) -> Iterator[Found]:
        """Places and whole words, of firings strongest first."""
        some = firings.take(np.arange(min(len(firings), LOOKED_AT)))
        if len(some):
            yield from self._places(some)
            yield from self._whole(some)

    def _places(self, some: Around) -> Iterator[Found]:
        held = {name: float(holds(some).mean()) for name, (_, holds) in PLACES.items()}
        good = [name for name, share in held.items() if share >= MOSTLY and share >= LIFT * self._base[name]]
        for name in sorted(good, key=lambda one: self._base[one]):
            yield Found(PLACES[name][0], f'is:"{name}"')

    def _whole(self, some: Around) -> Iterator[Found]:
        """One of up to WORDS words, at that part of each at which the feature fires."""
        inside = np.flatnonzero(some.inside_word)
        if len(inside) < MOSTLY * len(some):
            return
        parts = [self._parts(int(position)) for position in some.position_P[inside]]
        texts = self.text.vocabulary.texts
        spelt = ["".join(texts[token] for token in tokens).strip(" ") for tokens, _ in parts]
        words = [word.lower() for word in spelt]
        document = some.document[inside]
        common = [
            word
            for word, times in Counter(words).most_common(WORDS)
            if times >= SHARE * len(some)
            and len(set(document[[w == word for w in words]].tolist())) >= DOCUMENTS
            and word.isalpha()
        ]
        if sum(word in common for word in words) < MOSTLY * len(some):
            return
        layouts: dict[str, Counter[tuple[tuple[int, ...], int]]] = {word: Counter() for word in common}
        for word, part in zip(words, parts, strict=True):
            if word in layouts:
                layouts[word][part] += 1
        likeliest = [layouts[word].most_common(2) for word in common]
        claims = [_written(tokens, place, texts) for some_of in likeliest for (tokens, place), _ in some_of]
        as_spelt = {word: Counter(one for one in spelt if one.lower() == word).most_common(1)[0][0] for word in common}
        names = [
            f"‘{as_spelt[word]}’ at its ‘{texts[of[0][0][0][of[0][0][1]]].strip(' ')}’"
            for word, of in zip(common, likeliest, strict=True)
        ]
        yield Found(
            ", ".join(names), claims[0] if len(claims) == 1 else f"({' or '.join(f'({one})' for one in claims)})"
        )

    def _parts(self, position: int) -> tuple[tuple[int, ...], int]:
        """(tokens of the word around a position, which of them it is)."""
        text, joined = self.text, self.text.vocabulary.joined
        low = high = position

        def goes_on(left: int) -> bool:
            if left < 0 or left + 1 >= len(text.token_N):
                return False
            pair = np.array([left]), np.array([left + 1])
            tokens = text.token_N[pair[0]], text.token_N[pair[1]]
            return bool(text.together(*pair)[0] and joined(*tokens)[0])

        while high - low < LONGEST and goes_on(low - 1):
            low -= 1
        while high - low < LONGEST and goes_on(high):
            high += 1
        return tuple(int(token) for token in text.token_N[low : high + 1]), position - low

    def classed(self, predicate: Predicate, firings: Around) -> Predicate | None:
        """The predicate with classes in the place of its long lists; None where it has none that one class nearly covers."""
        some = firings.take(np.arange(min(len(firings), LOOKED_AT)))
        own = some.take(predicate.holds(some))
        changed: dict[str, str] = {}
        for name, offset in SLOTS.items():
            slot = getattr(predicate, name)
            if isinstance(slot, tuple) and len(slot) > LISTED and len(own):
                share_C = self.text.vocabulary.classes_CV[:, own.at(offset)].mean(1)
                fitting = np.flatnonzero(share_C >= NEARLY)
                if len(fitting):
                    changed[name] = list(CLASSES)[int(fitting[np.argmin(self._class_sizes[fitting])])]
        return replace(predicate, **changed) if changed else None  # type: ignore[arg-type]


def _written(tokens: tuple[int, ...], place: int, texts: list[str]) -> str:
    """A claim of the token at a place of these, with its neighbours among them."""
    slots = {"token": place, "before": place - 1, "before@2": place - 2, "next": place + 1, "next@2": place + 2}
    said = [(key, at) for key, at in slots.items() if 0 <= at < len(tokens)]
    return " ".join(
        f"{key}:{Predicate(kind='token', here=(tokens[at],)).claim(texts).removeprefix('token:')}" for key, at in said
    )
