"""What the evidence of an SAE comes to, and what its features mean, as sections of its report."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from interp import places
from interp.evals.figure import Better, Figure, Section
from interp.evals.measures import Measure, Setting
from interp.evals.sections import meaning_section
from interp.evals.words import measure_words
from interp.evidence.card import EvidenceTable, find_evidence
from interp.evidence.labels import TOLD
from interp.evidence.steered import CONTROLS
from interp.index.each_token import fires_on_each
from interp.statistics import wilson
from interp.types import InterpError
from interp.workbench.evidencing import evidence
from interp.workbench.measuring import meaning
from interp.workbench.opening import Opened

ABOVE = ("confirmed", TOLD)
"""Verdicts on a label that lies above the nulls of its own SAE."""
JUDGED = (*ABOVE, "refuted", "undecided")
"""Verdicts on a label that was tried and fired often enough to be judged."""


def own_measures(wb: Opened) -> tuple[Measure, ...]:
    """Measures that need the index or the evidence of the open SAE, which a null has none of."""

    def mean(setting: Setting) -> Section:
        began = time.perf_counter()
        found = meaning(wb, seed=setting.seed)
        return meaning_section(found, _on_index(wb, setting.seed), time.perf_counter() - began)

    def words(setting: Setting) -> Section:
        index, fires = wb.index, wb.index.features["fires"].to_numpy()
        of = _on_index(wb, setting.seed)
        return measure_words(
            index.vocabulary, index.token_counts, fires, partial(fires_on_each, index), of=of, seed=setting.seed
        )  # fmt: skip

    index, file = wb.index_or_none(), find_evidence(wb.folder, wb.card.sae_sha256)
    return (
        Measure(
            name="meaning", title="What features mean", version=1, make=mean, headline=("by_meaning",), nulls=False,
            text=False, default=False, on="" if index is None else str(index.meta.get("sha256", "")),
        ),
        Measure(
            name="words", title="One word, one feature", version=2, make=words, nulls=False, text=False,
            on="" if index is None else str(index.meta.get("sha256", "")),
        ),
        Measure(
            name="evidence", title="What was tested of features", version=2, make=lambda setting: evidence_section(wb),
            headline=("confirmed", "effect_exceeds"), nulls=False, text=False,
            on="" if file is None else places.sha256_file(file),
        ),
    )  # fmt: skip


def _on_index(wb: Opened, seed: int) -> dict[str, Any]:
    """What a section says that is measured on the index's own text."""
    meta = wb.index.meta
    text = {"tokens_sha256": str(meta.get("text_sha256", "")), "positions": int(meta["positions"])}
    return {"text": text, "index_sha256": str(meta.get("sha256", "")), "seed": seed}


def evidence_section(wb: Opened) -> Section:
    """Shares of features by what was tested of them, with Wilson's interval over features.

    Raises InterpError when there is no evidence of these weights.
    """
    began, known = time.perf_counter(), evidence(wb)
    figures = shares(known)
    if not figures:
        raise InterpError(f"the evidence of {wb.card.name} has no part that a share is made of; `interp evidence SAE`.")
    return Section(
        name="evidence",
        title="What was tested of features",
        figures=tuple(figures),
        of={"parts": list(known.parts), "not made": dict(known.missing), "sae_sha256": wb.card.sae_sha256},
        seconds=time.perf_counter() - began,
    )


def shares(known: EvidenceTable) -> list[Figure]:
    """The figures of the parts that are there."""
    column = {name: known.column(name) for name in known.table.column_names if name in _ASKED}
    figures: list[Figure] = []
    if "label_verdict" in column:
        figures += _labels(column)
    if "label_final_verdict" in column and "label_verdict" in column:
        figures += _final(column)
    if "effect_exceeds" in column:
        figures += _effects(column)
    if "steer_verdict" in column:
        figures += _steered(column)
    if "again_found" in column:
        figures += _replicated(column)
    return figures


