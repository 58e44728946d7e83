"""The label that was tried for every feature: what it claims, how it did on text it was not made from, and where it holds.

A row a feature. Two further tables may stand beside it, each a part of its own with columns of the same prefix: `RANDOM`, the null of a
model of random weights, and `FINAL`, the same claims on the final half of the reserved documents, which nothing else reads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.evidence.part import COUNT, REAL, Columns, Part, Row, Said, about_part, make_part, read_part
from interp.labels.automatic import Tested
from interp.labels.scope import Scope
from interp.labels.testing import VERDICTS, Q
from interp.predicates import read_claim
from interp.render.words import counted
from interp.statistics import wilson
from interp.types import InterpError

FORMAT = 1
NO_CLAIM, SILENT = "no claim", "never fires"
TOLD = "told from chance"
"""Of a label that lies above the nulls of its own SAE, but not above what labels of a random-weight model's features reach."""
ALL_VERDICTS = (*VERDICTS, TOLD, NO_CLAIM, SILENT)
FIGURES = {
    "f1": "F1 of the claim (it holds) for the feature (it fires above the level)",
    "precision": "of the firings, those at which the claim holds",
    "recall": "of the places where the claim holds, those at which the feature fires",
    "random": "AUROC of the claim, firings against silent positions drawn at random",
    "hard": "AUROC of the claim, firings against the same tokens elsewhere and the firings of the nearest features",
    "fuzzing": "AUROC of the claim, firings against silent positions a few tokens off",
}
PLACES = 3
"""Decimals of figures of a scope: there are many of them."""
SCOPE = pa.list_(
    pa.struct(
        [
            ("part", pa.string()),
            ("value", pa.string()),
            ("verdict", pa.string()),
            ("fires", COUNT),
            ("documents", COUNT),
            ("precision", REAL),
            ("low", REAL),
            ("high", REAL),
        ]
    )
)
_BANDS = pa.list_(REAL)


def _figures() -> dict[str, tuple[pa.DataType, str]]:
    ends = {"": "", "_low": "; lower end of its 95 % bootstrap over documents", "_high": "; upper end of it"}
    return {
        f"{name}{end}": (REAL, f"share: {said}{more}") for name, said in FIGURES.items() for end, more in ends.items()
    }


COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "number of the feature"),
    "name": (pa.string(), "text: what the label calls it"),
    "claim": (pa.string(), "a condition on one position, as at:(…) takes it: what exactly is claimed"),
    "level": (REAL, "units of the SAE: the activation above which it is claimed"),
    "method": (pa.string(), "how the name came about: mined, kind, subject or both"),
    "verdict": (pa.string(), f"{', '.join(ALL_VERDICTS)}: what became of the claim on the testing documents"),
    "fires": (COUNT, "count: firings above the level there"),
    "documents": (COUNT, "count: documents that these are in"),
    "holds": (COUNT, "count: places there where the claim holds"),
    **_figures(),
    "bands": (_BANDS, "share: AUROC against random silent positions, of each fifth of the firings from strong to weak"),
    "bands_low": (_BANDS, "share: lower ends of their 95 % bootstraps"),
    "bands_high": (_BANDS, "share: upper ends of them"),
    "null_shuffled": (REAL, "share: 95th percentile of the F1 of other labels' claims for this feature"),
    "null_matched": (REAL, "share: 95th percentile of the F1 of this claim for other features that fire about as often"),
    "p": (REAL, "probability: how often both nulls reach the F1"),
    "q": (REAL, "false discovery rate at which it is called (Benjamini and Hochberg, over all labels tried)"),
    "shuffled_verdict": (pa.string(), "what the verdict is on another feature's claim in its place"),
    "scope": (SCOPE, "where it holds: each language and form of the text, and each source that it fires in; precision there with its 95 % interval"),
}  # fmt: skip
RANDOM_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "number of the feature"),
    "null_random_model": (REAL, "share: 95th percentile of the F1 of labels of an SAE of a model of random weights"),
}
FINAL_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "feature": (COUNT, "number of the feature"),
    "final_verdict": (pa.string(), "the verdict on the final documents, which nothing else reads"),
    "final_fires": (COUNT, "count: firings above the level there"),
    "final_documents": (COUNT, "count: documents that these are in"),
    **{
        f"final_{name}": (kind, f"{words}; on the final documents")
        for name, (kind, words) in _figures().items()
        if name.split("_")[0] in ("f1", "precision", "recall")
    },
    "final_holds": (pa.bool_(), "whether the claim holds there too: F1's lower end above each null's 95th percentile"),
}


# ---- made ----


def make_labels(
    d_sae: int,
    fires_F: np.ndarray,
    tested: Mapping[int, Tested],
    scopes: Mapping[int, Sequence[Scope]],
    about: Mapping[str, Any],
) -> pa.Table:
    """The part's table: a row for every feature, with what was tried of it; `about` says of which weights and text.

    Raises InterpError when a label was not tried, for there is then no evidence.
    """
    rows = [_row(feature, int(fires_F[feature]), tested.get(feature), scopes.get(feature)) for feature in range(d_sae)]
    values = {name: [row[name] for row in rows] for name in COLUMNS}
    return make_part("labels", FORMAT, COLUMNS, values, about)


