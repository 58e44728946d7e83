"""Predicates that might explain a feature, read off where it fires strongly.

What is proposed need not hold: `explain` measures each and takes the simplest that does. So the rules here only have to
let the right one through, of every kind, and are cheap.

Axes    M firing of the feature in the training split, strongest first; S of them that are looked at; T distinct token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interp.predicates.predicate import Predicate, Slot
from interp.predicates.text import COLUMNS, OFFSETS, Around
from interp.predicates.tokens import CLASSES
from interp.predicates.written import REACH

RECALL = 0.1
"""The least share of a predicate's places at which the feature fires: below, it is no more than a circumstance of it."""
FEW_WORDS = 3
"""Words that a `token` predicate may name: as many as one says in a breath."""
SIDE, LONG = 10, 64
"""Tokens that stand beside, and that a written list may have."""
COVERED = 0.95
"""Share of the firings looked at from which a list needs no more tokens."""
MOSTLY = 0.7
"""Share of the firings looked at that a class, a document's value or a combination must hold at to be proposed."""
STRONG, LOOKED_AT = 64, 2048
"""Fewest and most firings that are looked at."""
DOCUMENTS = 3
"""In which a token must stand to be listed: what is of one or two is their accident."""
NEAR_WORDS, NEAR_TEXTS, NEAR_SHARE = 8, 128, 0.02
"""Words of a `near` predicate, stretches of text that they are looked for in, and the most of all positions that one of
them may be near to."""
NEAR_LIFT = 5.0
"""How many times as common a word must be near the feature's firings."""


@dataclass(frozen=True, eq=False)
class Strong:
    """The training split's firings of a feature, strongest first, and which tokens stand there."""

    firings: Around

    @cached_property
    def distinct(self) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By offset: the tokens that stand there, which of them each firing has, and the share of the token's places at
        which the feature fires."""
        found = {}
        for offset in (-1, 0, 1):
            token_T, which_M = np.unique(self.firings.at(offset), return_inverse=True)
            times_T = np.bincount(which_M, minlength=len(token_T))
            found[offset] = token_T, which_M, times_T / np.maximum(self.firings.text.counts[offset][token_T], 1)
        return found

    def depths(self) -> Iterator[np.ndarray]:
        """Firings to look at, as numbers: the strongest, the upper tenth, the upper half, all, evenly thinned where many."""
        count, seen = len(self.firings), set()
        for wanted in (STRONG, max(STRONG, count // 10), count // 2, count):
            size = min(count, wanted)
            if size >= min(STRONG, count) and size not in seen:
                seen.add(size)
                yield np.arange(size) if size <= LOOKED_AT else np.arange(LOOKED_AT) * size // LOOKED_AT


def propose(firings: Around) -> list[Predicate]:
    """Distinct predicates for the training split's firings, strongest first."""
    strong, found = Strong(firings), {}
    for offset in OFFSETS:
        firings.at(offset)  # looked up once, and handed on to each part
    for look_S in strong.depths():
        for predicate in _at_depth(strong, look_S):
            found[predicate] = True
    return list(found)


def _at_depth(strong: Strong, look_S: np.ndarray) -> Iterator[Predicate]:
    some = strong.firings.take(look_S)
    here = _common(strong, 0, look_S)
    yield from _few(some, here)
    yield from _classes(some)
    for offset, field, kind in ((1, "next", "next"), (-1, "before", "after")):
        side = _common(strong, offset, look_S, most=SIDE)
        if side:
            yield Predicate(kind=kind, **{field: side})  # type: ignore[arg-type]
    if here:
        yield Predicate(kind="words", here=here)
        if some.inside_word.mean() >= MOSTLY:
            yield Predicate(kind="piece", here=here, inside=True)
        yield from _ngrams(some, here[:SIDE])
    yield from _values(some)
    near = _near(some)
    if near:
        yield Predicate(kind="near", near=near)


def _common(strong: Strong, offset: int, look_S: np.ndarray, most: int = LONG) -> tuple[int, ...]:
    """The tokens there that cover the firings, commonest first, each of several documents; those that are as common
    elsewhere are left out."""
    token_T, which_M, recall_T = strong.distinct[offset]
    which_S = which_M[look_S]
    times_T = np.bincount(which_S, minlength=len(token_T))
    usable_T = (recall_T >= RECALL) & (token_T != strong.firings.text.vocabulary.nothing)
    usable_T &= _documents(which_S, strong.firings.document[look_S], len(token_T)) >= DOCUMENTS
    order = np.lexsort((token_T, -times_T))
    order = order[usable_T[order]][:most]
    enough = int(np.searchsorted(np.cumsum(times_T[order]), COVERED * len(look_S))) + 1
    return tuple(int(token) for token in token_T[order[:enough]])


def _documents(which_S: np.ndarray, document_S: np.ndarray, count: int) -> np.ndarray:
    """In how many documents each of `count` things occurs."""
    pair = np.unique(which_S.astype(np.int64) << 32 | document_S)
    return np.bincount(pair >> 32, minlength=count)


