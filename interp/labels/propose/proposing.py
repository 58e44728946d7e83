"""A name, a claim and a level for each feature, found without a person and without a language model.

Of one feature, the claims that are weighed:

    mined     what its simplest predicate says (`predicates.level`), above its clean level
    kind      what its tokens are words for, by WordNet (`kinds.py`)
    subject   what its contexts are about (`contexts.py`), where no predicate explains it
    both      the mined predicate in such contexts, where the feature fires at less than half of the predicate's places

Names are made from training and held-out documents. The claims are compared by F1 on the held-out ones, and the simplest within
SIMPLER of the best is taken. Whether it is true is for `labels.testing`, on other documents.

Axes    M firing, P position.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from interp.corpus import archives
from interp.evals.contexts import LEAST_PAIRS, Pool, pairs
from interp.labels.propose.contexts import Subject, subject
from interp.labels.propose.kinds import Kind, Kinds
from interp.labels.propose.short import short
from interp.predicates import Claim, Clean, Text, read_claim
from interp.predicates.wordnet import wordnet
from interp.progress import bar

SIMPLER = 0.9
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
    """The activation above which it is claimed."""
    method: str
    """mined, kind, subject or both."""
    f1: float
    """On held-out documents, which it was chosen by."""
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
        self.text, self.fired, self.cleans, self.encode, self.seed = text.read_by(encode), fired, cleans, encode, seed
        self.words = not archives.missing(["wordnet"])

    @cached_property
    def heldout_P(self) -> np.ndarray:
        """Positions of held-out documents that count."""
        return np.flatnonzero(self.text.kept_N & self.text.heldout_D[self.text.document_N])

    @cached_property
    def _pool(self) -> Pool:
        return Pool(self.text, self.heldout_P)

    @cached_property
    def _kinds(self) -> Kinds:
        return Kinds(self.text)

    def propose(self, feature: int) -> Proposal | None:
        """The feature's proposal; None where no claim explains it."""
        position, value = self.fired(feature)
        clean = self.cleans(feature)
        found = list(self._candidates(feature, position.astype(np.int64), value.astype(np.float64), clean))
        if not found:
            return None
        figures = [self._f1(one, position.astype(np.int64), value) for one in found]
        best = max(f1 for f1, _ in figures)
        chosen = next(i for i, (f1, _) in enumerate(figures) if f1 >= SIMPLER * best)
        one, (f1, n) = found[chosen], figures[chosen]
        return Proposal(
            feature=feature, name=one.name, claim=str(one.claim), level=one.level, method=one.method, f1=f1, n=n
        )

    def _candidates(
        self, feature: int, position_M: np.ndarray, value_M: np.ndarray, clean: Clean | None
    ) -> Iterator[_Candidate]:
        """Claims, the simplest first."""
        if not len(position_M):
            return
        level = clean.level if clean else float(np.median(value_M))
        strong = position_M[value_M > level]
        kind = self._kind(strong) if self.words else None
        if kind:
            yield _Candidate("kind", f"words for {kind.name}", read_claim(kind.claim), level)
        lemma = wordnet().lemma if self.words else str
        vocabulary = self.text.vocabulary.texts
        if clean:
            said = short(clean.predicate, vocabulary, lemma)
            mined = clean.predicate.claim(vocabulary)
            yield _Candidate("mined", said, read_claim(mined), level)
        if clean is None or clean.recall < SELDOM:
            about = self._subject(feature, strong, position_M)
            if about and clean:
                yield _Candidate("both", f"{said} about {about.name}", read_claim(f"{mined} {about.claim}"), level)
            elif about:
                yield _Candidate("subject", f"text about {about.name}", read_claim(about.claim), level)

    def _kind(self, strong_M: np.ndarray) -> Kind | None:
        train = strong_M[self.text.train_D[self.text.document_N[strong_M]]]
        return self._kinds.best(self.text.around(train), self.encode) if len(train) else None

    def _subject(self, feature: int, strong_M: np.ndarray, every_M: np.ndarray) -> Subject | None:
        here = strong_M[self.text.heldout_D[self.text.document_N[strong_M]]]
        draw = np.random.default_rng([self.seed, feature])
        compared = pairs(here, every_M, self._pool, draw)
        return subject(compared, self.text) if len(compared) >= LEAST_PAIRS else None

    def _f1(self, one: _Candidate, position_M: np.ndarray, value_M: np.ndarray) -> tuple[float, int]:
        """(F1 on held-out documents of "the claim holds" for "it fires above the level", how often it does)."""
        holds_P = one.claim.holds(self.text.around(self.heldout_P))
        strong = position_M[value_M > one.level]
        place = np.searchsorted(self.heldout_P, strong)
        place = np.minimum(place, len(self.heldout_P) - 1)
        place = place[self.heldout_P[place] == strong]
        hits = float(holds_P[place].sum())
        return 2 * hits / max(len(place) + int(holds_P.sum()), 1), len(place)


def propose_all(proposer: Proposer, features: Sequence[int]) -> list[Proposal]:
    """The proposals of several features, in order; features that nothing explains are left out."""
    found = []
    with bar("names", len(features), "features") as step:
        for feature in features:
            one = proposer.propose(feature)
            if one:
                found.append(one)
            step(1)
    return found