_ASKED = (
    "label_verdict",
    "label_final_verdict",
    "effect_exceeds",
    "effect_positions",
    "again_found",
    "again_of",
    "steer_verdict",
    "steer_moves",
)


def _share(name: str, says: str, hits: int, of: int, better: Better = "", note: str = "") -> Figure:
    value, low, high = wilson(hits, of)
    return Figure(
        name=name, says=f"share of {says}", value=value, interval=(low, high) if of else None, n=of, unit="features",
        better=better, note=note,
    )  # fmt: skip


def _labels(column: Mapping[str, np.ndarray]) -> list[Figure]:
    verdict = np.array([str(value) for value in column["label_verdict"]])
    live = verdict != "never fires"
    words: dict[str, tuple[str, Better]] = {
        "confirmed": ("the features whose label is confirmed on documents that it was not made from", "higher"),
        TOLD: ("the features whose label is told from chance, but not from labels of a random-weight model", ""),
        "undecided": ("the features whose label is neither told from chance nor refuted", "lower"),
        "refuted": ("the features whose label is refuted", "lower"),
        "too few": ("the features that fire there too seldom for their label to be judged", ""),
        "no claim": ("the features for which no claim was found", ""),
    }
    made = [
        _share(name.replace(" ", "_"), says, int((verdict == name).sum()), int(live.sum()), better)
        for name, (says, better) in words.items()
    ]
    judged = np.isin(verdict, JUDGED)
    made.append(
        _share(
            "told_of_judged",
            "the labels that could be judged that are told from chance, confirmed ones among them",
            int(np.isin(verdict, ABOVE).sum()),
            int(judged.sum()),
            "higher",
            "told from chance is not yet that the label says all that the feature does",
        )
    )
    return made


def _final(column: Mapping[str, np.ndarray]) -> list[Figure]:
    before, after = ([str(value) for value in column[name]] for name in ("label_verdict", "label_final_verdict"))
    both = [later for earlier, later in zip(before, after, strict=True) if earlier in ABOVE and later in JUDGED]
    says = "the labels told from chance that are so on the final documents too, of those that fire often enough there"
    return [_share("told_final", says, sum(later in ABOVE for later in both), len(both), "higher")]


def _effects(column: Mapping[str, np.ndarray]) -> list[Figure]:
    exceeds = column["effect_exceeds"]
    tried = [bool(value) for value in exceeds if value is not None and value == value]
    says = "the features whose ablation changes the next token more than the same amount along other features does"
    return [_share("effect_exceeds", says, sum(tried), len(tried), "higher", "q at most .1 over all features tried")]


def _steered(column: Mapping[str, np.ndarray]) -> list[Figure]:
    verdicts = [value for value in column["steer_verdict"] if isinstance(value, str)]
    moves = [bool(value) for value in column["steer_moves"] if value is not None and value == value]
    drawn = f"of {len(verdicts)} that were drawn by a rule before looking"
    return [
        _share("moves", "the drawn features that move the output beyond their controls", sum(moves), len(moves), "higher", drawn),
        _share(
            "controllers", "the drawn features that do, and leave it text", sum(value in CONTROLS for value in verdicts),
            len(verdicts), "higher", drawn,
        ),
    ]  # fmt: skip


def _replicated(column: Mapping[str, np.ndarray]) -> list[Figure]:
    found = np.asarray(column["again_found"], dtype=np.float64)
    judged = found[np.isfinite(found)]
    of = np.asarray(column["again_of"], dtype=np.float64)
    trainings = int(np.nanmax(of)) if np.isfinite(of).any() else 0
    if not trainings:
        return []
    words = (
        ("replicated", trainings, f"all {trainings} other trainings"),
        ("replicated_once", 1, "at least one other"),
    )
    return [
        _share(
            name, f"the features that are found again in {where}", int((judged >= least).sum()), len(judged), "higher"
        )
        for name, least, where in words
    ]
