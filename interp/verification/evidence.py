"""Whether the evidence that lies beside an SAE can be read and is of it; its figures are not made anew, for that takes minutes."""

from pathlib import Path

from interp.checkpoint import Card
from interp.checkpoint.files import EVIDENCE
from interp.evidence.card import Of, read_evidence
from interp.types import InterpError
from interp.verification.verdict import Check, differs, holds


def check_evidence(folder: Path, card: Card, d_sae: int) -> list[Check]:
    """One check where there is evidence, else none."""
    if not (folder / EVIDENCE).exists():
        return []
    try:
        read = read_evidence(
            folder / EVIDENCE, Of(name=card.name, model=card.model, sae_sha256=card.sae_sha256, d_sae=d_sae)
        )
    except InterpError as error:
        return [differs("evidence", str(error))]
    return [holds("evidence", f"of these weights: {', '.join(read.parts)}; its figures were not measured anew")]
