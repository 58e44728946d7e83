"""Edits that undo or disturb each other, said in sentences."""

from collections.abc import Sequence

import torch

from interp.steering.binding import BoundEdit, Feature, beside
from interp.steering.edits import Ablate, Clamp, describe

NEAR = 0.5
"""Two features' decoder rows with a larger cosine are named as a conflict."""


def find_conflicts(edits: Sequence[BoundEdit]) -> list[str]:
    """Sentences on edits that undo or disturb each other; the later one has the last word."""
    pairs = [(former, later) for place, later in enumerate(edits) for former in edits[:place]]
    return [sentence for former, later in pairs if (sentence := _conflict(former, later))]


def _conflict(former: BoundEdit, later: BoundEdit) -> str:
    apart = {former.edit.where, later.edit.where} == {"prompt", "generated"}
    shared = [name for name in later.hook_names if name in former.rows]
    if apart or not shared:
        return ""
    if _same(former, later):
        if isinstance(later.edit, (Clamp, Ablate)):
            return f"{describe(later.edit)} undoes the earlier {describe(former.edit)} wherever both act."
        return f"{describe(later.edit)} acts on what the earlier {describe(former.edit)} left."
    a, b = (beside({name: bound.rows[name] for name in shared}) for bound in (former, later))
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    if abs(cosine) <= NEAR:
        return ""
    said = f"{describe(later.edit)} disturbs the earlier {describe(former.edit)}"
    return f"{said}: their directions have a cosine of {cosine:.2f}."


def _same(a: BoundEdit, b: BoundEdit) -> bool:
    """Whether two edits are of one feature or direction: an SAE can be named in several ways, and its weights tell."""
    if a.feature is None or b.feature is None:
        return a.edit.feature == b.edit.feature
    return _same_sae(a.feature, b.feature) and a.feature.number == b.feature.number


def _same_sae(a: Feature, b: Feature) -> bool:
    return a.home is b.home or (a.home.sha256 != "" and a.home.sha256 == b.home.sha256)
