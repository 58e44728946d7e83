"""Features labelled without a person, from the open SAE's index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from interp import places
from interp.labels.automatic import AUTHOR, NOT_TRIED, OUTCOMES, Run, Tested, count, tried, write
from interp.types import InterpError, check_feature
from interp.workbench.opening import Opened

if TYPE_CHECKING:
    from interp.index import FeatureIndex
    from interp.labels.propose.proposing import Proposer
    from interp.predicates import Clean


@dataclass(frozen=True, kw_only=True)
class Named:
    """What was said of one feature."""

    feature: int
    name: str
    claim: str
    """As `at:(…)` takes it."""
    level: float
    """The activation above which it is claimed."""
    method: str
    verdict: str
    """confirmed, refuted, undecided, too few; empty where it was not tried."""
    f1: Sequence[float] | None
    """With the ends of its interval, on the testing documents."""
    q: float | None
    outcome: str
    """What became of it in the book: written, the same, a person's (whose label stays), taken back (and left so),
    tried before (which stays where nothing can be tried)."""


@dataclass(frozen=True, kw_only=True)
class Autolabelled:
    """What a run did."""

    asked: int
    """Features that it was to label; those that never fire are not."""
    labels: Sequence[Named]
    """Those that a claim was found for."""
    verdicts: Mapping[str, int]
    methods: Mapping[str, int]
    outcomes: Mapping[str, int]
    shuffled: Mapping[str, int]
    """What the verdicts are when each feature is given the claim of another one that fires about as often."""
    tested_on: str
    """How much text they were tried on; empty where they were not."""
    lacks: str
    """What could not be done here, and what would bring it."""
    dry_run: bool


def autolabel(
    wb: Opened,
    features: Sequence[int] = (),
    *,
    limit: int | None = None,
    author: str = AUTHOR,
    dry_run: bool = False,
    seed: int = 0,
) -> Autolabelled:
    """Propose, try and write labels of these features, or of all that fire.

    Raises InterpError when there is no index, it has no text of a split that this needs, or another process is at it.
    """
    asked = that_fire(wb, features, limit)
    tested, lacks, on = (_from_examples if wb.index.partial else partial(_in_full, seed=seed))(wb, asked)
    outcomes = write(wb.labels, asked, tested, author=author, dry_run=dry_run, tried=not wb.index.partial)
    own = [tested[feature] for feature in asked if feature in tested]
    return Autolabelled(
        asked=len(asked),
        labels=[_named(one, outcomes.get(one.proposal.feature, "")) for one in own],
        verdicts=count([one.verdict or "not tried" for one in own]),
        methods=count([one.proposal.method for one in own]),
        outcomes={name: sum(each == name for each in outcomes.values()) for name in OUTCOMES},
        shuffled=count([one.figures["shuffled_verdict"] for one in own if one.figures]),
        tested_on=on,
        lacks=lacks,
        dry_run=dry_run,
    )


def that_fire(wb: Opened, features: Sequence[int] = (), limit: int | None = None) -> list[int]:
    """The features to label (all, unless told), ascending; of those that never fire nothing can be said.

    Raises InterpError when there is no such feature.
    """
    fires_F = wb.index.features["fires"].to_numpy()
    numbers = sorted({check_feature(int(feature), wb.sae.d_sae, wb.card.name) for feature in features})
    some = numbers if len(features) else np.flatnonzero(fires_F > 0).tolist()
    return [feature for feature in some if fires_F[feature] > 0][:limit]


def _named(one: Tested, outcome: str) -> Named:
    proposal, figures = one.proposal, one.figures
    return Named(
        feature=proposal.feature,
        name=proposal.name,
        claim=proposal.claim,
        level=proposal.level,
        method=proposal.method,
        verdict=one.verdict,
        f1=list(figures["f1"]) if figures else None,
        q=figures["q"] if figures else None,
        outcome=outcome,
    )


# ---- with all activations ----


@dataclass(frozen=True, eq=False)
class Trials:
    """What autolabelling proposes and tries on the open index, and where it is kept."""

    run: Run
    proposer: "Proposer"
    wordnet: bool
    """Whether words of WordNet were there to be looked for."""

    @property
    def lacks(self) -> str:
        """What could not be done, and what would bring it."""
        return (
            ""
            if self.wordnet
            else "no word of WordNet was looked for, since it is not here (`interp setup --texts` fetches it)."
        )

    def tried(self, wb: Opened, asked: Sequence[int]) -> dict[int, Tested]:
        """Labels of the features that were asked for and of those tried beside them; InterpError as `automatic.tried`."""
        fires_F = wb.index.features["fires"].to_numpy()
        return tried(self.run, self.proposer, asked, fires_F, lambda f: [int(g) for g in wb.index.row(f)["nearest"]])


def trials(wb: Opened, seed: int = 0) -> Trials:
    """Those of these weights, the index's files, the seed and the method."""
    from interp.corpus import archives
    from interp.labels.propose.proposing import Proposer

    index, here = wb.index, not archives.missing(["wordnet"])
    follows_from = {"sae": wb.card.sae_sha256, "files": index.meta["files"], "seed": seed, "wordnet": here}
    run = Run.of(places.cache() / "autolabel", follows_from)
    return Trials(run, Proposer(index.passages, index.fired, _cleans(index), wb.meanings, seed=seed), here)


def _in_full(wb: Opened, asked: Sequence[int], *, seed: int) -> tuple[dict[int, Tested], str, str]:
    """(by feature, its label tried; what is lacking; what it was tried on)."""
    of = trials(wb, seed)
    tested = of.tried(wb, asked)
    return tested, of.lacks, next((one.text for one in tested.values()), "")


def _cleans(index: "FeatureIndex") -> "Callable[[int], Clean | None]":
    """What the index says of clean levels; one that was built before there were any is asked for the firings instead."""
    from interp.predicates import explain

    if index.has_clean_levels:
        return index.clean
    return lambda feature: explain(*index.fired(feature), index.passages)


# ---- with examples only ----


def _from_examples(wb: Opened, asked: Sequence[int]) -> tuple[dict[int, Tested], str, str]:
    """The same of an index that keeps examples: what its predicates say, which nothing here can try."""
    from interp.corpus import archives
    from interp.labels.propose.proposing import of_clean
    from interp.predicates.wordnet import wordnet

    index = wb.index
    full = f"`interp index {wb.folder}` builds the full one"
    if not index.has_clean_levels:
        raise InterpError(
            f"the index in {index.folder} keeps examples only and does not say from which activation on features mean "
            f"what, so there is nothing to name them by; {full}."
        )
    lemma = str if archives.missing(["wordnet"]) else wordnet().lemma
    found = {}
    for feature in asked:
        clean = index.clean(feature)
        if clean is not None:
            held = (
                f"holds at {clean.precision:.0%} ({clean.interval[0]:.0%} to {clean.interval[1]:.0%}) of {clean.n:,} firings "
                "in held-out documents"
                if clean.n
                else "no firing in held-out documents"
            )
            text = f"{NOT_TRIED}, for the index keeps examples only; {held}"
            found[feature] = Tested(proposal=of_clean(feature, clean, index.vocabulary, lemma), figures={}, text=text)
    lacks = (
        f"the index in {index.folder} keeps examples only: names are those of predicates found when it was built, and none "
        f"was tried; {full}, with which words for kinds and subjects are looked for too."
    )
    return found, lacks, ""
