"""What stands over a feature's page: its name, what that claims, who says so, and what became of it when it was tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from interp.evidence.card import Evidence
from interp.evidence.claimed import claim_in
from interp.evidence.labels import TestedLabel
from interp.labels.automatic import level_said
from interp.labels.label import Label
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Of one feature."""

    name: str
    """The label; where there is none, the automatic description."""
    automatic: bool
    """Whether nobody gave the name: a description that was not tried."""
    claim: str
    """As `at:(…)` takes it; empty where the name claims nothing that can be tried."""
    claims: str
    """The same in words."""
    level: float | None
    """The activation above which it is claimed; None where the label does not say."""
    status: str
    """As the label book has it; empty without a label."""
    author: str
    method: str
    created: str
    tags: Sequence[str]
    starred: bool
    verdict: str
    """Of the trial of this very claim (`evidence.labels.ALL_VERDICTS`); `not tried` where there was none."""
    f1: tuple[float, float, float] | None
    """With the ends of its 95 % interval."""
    precision: float | None
    recall: float | None
    fires: int
    """Firings above the level on the documents that it was tried on."""
    documents: int
    chance: float | None
    """The larger of the 95th percentiles of the nulls of its own SAE."""
    random_model: float | None
    """What labels of a random-weight model's features reach."""
    q: float | None


NOT_TRIED = "not tried"


def headline(label: Label | None, description: str, evidence: Evidence | None) -> Headline:
    """Of a feature with this label (None: it has none), and what was tested of it (None: nothing was)."""
    claim, claims, level = _claimed(label)
    tried = None if evidence is None else evidence.label
    same = tried is not None and (not tried.claim or tried.claim == claim or label is None)
    own = tried if same else None
    return Headline(
        name=label.text if label else description,
        automatic=label is None,
        claim=claim,
        claims=claims,
        level=own.level if own is not None and own.claim else level,
        status=label.status if label else "",
        author=label.author if label else "",
        method=label.method if label else "",
        created=label.created if label else "",
        tags=label.tags if label else (),
        starred=label is not None and label.starred,
        verdict=own.verdict if own is not None else NOT_TRIED,
        f1=_figure(own),
        precision=own.precision if own is not None else None,
        recall=own.recall if own is not None else None,
        fires=own.fires if own is not None else 0,
        documents=own.documents if own is not None else 0,
        chance=own.null if own is not None else None,
        random_model=own.null_random_model if own is not None else None,
        q=own.q if own is not None else None,
    )


def _figure(own: TestedLabel | None) -> tuple[float, float, float] | None:
    if own is None or own.f1 is None or own.f1_low is None or own.f1_high is None:
        return None
    return own.f1, own.f1_low, own.f1_high


def _claimed(label: Label | None) -> tuple[str, str, float | None]:
    """(claim, the same in words, the level that the label's note says)."""
    if label is None or not label.predicate:
        return "", "", None
    try:
        claim = claim_in(label.predicate)
    except InterpError:  # it asks something else of a feature, or is of another version
        return "", "", None
    return str(claim), claim.sentence, level_said(label.note)
