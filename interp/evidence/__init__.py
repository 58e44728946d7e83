"""Evidence for every feature: what it causes, beside what chance would."""

from interp.evidence.card import PARTS, Evidence, EvidenceTable, read_evidence
from interp.evidence.effects import FILE, EffectsConfig, Passages, measure_effects
from interp.evidence.part import Part, Said, make_part, read_part, write_part
from interp.evidence.positions import Chosen, choose_positions
from interp.evidence.table import COLUMNS, Summary, about_effects, read_effects, summarise

__all__ = [
    "COLUMNS",
    "FILE",
    "PARTS",
    "Chosen",
    "EffectsConfig",
    "Evidence",
    "EvidenceTable",
    "Part",
    "Passages",
    "Said",
    "Summary",
    "about_effects",
    "choose_positions",
    "make_part",
    "measure_effects",
    "read_effects",
    "read_evidence",
    "read_part",
    "summarise",
    "write_part",
]
