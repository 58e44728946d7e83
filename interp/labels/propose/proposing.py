"""A name, a claim and a level for each feature, found without a person and without a language model.

Of one feature, the claims that are weighed:

    place     where its tokens stand: the first digit of a number, the last part of a word (`structure.py`)
    word      one word of several tokens, at the one at which it fires (`structure.py`)
    mined     what its clean predicate says (`predicates.level`), or the one that is truest (`mined.py`) where that fires at few of
              its places or above a level that few firings reach; with classes in the place of lists; each also in the documents that its
              firings are in
    kind      what its tokens are words for, by WordNet (`kinds.py`)
    both      a mined predicate in contexts of one subject (`contexts.py`), where the feature fires at less than half of its places
    subject   such contexts alone

Names are made from training and held-out documents. The claims are compared by F1 on the held-out ones, each above its own level
or the one that is best for it there, and the simplest within SIMPLER of the best is taken; a list of more words than one keeps in mind counts
for LISTED of its F1. None is where F1 stays below LEAST_F1. Of a feature with fewer than LEAST held-out firings they are compared on the training documents
too. Whether it is true is for `labels.testing`, on other documents.

A list that is taken all the same is named by a word for it, where there is one (`lists.py`).

Axes    M firing, P position.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from interp.corpus import archives
from interp.evals.contexts import LEAST_PAIRS, Pairs, Pool, pairs
from interp.labels.propose.contexts import candidates, subject
from interp.labels.propose.kinds import Kind, Kinds
from interp.labels.propose.lists import Lists
from interp.labels.propose.mined import between, enough, settings, truest
from interp.labels.propose.short import short
from interp.labels.propose.structure import Structure
from interp.predicates import Around, Claim, Clean, Predicate, Text, read_claim
from interp.predicates.text import COLUMNS, OFFSETS
from interp.predicates.windows import subjects
from interp.predicates.wordnet import wordnet
from interp.progress import bar

SIMPLER = 0.9
LEAST_F1 = 0.1
"""On held-out documents, below which a claim is no name: one of ten places at which it holds and the feature fires is chance."""
LEAST = 10
"""Held-out firings above a level that is chosen by them."""
LONGEST = 1_900
"""Characters of a claim, which a label has to hold."""
LISTED = 0.75
"""Of its F1, what a list of `lists.LONG` words or more counts for: a reader learns less from it."""
AT_ONCE = 256
"""Features whose contexts' candidates are read together."""
SELDOM = 0.5
"""Share of its places at which a feature fires below which contexts are asked which."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A label that nobody has tested yet."""

    feature: int
    name: str
    claim: str
    """As search writes it (`at:(…)`)."""
    level: float
    """The activation above which it is claimed; at least a quarter of all activation is (`mined.MASS`)."""
    method: str
    """place, word, mined, kind, subject or both."""
    f1: float
    """On held-out documents (of few firings there: on training documents too), which it was chosen by; nan where it was not measured."""
    n: int
    """Firings there above the level."""

    @property
    def text(self) -> str:
        """The two-level form that is shown: the name, and what exactly is claimed."""
        return f"{self.name} — {read_claim(self.claim).sentence}"


@dataclass(frozen=True)
class _Candidate:
    method: str
    name: str
    claim: Claim
    level: float
    listed: Predicate | None = None
    """What it says of tokens, where that is a long list."""


@dataclass(frozen=True, eq=False)
class _Ground:
    """Positions that claims are weighed on, what stands there looked up once."""

    around: Around
    place_N: np.ndarray
    """By position, its number among them; -1 elsewhere."""

    @staticmethod
    def of(position_P: np.ndarray, text: Text) -> "_Ground":
        around = text.around(position_P)
        for offset in OFFSETS:
            around.at(offset)
        place_N = np.full(len(text.token_N), -1, dtype=np.int32)
        place_N[position_P] = np.arange(len(position_P))
        return _Ground(around, place_N)