def _row(feature: int, fires: int, one: Tested | None, scopes: Sequence[Scope] | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"feature": feature}
    if one is None:
        return row | {"verdict": NO_CLAIM if fires else SILENT}
    if not one.figures:
        raise InterpError(
            f"the label of feature {feature} was not tried ({one.text}); only what was tried is evidence."
        )
    figures = one.figures
    for name in FIGURES:
        row[name], row[f"{name}_low"], row[f"{name}_high"] = figures[name]
    for place, end in enumerate(("", "_low", "_high")):
        row[f"bands{end}"] = [_finite(band[place]) for band in figures["bands"]]
    for name in (
        "verdict",
        "fires",
        "documents",
        "holds",
        "null_shuffled",
        "null_matched",
        "p",
        "q",
        "shuffled_verdict",
    ):
        row[name] = figures[name]
    for name in ("name", "claim", "level", "method"):
        row[name] = getattr(one.proposal, name)
    row["scope"] = None if scopes is None else [_part(each) for each in scopes if each.fires or each.part != "source"]
    return row


def _part(one: Scope) -> dict[str, Any]:
    value, low, high = (_finite(round(each, PLACES)) for each in one.precision)
    kept = {name: getattr(one, name) for name in ("part", "value", "verdict", "fires", "documents")}
    return kept | {"precision": value, "low": low, "high": high}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def judged_again(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """The verdicts where the null of a random model is known too: what is told from chance is confirmed only above that as well.

    It takes nothing else back: that labels of a random model's features are as good does not make a claim less true.
    """
    found = []
    for before, low, null in zip(*(columns[name] for name in ("verdict", "f1_low", "null_random_model")), strict=True):
        told = before in ("confirmed", TOLD) and null is not None
        found.append(before if not told else "confirmed" if low is not None and low > null else TOLD)
    return found


# ---- told ----


@dataclass(frozen=True, kw_only=True)
class TestedLabel:
    """The label that was tried for one feature."""

    name: str
    claim: str
    level: float
    method: str
    verdict: str
    """One of ALL_VERDICTS; name and claim are empty where there was no claim to try."""
    fires: int
    documents: int
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    precision: float | None
    recall: float | None
    null: float | None
    """The larger of the 95th percentiles of the nulls of its own SAE."""
    null_random_model: float | None
    """That of labels of a random-weight model's features, where it is known."""
    q: float | None
    scope: Sequence[Mapping[str, Any]]
    """`part`, `value`, `verdict`, `fires`, `documents`, `precision`, `low`, `high` of each part of the text where it fires."""
    final_verdict: str
    """On the final documents; empty where it was not tried there."""
    final_f1: float | None

    @property
    def claimed(self) -> str:
        """Name, and behind a dash what exactly is claimed."""
        return f"{self.name} — {read_claim(self.claim).sentence}" if self.claim else self.name

    def said(self) -> list[Said]:
        """The verdict with its figures, then where it holds and where not."""
        if self.verdict == SILENT:
            return [Said("It never fires in the indexed text, so there is nothing to name it by.", shown=False)]
        if self.verdict == NO_CLAIM:
            return [Said("No claim was found that explains where it fires, so it has no tested label.", shown=False)]
        if self.verdict == "too few":
            how = f"{counted(self.fires, 'firing')} in {counted(self.documents, 'testing document')}"
            return [Said(f"The label {self.claimed} could not be judged: {how}.", shown=False)]
        held = self.verdict == "confirmed"
        head = f"The label {self.claimed} is {self.verdict}" if self.claim else f"The label is {self.verdict}"
        figures = (
            f"F1 {_interval(self.f1, self.f1_low, self.f1_high)} at {counted(self.fires, 'firing')} in "
            f"{counted(self.documents, 'document')} that it was not made from, chance {_number(self.null)} (q {_number(self.q)})"
        )
        if self.null_random_model is not None:
            but = ", but labels" if self.verdict == TOLD else "; labels"
            figures += f"{but} of a random-weight model's features reach {_number(self.null_random_model)}"
        return [Said(f"{head}: {figures}.", shown=held), *self._finally(), *_where(self.scope)]

    def _finally(self) -> list[Said]:
        if not self.final_verdict:
            return []
        held = self.final_verdict == "confirmed"
        return [Said(f"On the final documents it is {self.final_verdict} (F1 {_number(self.final_f1)}).", shown=held)]


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "not known" if value is None else f"{value:.2f} ({_number(low)} to {_number(high)})"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2g}"


SAID = {
    "does not": "The label does not hold in",
    "unclear": "It is unclear whether the label holds in",
    "too little text": "There is too little text to say whether the label holds in",
    "holds": "The label holds in",
}
FORMS = {"code": "what looks like code", "list": "lists"}
"""As they are told beside languages, of which code is one."""


