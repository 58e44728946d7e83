"""What edits say of a label: how often its claim is wrong about an edited text, and the failures themselves.

Where a feature fires above its label's level, in documents that no label is made from, a stretch of the text is read by itself.

control     the stretch as it is: it fails where the feature is silent in so short a text, or fires and the claim does not hold
edits       of the stretches where both say yes, the minimal edits of `rewriting.KINDS`. After each it is asked whether the claim
            holds and whether the feature fires above the level; an edit that parts them is a failure
kept        edits after which the claim holds still: the feature should fire
broken      edits after which it does not: the feature should be silent
shorter     the same stretches unedited, with a quarter less context: what edits are compared with, for a feature may fall silent
            for that alone

The interval of a share is Wilson's with documents in place of edits, for edits of one text are alike: as wide as if each document were a
single trial. That of the excess is a bootstrap over documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from interp.evidence.part import COUNT, REAL, Columns, read_part
from interp.evidence.rewriting import KINDS, SHORTER
from interp.labels.testing import Label
from interp.statistics import bootstrap_means, wilson

NAME, FILE, FORMAT = "edits", "edits.parquet", 1
CONTROL = "control"
EXAMPLES = 4
"""Failures that are kept of a feature."""
EXAMPLE = pa.struct(
    [
        ("kind", pa.string()),
        ("position", COUNT),
        ("offset", pa.int32()),
        ("removed", COUNT),
        ("tokens", pa.list_(COUNT)),
        ("was", pa.string()),
        ("became", pa.string()),
        ("before", REAL),
        ("after", REAL),
        ("holds", pa.bool_()),
    ]
)


def _by_kind() -> dict[str, tuple[pa.DataType, str]]:
    found = {}
    for kind, words in KINDS.items():
        found[f"{column(kind)}_tried"] = COUNT, f"count: edits of the kind {kind} ({words})"
        found[f"{column(kind)}_failed"] = COUNT, "count: those that are failures"
    return found


def column(kind: str) -> str:
    """How columns of a kind of edits begin."""
    return kind.replace(" ", "_")


COLUMNS: Columns = {
    "feature": (COUNT, "number of the feature"),
    "claim": (pa.string(), "a condition on one position: what was tried"),
    "level": (REAL, "units of the SAE: the activation above which it is claimed"),
    "control_tried": (COUNT, "count: stretches of text around a firing above the level, read by themselves"),
    "control_failed": (COUNT, "count: those in which, unedited, the claim does not hold or the feature does not fire above the level"),
    "control_silent": (COUNT, "count: those of them in which the feature does not fire above the level"),
    "runs": (COUNT, "count: texts that were run through the model for it"),
    "texts": (COUNT, "count: stretches in which the claim holds and the feature fires, which are edited"),
    "documents": (COUNT, "count: documents that these are of"),
    "tried": (COUNT, "count: edits"),
    "failed": (COUNT, "count: edits after which claim and feature disagree"),
    "share": (REAL, "share of the edits that are failures"),
    "share_low": (REAL, "share: lower end of its 95 % interval (Wilson's, a document a trial)"),
    "share_high": (REAL, "share: upper end of it"),
    "kept": (COUNT, "count: edits after which the claim holds still"),
    "kept_failed": (COUNT, "count: those after which the feature does not fire above the level, as it should"),
    "broken": (COUNT, "count: edits after which the claim does not hold"),
    "broken_failed": (COUNT, "count: those after which the feature fires above the level, as it should not"),
    "shorter_tried": (COUNT, "count: of the same stretches unedited, those read with a quarter less context"),
    "shorter_failed": (COUNT, "count: those in which claim and feature disagree"),
    "excess": (REAL, "share of failures among edits less that among shorter stretches, mean over documents"),
    "excess_low": (REAL, "share: lower end of its 95 % bootstrap over documents"),
    "excess_high": (REAL, "share: upper end of it"),
    **_by_kind(),
    "examples": (
        pa.list_(EXAMPLE),
        "the strongest failures: kind; position of the peak in the index; which tokens of the text, seen from there, made way for "
        "which; the words that changed; activation before and after; whether the claim holds after it",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One text read by claim and model."""

    kind: str
    """A kind of edit, CONTROL or SHORTER."""
    position: int
    document: int
    holds: bool
    activation: float
    fires: bool
    """Whether it is above the label's level."""
    offset: int = 0
    removed: int = 0
    tokens: Sequence[int] = ()
    """From `offset` on, seen from the peak, so many tokens made way for these; none of a kind that changes all context."""
    was: str = ""
    became: str = ""

    @property
    def failed(self) -> bool:
        return self.holds != self.fires


