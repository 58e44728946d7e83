"""Whether the report that lies beside an SAE can be read, is of it, and says what the card says; `--metrics` measures anew."""

from pathlib import Path

from interp.checkpoint import Card
from interp.checkpoint.files import REPORT
from interp.evals.report import read_report
from interp.types import InterpError
from interp.verification.verdict import Check, differs, holds


def check_report(folder: Path, card: Card) -> list[Check]:
    """One check where there is a report, else none."""
    path = folder / REPORT[0]
    if not path.exists():
        return []
    try:
        read = read_report(path, card.sae_sha256)
    except InterpError as error:
        return [differs("report", str(error))]
    said = card.metrics.get("report")
    if isinstance(said, dict) and said.get("headline") != read.summary():
        return [differs("report", "the card's headline is not that of the report")]
    sections = ", ".join(section.name for section in read.sections)
    return [holds("report", f"of these weights: {sections}; its figures were not measured anew")]