def _where(scope: Sequence[Mapping[str, Any]]) -> list[Said]:
    """A sentence for each thing that was found, languages and forms by name; of sources, which are many, those where it does not hold."""
    said = []
    for found, words in SAID.items():
        parts = [one for one in scope if one["verdict"] == found]
        named = [one for one in parts if one["part"] != "source" or found == "does not"]
        sources = len([one for one in parts if one["part"] == "source"]) if found == "holds" else 0
        listed = [
            f"{FORMS.get(one['value'], one['value']) if one['part'] == 'form' else one['value']} (n {one['fires']:,})"
            for one in named
        ]
        listed += [counted(sources, "source")] if sources else []
        if listed:
            said.append(Said(f"{words} {', '.join(listed)}.", shown=found == "holds"))
    return said


def _record(row: Row) -> TestedLabel:
    nulls = [row.get(f"label_null_{name}") for name in ("shuffled", "matched")]
    own: dict[str, Any] = {name: row[f"label_{name}"] or "" for name in ("name", "claim", "method")}
    own |= {name: row[f"label_{name}"] for name in ("f1", "f1_low", "f1_high", "precision", "recall", "q")}
    return TestedLabel(
        **own,
        level=row["label_level"] or 0.0,
        verdict=row["label_verdict"] or NO_CLAIM,
        fires=row["label_fires"] or 0,
        documents=row["label_documents"] or 0,
        null=max((null for null in nulls if null is not None), default=None),
        null_random_model=row.get("label_null_random_model"),
        scope=row["label_scope"] or [],
        final_verdict=row.get("label_final_verdict") or "",
        final_f1=row.get("label_final_f1"),
    )


def _summary(table: pa.Table) -> str:
    count = {name: int(pc.sum(pc.equal(table["label_verdict"], name)).as_py() or 0) for name in ALL_VERDICTS}
    tried = sum(count[name] for name in (*VERDICTS, TOLD))
    random = "label_null_random_model" in table.column_names
    told = (
        f"{count[TOLD]:,} one that is told from chance but no better than the best twentieth of the labels that the same method gives to "
        "features of a random-weight model, "
        if random
        else ""
    )
    null = int(pc.sum(pc.equal(table["label_shuffled_verdict"], "confirmed")).as_py() or 0)
    share, low, high = wilson(null, tried)
    sentence = (
        f"Of {len(table):,} features {count['confirmed']:,} have a label that is confirmed on text it was not made from, {told}"
        f"{count['refuted']:,} one that is refuted, {count['undecided']:,} one that is undecided; {count['too few']:,} fire there too "
        f"seldom to judge, for {count[NO_CLAIM]:,} no claim was found, and {count[SILENT]:,} never fire. "
    )
    if tried:
        sentence += (
            f"With another feature's claim in its place, {null:,} of {tried:,} ({share:.2%}, {low:.2%} to {high:.2%}) would be "
            f"confirmed (q ≤ {Q:g})."
        )
    return sentence.strip()


def _final_summary(table: pa.Table) -> str:
    told = [_held(table, verdict) for verdict in ("confirmed", TOLD)]
    tried = [
        (held, of, words) for (held, of), words in zip(told, ("confirmed labels", f"labels {TOLD}"), strict=True) if of
    ]
    if not tried:
        return "Of the confirmed labels none fires often enough in the final documents to be tried there."
    said = []
    for held, of, words in tried:
        share, low, high = wilson(held, of)
        said.append(f"of {of:,} {words} that could be tried {held:,} hold ({share:.1%}, {low:.1%} to {high:.1%})")
    return f"On the final documents, which nothing else reads, {'; '.join(said)}."


def _held(table: pa.Table, verdict: str) -> tuple[int, int]:
    """(that hold on the final documents, that could be tried there), of the labels with this verdict."""
    own = pc.and_(pc.equal(table["label_verdict"], verdict), pc.is_valid(table["label_final_holds"]))
    tried = table.filter(own)
    return int(pc.sum(tried["label_final_holds"]).as_py() or 0), len(tried)


# ---- the parts ----


def read_labels(path: Path) -> pa.Table:
    """The table of tested labels; InterpError as `part.read_part`."""
    return read_part(path, "labels", FORMAT, COLUMNS)


PART = Part(
    name="labels",
    prefix="label",
    file="labels.parquet",
    columns=COLUMNS,
    question="what features are called, and whether that holds on text it was not made from",
    how="`interp evidence SAE --parts labels` makes it, of a full index (`interp index SAE`)",
    read=read_labels,
    about=about_part,
    record=_record,
    summary=_summary,
)


def _further(name: str, columns: Columns, **more: Any) -> Part:
    return Part(
        name=name,
        prefix="label",
        file=f"{name}.parquet",
        columns=columns,
        read=partial(read_part, name=name, format_=FORMAT, columns=columns),
        about=about_part,
        **more,
    )


RANDOM = _further(
    "random",
    RANDOM_COLUMNS,
    question="how labels of an SAE of a model of random weights do",
    how="it is measured apart from that command, for it takes longer",
)
FINAL = _further(
    "final",
    FINAL_COLUMNS,
    question="whether confirmed labels hold on the final documents",
    how="it is measured apart from that command, once",
    summary=_final_summary,
)
