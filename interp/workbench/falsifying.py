"""The labels of an open SAE tried by editing texts in which their features fire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from interp.evidence import labels as tried
from interp.evidence.card import Of, evidence_folder, find_evidence, read_evidence
from interp.evidence.claimed import Claims, read_claims
from interp.evidence.edited import PART as EDITED
from interp.evidence.edited import EditTest, Failure, Shown, edit_test, show_failure, summarise_edits
from interp.evidence.edits import try_edits
from interp.evidence.excerpts import Stock, name_of, special_tokens
from interp.evidence.part import about_part
from interp.evidence.trials import EditsConfig
from interp.labels.testing import Label
from interp.predicates import read_claim
from interp.types import InterpError, check_feature
from interp.workbench.opening import Opened


@dataclass(frozen=True, kw_only=True)
class EditTests:
    """What edits say of some labels."""

    tests: Mapping[int, EditTest]
    """By feature."""
    without: Mapping[int, str]
    """Of the features that were not tried, why: they have no label, or theirs claims nothing that can be tried."""
    summary: str
    """Of all of them, a sentence or two."""


def edit_tests(wb: Opened, features: Sequence[int] = (), *, config: EditsConfig | None = None) -> EditTests:
    """Try the labels of these features, or of all that have one, by editing texts of the index; see `evidence.edits`.

    Kept under INTERP_HOME: what was tried with the same claim is not tried again, and a call that was killed goes on where it was.
    Raises InterpError when there is no label with a claim, or no index with text of the split labels.
    """
    held = wb.labels.all()
    asked = [check_feature(int(feature), wb.sae.d_sae, wb.card.name) for feature in features] or list(held)
    claims = read_claims(held, asked, wb.index.clean_above, evidence_claims(wb))
    if not claims.labels:
        raise InterpError(f"{_none(asked, claims)}; `interp autolabel {wb.folder}` writes labels that claim something.")
    table = _try(wb, claims.labels, config)
    tests = {int(row["feature"]): edit_test(row) for row in table.to_pylist()}
    return EditTests(tests=tests, without=claims.without, summary=summarise_edits(table))


def show_edit(wb: Opened, failure: Failure, *, config: EditsConfig | None = None) -> Shown:
    """The text of a failure as it is and edited; `config` is what it was tried with.

    Raises InterpError when its text is not on this machine.
    """
    if name_of(wb.index) not in _edited_texts(wb):
        raise InterpError(
            f"the texts that were edited are not those of the index in {wb.index.folder}; `interp index {wb.folder}` of the same text "
            "and `interp evidence SAE --parts edits` try them here."
        )
    special = special_tokens(wb.model, wb.card.separator)
    return show_failure(failure, Stock.of(wb.index), config or EditsConfig(), special)


def _edited_texts(wb: Opened) -> set[str]:
    """Names of the texts from which the edits are that are known here: those that came with the SAE, and those tried on this machine."""
    of: list[Mapping[str, Any]] = []
    path, shipped = evidence_folder(wb.card.sae_sha256) / EDITED.file, find_evidence(wb.folder, wb.card.sae_sha256)
    if path.exists():
        of.append(about_part(EDITED.read(path)))
    if shipped is not None:
        own = Of(name=wb.card.name, model=wb.card.model, sae_sha256=wb.card.sae_sha256, d_sae=wb.sae.d_sae)
        of.append(read_evidence(shipped, own).parts.get(EDITED.name, {}))
    return {str(each["text_sha256"]) for each in of if "text_sha256" in each}


def try_evidence(wb: Opened, *, restart: bool = False, limit: int | None = None, seed: int = 0) -> None:
    """Try the labels that the evidence tells of, or, where none were tried for it, those of the book; with `limit` so many of
    them, drawn at random from the seed: a longer run holds those of a shorter one.

    Raises InterpError as `edit_tests` does.
    """
    config, claims = EditsConfig(restart=restart), evidence_claims(wb)
    features = sorted(claims or wb.labels.all())
    drawn = np.random.default_rng(seed).permutation(features)[:limit].tolist()
    if claims:
        _try(wb, [claims[feature] for feature in drawn], config)
    else:
        edit_tests(wb, drawn, config=config)


def evidence_claims(wb: Opened) -> dict[int, Label]:
    """The claims that the evidence made here tells of, with their exact levels; none where that part was not made."""
    path = evidence_folder(wb.card.sae_sha256) / tried.PART.file
    if not path.exists():
        return {}
    rows = tried.read_labels(path).select(["feature", "claim", "level"]).to_pylist()
    return {
        row["feature"]: Label(feature=row["feature"], claim=read_claim(row["claim"]), level=row["level"] or 0.0)
        for row in rows
        if row["claim"]
    }


def _none(asked: Sequence[int], claims: Claims) -> str:
    """Why none of these features has a claim."""
    if not asked:
        return "no feature has a label"
    if len(asked) == 1:
        return f"feature {asked[0]}: {claims.without[asked[0]]}"
    return f"none of these {len(asked):,} features has a label whose claim can be tried"


def _try(wb: Opened, labels: Sequence[Label], config: EditsConfig | None) -> pa.Table:
    return try_edits(
        wb.model,
        wb.sae,
        wb.card.mask,
        Stock.of(wb.index, wb.meanings),
        labels,
        evidence_folder(wb.card.sae_sha256),
        sae_sha256=wb.card.sae_sha256,
        separator=wb.card.separator,
        config=config,
    )
