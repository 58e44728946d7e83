"""Evidence for every feature: what it causes, beside what chance would."""

from interp.evidence.effects import FILE, EffectsConfig, Passages, measure_effects
from interp.evidence.positions import Chosen, choose_positions
from interp.evidence.table import COLUMNS, Summary, about_effects, read_effects, summarise

__all__ = [
    "COLUMNS",
    "FILE",
    "Chosen",
    "EffectsConfig",
    "Passages",
    "Summary",
    "about_effects",
    "choose_positions",
    "measure_effects",
    "read_effects",
    "summarise",
]