def figures(label: Label, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The row of one label, by column."""
    control = [one for one in outcomes if one.kind == CONTROL]
    right = {one.position: one for one in control if one.holds and one.fires}
    again = [one for one in outcomes if one.kind == SHORTER and one.position in right]
    edits = [one for one in outcomes if one.kind in KINDS and one.position in right]
    kept, broken = [one for one in edits if one.holds], [one for one in edits if not one.holds]
    tried_U, failed_U = _by_document(edits)
    documents = len(tried_U)
    share = sum(failed_U.values()) / len(edits) if edits else np.nan
    low, high = wilson(np.array([share * documents]), np.array([documents]))[1:] if edits else (np.array([np.nan]),) * 2
    row: dict[str, Any] = {
        "feature": label.feature,
        "claim": str(label.claim),
        "level": label.level,
        "control_tried": len(control),
        "control_failed": len(control) - len(right),
        "control_silent": sum(not one.fires for one in control),
        "runs": len(outcomes),
        "texts": len(right),
        "documents": len({one.document for one in right.values()}),
        "tried": len(edits),
        "failed": _failed(edits),
        "share": share,
        "share_low": float(low[0]),
        "share_high": float(high[0]),
        "kept": len(kept),
        "kept_failed": _failed(kept),
        "broken": len(broken),
        "broken_failed": _failed(broken),
        "shorter_tried": len(again),
        "shorter_failed": _failed(again),
        **dict(zip(("excess", "excess_low", "excess_high"), _excess(edits, again), strict=True)),
        "examples": _strongest([one for one in edits if one.failed], right),
    }
    for kind in KINDS:
        own = [one for one in edits if one.kind == kind]
        row |= {f"{column(kind)}_tried": len(own), f"{column(kind)}_failed": _failed(own)}
    return row


def _failed(outcomes: Iterable[Outcome]) -> int:
    return sum(one.failed for one in outcomes)


def _by_document(outcomes: Iterable[Outcome]) -> tuple[dict[int, int], dict[int, int]]:
    """By document, how many were tried and how many failed."""
    tried: dict[int, int] = {}
    failed: dict[int, int] = {}
    for one in outcomes:
        tried[one.document] = tried.get(one.document, 0) + 1
        failed[one.document] = failed.get(one.document, 0) + one.failed
    return tried, failed


def _excess(edits: Iterable[Outcome], again: Iterable[Outcome]) -> tuple[float, float, float]:
    """Of documents that have both, the mean difference of the shares that failed, with its interval."""
    (tried, failed), (tried_again, failed_again) = _by_document(edits), _by_document(again)
    both = sorted(tried.keys() & tried_again.keys())
    if not both:
        return np.nan, np.nan, np.nan
    difference_U = np.array([failed[d] / tried[d] - failed_again[d] / tried_again[d] for d in both])
    low, high = bootstrap_means(difference_U[None])
    return float(difference_U.mean()), float(low[0]), float(high[0])


def _strongest(failures: Sequence[Outcome], unedited: Mapping[int, Outcome]) -> list[dict[str, Any]]:
    """The failures that are farthest from what was foreseen, the first of each kind before the second of any."""

    def strength(one: Outcome) -> float:
        share = one.activation / max(unedited[one.position].activation, 1e-12)
        return 1 - share if one.holds else share

    order = sorted(failures, key=lambda one: (-strength(one), one.position, one.kind))
    rank: dict[str, int] = {}
    ranked = []
    for one in order:
        ranked.append((rank.setdefault(one.kind, 0), one))
        rank[one.kind] += 1
    chosen = [one for _, one in sorted(ranked, key=lambda pair: pair[0])[:EXAMPLES]]
    names = [EXAMPLE.field(i).name for i in range(EXAMPLE.num_fields)]
    values = (
        vars(one) | {"before": unedited[one.position].activation, "after": one.activation, "tokens": list(one.tokens)}
        for one in chosen
    )
    return [{name: value[name] for name in names} for value in values]


# ---- read ----


def read_edits(path: Path) -> pa.Table:
    """The table of edits in a file; InterpError when it is missing, damaged, another program's or of another format."""
    return read_part(path, NAME, FORMAT, COLUMNS)
