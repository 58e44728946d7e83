"""A name, a claim and a level for each feature, found without a person and without a language model.

Of one feature, the claims that are weighed:

    mined     what its clean predicate says (`predicates.level`), or the one that is truest (`mined.py`) where that fires at few of
              its places or above a level that few firings reach; each also in the documents that its firings are in
    kind      what its tokens are words for, by WordNet (`kinds.py`)
    both      a mined predicate in contexts of one subject (`contexts.py`), where the feature fires at less than half of its places
    subject   such contexts alone

Names are made from training and held-out documents. The claims are compared by F1 on the held-out ones, each above its own level
or the one that is best for it there, and the simplest within SIMPLER of the best is taken. None is where F1 stays below LEAST_F1. Whether it is true is for `labels.testing`, on other documents.

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
from interp.labels.propose.mined import between, enough, settings, truest
from interp.labels.propose.short import short
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
    """mined, kind, subject or both."""
    f1: float
    """On held-out documents, which it was chosen by; nan where it was not measured."""
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

    def heldout(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, values) of its firings among the held-out positions, strongest first; `place_N` numbers these."""
        place = place_N[self.position_M]
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
    def _heldout(self) -> Around:
        """What stands there, looked up once."""
        around = self.text.around(self.heldout_P)
        for offset in OFFSETS:
            around.at(offset)
        return around

    @cached_property
    def _place_N(self) -> np.ndarray:
        """By position, its number in `heldout_P`; -1 elsewhere."""
        place_N = np.full(len(self.text.token_N), -1, dtype=np.int32)
        place_N[self.heldout_P] = np.arange(len(self.heldout_P))
        return place_N

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

    def _known(self, feature: int) -> _Feature:
        position, value = self.fired(feature)
        position_M, value_M, clean = position.astype(np.int64), value.astype(np.float64), self.cleans(feature)
        level = float(np.median(value_M)) if len(value_M) else 0.0
        level = min(level, clean.level) if clean else level
        known = _Feature(feature, position_M, value_M, clean, level, None, ())
        if not len(position_M) or (clean is not None and _decides(clean)):
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
        best = max((f1 for _, f1, _ in weighed), default=0.0)
        if best < LEAST_F1:
            return None
        one, (level, f1, n) = next(pair for pair in zip(found, weighed, strict=True) if pair[1][1] >= SIMPLER * best)
        return Proposal(
            feature=known.number, name=one.name, claim=str(one.claim), level=level, method=one.method, f1=f1, n=n
        )

    def _candidates(self, known: _Feature) -> Iterator[_Candidate]:
        """Claims, the simplest first."""
        clean, level = known.clean, known.level
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
        """A mined predicate; and the same in the documents that nearly all of its firings are in."""
        name, claim = self._said(one)
        yield _Candidate("mined", name, read_claim(claim), one.level)
        strong = known.position_M[known.value_M > one.level]
        strong = strong[self.text.train_D[self.text.document_N[strong]]]
        if one.predicate.kind not in COLUMNS:
            for where, words in settings(strong, self.text):
                yield _Candidate("mined", f"{name} {words}", read_claim(f"{claim} {where}"), one.level)

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
        holds_P = one.claim.holds(self._heldout)
        place, value = known.heldout(self._place_N)
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
