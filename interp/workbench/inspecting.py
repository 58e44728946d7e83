"""What a person who doubts a feature looks at: where its label is wrong, and which edits of a text part the two."""

from interp.evidence.card import evidence_folder
from interp.evidence.contrary import Contrary, find_contrary
from interp.evidence.edited import PART as EDITS
from interp.evidence.edited import EditTest, edit_test
from interp.evidence.excerpts import name_of
from interp.evidence.headline import Headline, headline
from interp.evidence.part import about_part
from interp.index.read import Example
from interp.types import InterpError
from interp.views import FeaturePage
from interp.workbench.evidencing import evidence as known
from interp.workbench.finding import feature as show_feature
from interp.workbench.opening import Opened


def headline_of(page: FeaturePage) -> Headline:
    """What stands over a feature's page."""
    return headline(page.label, page.description, page.evidence)


def level_of(wb: Opened, feature: int, said: Headline) -> float:
    """The activation above which a label's claim is made: its own, else the feature's clean level."""
    return max(float(wb.index.clean_above[feature]), 0.0) if said.level is None else said.level


def contrary(wb: Opened, feature: int, page: FeaturePage | None = None) -> Contrary:
    """Examples that speak against a feature's label (see `evidence.contrary`); `page` is the feature's, if it is at hand.

    Raises InterpError when its label claims nothing that can be tried, or cannot be tried on this text.
    """
    said = headline_of(page or show_feature(wb, feature, looks=False))
    if not said.claim:
        why = "it has no label" if said.automatic else "its label claims nothing that can be tried"
        raise InterpError(f"nothing can speak against the name of feature {feature}: {why}.")
    level = level_of(wb, feature, said)
    encode = wb.meanings if "about:" in said.claim else None
    return find_contrary(wb.index, feature, said.claim, level, encode=encode)


def edits_of(wb: Opened, page: FeaturePage) -> EditTest | None:
    """What edits say of the label that stands: as the evidence has it, else as it was tried on this machine; None where it was not."""
    claim = headline_of(page).claim
    record = page.evidence.records.get(EDITS.name) if page.evidence is not None else None
    if isinstance(record, EditTest) and record.claim == claim and record.tried:
        return record
    path = evidence_folder(wb.card.sae_sha256) / EDITS.file
    if not path.exists():
        return None
    table = EDITS.read(path)
    rows = table.filter(table["feature"].to_numpy() == page.feature).to_pylist()
    return next((edit_test(row) for row in rows if row["claim"] == claim), None)


def failed_texts(wb: Opened, page: FeaturePage, edits: EditTest) -> list[Example]:
    """The text of each failure, unedited; none where the index that is open is not the one whose texts were edited."""
    evidence = page.evidence
    if evidence is not None and evidence.records.get(EDITS.name) is edits:
        made_of = known(wb).parts[EDITS.name]
    else:
        made_of = about_part(EDITS.read(evidence_folder(wb.card.sae_sha256) / EDITS.file))
    if made_of.get("text_sha256") != name_of(wb.index):
        return []
    return wb.index.stretches(page.feature, [failure.position for failure in edits.failures])