def _few(some: Around, here: tuple[int, ...]) -> Iterator[Predicate]:
    """One word and up to FEW_WORDS, each in all the cases and spacings that are common there."""
    word_V = some.text.vocabulary.word_V
    words = list(dict.fromkeys(int(word_V[token]) for token in here))
    for count in sorted({1, min(2, len(words)), min(FEW_WORDS, len(words))} if words else ()):
        tokens = tuple(token for token in here if int(word_V[token]) in words[:count])
        yield Predicate(kind="token", here=tokens)
        if some.inside_word[np.isin(some.at(0), tokens)].mean() >= 0.5:
            yield Predicate(kind="piece", here=tokens, inside=True)


def _classes(some: Around) -> Iterator[Predicate]:
    for offset, field, kind in ((0, "here", "class"), (1, "next", "next"), (-1, "before", "after")):
        for name in _classes_at(some, offset):
            yield Predicate(kind=kind, **{field: name})  # type: ignore[arg-type]


def _classes_at(some: Around, offset: int, most: int = 3) -> list[str]:
    """Classes of the tokens there: the rarest of those that hold at most firings."""
    share_C = some.text.vocabulary.classes_CV[:, some.at(offset)].mean(1)
    names = list(CLASSES)
    rarest = np.argsort(some.text.class_counts[offset], kind="stable")
    return [names[c] for c in rarest if share_C[c] >= MOSTLY][:most]


def _ngrams(some: Around, here: tuple[int, ...]) -> Iterator[Predicate]:
    """These tokens with what stands beside them, where that is mostly one of some tokens or of a class."""
    own = some.take(np.isin(some.at(0), here))
    if len(own) < MOSTLY * len(some):
        here, own = (), some  # whatever the token: what stands around it
    before, after, earlier = (_beside(own, offset) for offset in (-1, 1, -2))
    for slots in (
        {"before": before, "here": here},
        {"here": here, "next": after},
        {"before": before, "here": here, "next": after},
        {"earlier": earlier, "before": before, "here": here},
        {"earlier": earlier, "here": here},
    ):
        said = {name: slot for name, slot in slots.items() if slot}
        if len(said) > 1 and len(said) == len({name for name in slots if name != "here" or here}):
            yield Predicate(kind="ngram", **said)  # type: ignore[arg-type]


def _beside(own: Around, offset: int) -> Slot:
    """Tokens or a class that mostly stand so far from these positions; () where it is now this, now that."""
    text = own.text
    token_T, which_S, times_T = np.unique(own.at(offset), return_inverse=True, return_counts=True)
    usable_T = (_documents(which_S, own.document, len(token_T)) >= DOCUMENTS) & (token_T != text.vocabulary.nothing)
    order = np.lexsort((token_T, -times_T))
    order = order[usable_T[order]][:SIDE]
    covered = np.cumsum(times_T[order])
    if len(order) and covered[-1] >= MOSTLY * len(own):
        enough = int(np.searchsorted(covered, COVERED * len(own))) + 1
        return tuple(int(token) for token in token_T[order[:enough]])
    share_C = text.vocabulary.classes_CV[:, token_T] @ (times_T / len(own))
    fitting = np.flatnonzero(share_C >= COVERED)
    if not len(fitting):
        return ()
    return list(CLASSES)[int(fitting[np.argmin(text.class_counts[offset][fitting])])]


def _values(some: Around) -> Iterator[Predicate]:
    for column in COLUMNS:
        known, value_D = some.text.values[column]
        value_S = value_D[some.document]
        times = np.bincount(value_S[value_S >= 0], minlength=len(known) + 1)
        if times.max() >= MOSTLY * len(some):
            yield Predicate(kind=column, value=known[int(times.argmax())])


def _near(some: Around) -> tuple[int, ...]:
    """Words that stand near many of the firings, and near little else; one firing a document is looked at."""
    text = some.text
    _, first = np.unique(some.document, return_index=True)
    own = some.take(np.sort(first)[:NEAR_TEXTS])
    reach = [step for step in range(-REACH, REACH + 1) if step]
    token = np.concatenate([own.at(step) for step in reach])
    row = np.tile(np.arange(len(own)), len(reach))
    useful = text.vocabulary.content_V[token]
    pair = np.unique(token[useful].astype(np.int64) * len(own) + row[useful])
    token_T, start_T, times_T = np.unique(pair // len(own), return_index=True, return_counts=True)
    share_T = text.near_share_V[token_T]
    good = (times_T >= DOCUMENTS) & (share_T <= NEAR_SHARE) & (times_T >= NEAR_LIFT * share_T * len(own))
    rows = {
        int(token_T[t]): set((pair[start_T[t] : start_T[t] + times_T[t]] % len(own)).tolist())
        for t in np.flatnonzero(good)
    }
    chosen: list[int] = []
    left = set(range(len(own)))
    while rows and len(chosen) < NEAR_WORDS:
        best = max(rows, key=lambda token: (len(rows[token] & left), -token))
        gain = rows.pop(best) & left
        if len(gain) < 2:
            break
        chosen.append(best)
        left -= gain
    return tuple(chosen) if len(left) <= 0.5 * len(own) else ()
