"""Sets of edits kept under a name for the open SAE."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.steering import FeatureEdit, Preset
from interp.steering import presets as kept
from interp.workbench.opening import Opened
from interp.workbench.steering import check_edits


def presets(wb: Opened) -> list[str]:
    """Names of the sets of edits kept for this SAE."""
    return kept.names(wb.card.sae_sha256)


def preset(wb: Opened, name: str | Path | Mapping[str, Any]) -> Preset:
    """The preset of that name, in that file, or with that content, when it is for this SAE."""
    preset = kept.read(name, wb.card.sae_sha256)
    check_edits(wb, preset.edits)
    return preset


def save_preset(wb: Opened, name: str, edits: Sequence[FeatureEdit], *, note: str = "") -> Path:
    """Keep the edits under a name; the file that comes back can be passed on."""
    check_edits(wb, edits)
    card = wb.card
    hashes = {"sae_sha256": card.sae_sha256, "model_sha256": card.model_sha256}
    return kept.save(Preset(name=name, note=note, sae=card.name, edits=list(edits), **hashes))