@dataclass(frozen=True, eq=False)
class _Feature:
    """What is known of a feature before its contexts are looked at."""

    number: int
    position_M: np.ndarray
    """Where it fires, ascending."""
    value_M: np.ndarray
    clean: Clean | None
    level: float
    compared: Pairs | None
    """Firings and controls, where contexts are to be asked."""
    about: Sequence[str]
    """What its contexts might be about."""

    @cached_property
    def strong_M(self) -> np.ndarray:
        """Positions above the level."""
        return self.position_M[self.value_M > self.level]

    def among(self, ground: _Ground) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, values) of its firings among these positions, strongest first."""
        place = ground.place_N[self.position_M]
        inside = np.flatnonzero(place >= 0)
        order = inside[np.argsort(-self.value_M[inside], kind="stable")]
        return place[order], self.value_M[order]


class Proposer:
    """Proposes names for the features of one index."""

    def __init__(
        self,
        text: Text,
        fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
        cleans: Callable[[int], Clean | None],
        encode: Callable[[list[str]], torch.Tensor],
        *,
        seed: int = 0,
    ) -> None:
        """`fired` gives all positions (ascending) and values of a feature, `cleans` its predicate and level, `encode` unit
        vectors of texts."""
        self.text, self.fired, self.cleans, self.seed = text.read_by(encode), fired, cleans, seed
        self.encode = remembering(encode)
        self.words = not archives.missing(["wordnet"])

    @cached_property
    def heldout_P(self) -> np.ndarray:
        """Positions of held-out documents that count."""
        return np.flatnonzero(self.text.kept_N & self.text.heldout_D[self.text.document_N])

    @cached_property
    def _heldout(self) -> _Ground:
        return _Ground.of(self.heldout_P, self.text)

    @cached_property
    def _made(self) -> _Ground:
        """The training documents too, for features that fire seldom in the held-out ones."""
        document_N = self.text.document_N
        usable_N = self.text.kept_N & (self.text.heldout_D | self.text.train_D)[document_N]
        return _Ground.of(np.flatnonzero(usable_N), self.text)

    @cached_property
    def _structure(self) -> Structure:
        return Structure(self.text)

    @cached_property
    def _lists(self) -> Lists:
        return Lists(self.text, self.encode, self.words)

    @cached_property
    def _pool(self) -> Pool:
        return Pool(self.text, self.heldout_P)

    @cached_property
    def _kinds(self) -> Kinds:
        return Kinds(self.text)

    def propose(self, feature: int) -> Proposal | None:
        """The feature's proposal; None where no claim explains it."""
        return self.propose_batch([feature])[0]

    def propose_batch(self, features: Sequence[int]) -> list[Proposal | None]:
        """The same of several features, in order; what their contexts might be about is read together."""
        known = [self._known(feature) for feature in features]
        about = [name for one in known for name in one.about]
        if about:
            subjects(self.text).read_phrases(about)
        return [self._chosen(one) for one in known]

    def weigh(self, feature: int, claim: Claim) -> tuple[float, float, int]:
        """(level, F1 there, firings above it) on held-out documents, of a claim that another method makes: above all of the feature's
        firings, or the level that suits it best."""
        position, value = self.fired(feature)
        known = _Feature(feature, position.astype(np.int64), value.astype(np.float64), None, 0.0, None, ())
        return self._weighed(_Candidate("", "", claim, 0.0), known)

    def _known(self, feature: int) -> _Feature:
        position, value = self.fired(feature)
        position_M, value_M, clean = position.astype(np.int64), value.astype(np.float64), self.cleans(feature)
        level = float(np.median(value_M)) if len(value_M) else 0.0
        level = min(level, clean.level) if clean else level
        known = _Feature(feature, position_M, value_M, clean, level, None, ())
        if not len(position_M) or (clean is not None and _decides(clean)):
            return known
        if len(known.among(self._heldout)[0]) < LEAST:  # weighed where contexts are too many to be read
            return known
        here = known.strong_M[self.text.heldout_D[self.text.document_N[known.strong_M]]]
        compared = pairs(here, position_M, self._pool, np.random.default_rng([self.seed, feature]))
        if len(compared) < LEAST_PAIRS:
            return known
        return replace(known, compared=compared, about=candidates(compared.firing_K, self.text))

    def _chosen(self, known: _Feature) -> Proposal | None:
        """The simplest claim that is nearly as true as the truest; None where none is true enough to be said."""
        found = [one for one in self._candidates(known) if len(str(one.claim)) <= LONGEST]
        weighed = [self._weighed(one, known) for one in found]
        worth = [f1 * (LISTED if one.listed else 1.0) for one, (_, f1, _) in zip(found, weighed, strict=True)]
        if max((f1 for _, f1, _ in weighed), default=0.0) < LEAST_F1:
            return None
        place = next(number for number, each in enumerate(worth) if each >= SIMPLER * max(worth))
        one, (level, f1, n) = found[place], weighed[place]
        name = one.name if one.listed is None else self._lists.named(one.listed, one.name)
        return Proposal(
            feature=known.number, name=name, claim=str(one.claim), level=level, method=one.method, f1=f1, n=n
        )

    def _candidates(self, known: _Feature) -> Iterator[_Candidate]:
        """Claims, the simplest first."""
        clean, level = known.clean, known.level
        strong = self._training(known, level)
        for where in self._structure.found(strong):
            yield _Candidate(
                "place" if where.claim.startswith("is:") else "word", where.name, read_claim(where.claim), level
            )
            for setting, words in settings(strong.position_P, self.text):
                yield _Candidate("place", f"{where.name} {words}", read_claim(f"{where.claim} {setting}"), level)
        kind = self._kind(known.strong_M) if self.words else None
        if kind:
            yield _Candidate("kind", f"words for {kind.name}", read_claim(kind.claim), level)
        mined = [_Mined(clean.predicate, clean.level)] if clean else []
        if clean is None or not _decides(clean) or clean.share < SELDOM:
            others = truest(known.position_M, known.value_M, self.text)
            mined += [
                _Mined(one.predicate, one.level) for one in others if not clean or one.predicate != clean.predicate
            ]
        for one in mined:
            yield from self._mined(one, known)
        about = subject(known.compared, self.text, known.about) if known.compared is not None else None
        if about:
            for one in mined:
                name, claim = self._said(one)
                yield _Candidate("both", f"{name} about {about.name}", read_claim(f"{claim} {about.claim}"), one.level)
            yield _Candidate("subject", f"text about {about.name}", read_claim(about.claim), level)

    def _mined(self, one: "_Mined", known: _Feature) -> Iterator[_Candidate]:
        """A mined predicate, first with classes for its lists; and the same in the documents that nearly all of its firings are in."""
        strong = self._training(known, one.level)
        classed = self._structure.classed(one.predicate, strong)
        listed = one.predicate if self._lists.long(one.predicate) else None
        affix = self._lists.affix(one.predicate) if listed else None
        if affix:
            yield _Candidate("mined", affix[0], read_claim(affix[1]), one.level)
        for predicate in (classed, one.predicate):
            if predicate is None:
                continue
            name, claim = self._said(_Mined(predicate, one.level))
            long = listed if predicate is one.predicate else None
            yield _Candidate("mined", name, read_claim(claim), one.level, long)
            if predicate.kind not in COLUMNS:
                for where, words in settings(strong.position_P, self.text):
                    yield _Candidate("mined", f"{name} {words}", read_claim(f"{claim} {where}"), one.level, long)

    def _training(self, known: _Feature, level: float) -> Around:
        """Its firings above a level in training documents, strongest first."""
        inside = np.flatnonzero((known.value_M > level) & self.text.train_D[self.text.document_N[known.position_M]])
        order = inside[np.argsort(-known.value_M[inside], kind="stable")]
        return self.text.around(known.position_M[order])

    def _said(self, one: "_Mined") -> tuple[str, str]:
        """(name, claim) of a predicate."""
        vocabulary = self.text.vocabulary.texts
        lemma = wordnet().lemma if self.words else str
        return short(one.predicate, vocabulary, lemma), one.predicate.claim(vocabulary)

    def _kind(self, strong_M: np.ndarray) -> Kind | None:
        train = strong_M[self.text.train_D[self.text.document_N[strong_M]]]
        return self._kinds.best(self.text.around(train), self.encode) if len(train) else None

    def _weighed(self, one: _Candidate, known: _Feature) -> tuple[float, float, int]:
        """(level, F1 on held-out documents of "the claim holds" for "it fires above the level", how often it does).

        The level is the claim's own, or that at which it is truest, where this is truer by more than SIMPLER or the claim's own leaves
        too few firings.
        """
        ground = self._heldout
        place, value = known.among(ground)
        if len(place) < LEAST:
            ground = self._made
            place, value = known.among(ground)
        holds_P = one.claim.holds(ground.around)
        hits = np.concatenate([[0], np.cumsum(holds_P[place])])
        f1 = 2 * hits / np.maximum(np.arange(len(hits)) + int(holds_P.sum()), 1)
        own = int(np.searchsorted(-value, -one.level))
        ends = np.flatnonzero(np.append(value[1:] < value[:-1], True)) + 1 if len(value) else np.zeros(0, np.int64)
        ends = ends[(ends >= min(LEAST, len(value))) & enough(value)[ends - 1]]
        if not len(ends):
            return one.level, float(f1[own]), own
        best = int(ends[f1[ends].argmax()])
        if own >= ends[0] and f1[own] >= SIMPLER * f1[best]:
            return one.level, float(f1[own]), own
        return between(value, best), float(f1[best]), best


@dataclass(frozen=True)
class _Mined:
    predicate: Predicate
    level: float


def _decides(clean: Clean) -> bool:
    """Whether the feature fires at most places of its predicate; of what is said of documents, and of words near by, recall does not
    tell."""
    return clean.recall >= SELDOM and clean.predicate.kind not in (*COLUMNS, "near")


def of_clean(feature: int, clean: Clean, vocabulary: Sequence[str], lemma: Callable[[str], str]) -> Proposal:
    """What a feature's simplest predicate says, where its firings are not at hand: how true it is was measured with it."""
    said, claim = short(clean.predicate, vocabulary, lemma), clean.predicate.claim(vocabulary)
    return Proposal(feature=feature, name=said, claim=claim, level=clean.level, method="mined", f1=math.nan, n=clean.n)


def propose_all(proposer: Proposer, features: Sequence[int]) -> list[Proposal]:
    """The proposals of several features, in order; features that nothing explains are left out."""
    found: list[Proposal] = []
    with bar("names", len(features), "features") as step:
        for start in range(0, len(features), AT_ONCE):
            some = features[start : start + AT_ONCE]
            found += [one for one in proposer.propose_batch(some) if one]
            step(len(some))
    return found


def remembering(encode: Callable[[list[str]], torch.Tensor]) -> Callable[[list[str]], torch.Tensor]:
    """The encoder, which reads no phrase twice."""
    known: dict[str, torch.Tensor] = {}

    def encoded(phrases: list[str]) -> torch.Tensor:
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return torch.stack([known[phrase] for phrase in phrases])

    return encoded
