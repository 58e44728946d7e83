"""Edits of one feature, exact: they move an activation along the feature's decoder row and leave the rest as it is.

Axes    B prompt, T token, D d_in.
Units   A strength is an SAE activation, the same number that the index stores.
Source  Templeton et al. 2024, "Scaling Monosemanticity", feature steering: the SAE's error is kept, because only the
        difference between the wanted and the present activation is decoded.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.models import Edit, Site
from interp.sae import SAE
from interp.types import FeatureRef, InterpError, check_feature, unknown

PLACES = ("all", "prompt", "generated")


@dataclass(frozen=True, kw_only=True)
class Clamp:
    """Hold the feature at an activation."""

    feature: int | FeatureRef
    strength: float
    where: str = "all"


@dataclass(frozen=True, kw_only=True)
class Add:
    """Add this much of the feature's decoder row, whatever its activation."""

    feature: int | FeatureRef
    strength: float
    where: str = "all"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Multiply the feature's activation."""

    feature: int | FeatureRef
    strength: float
    where: str = "all"


@dataclass(frozen=True, kw_only=True)
class Ablate:
    """Set the feature's activation to 0."""

    feature: int | FeatureRef
    where: str = "all"


FeatureEdit = Clamp | Add | Scale | Ablate


def model_edit(edit: FeatureEdit, sae: SAE, *, norm_cutoff: float, separator: int) -> Edit:
    """The edit as the model takes it, at the SAE's hook point. Sinks and padding are never moved.

    Raises InterpError when the strength is not finite or the SAE has no such feature.
    """
    feature = edit.feature.feature if isinstance(edit.feature, FeatureRef) else edit.feature
    check_feature(feature, sae.d_sae, sae.name)
    strength = 0.0 if isinstance(edit, Ablate) else edit.strength
    if not math.isfinite(strength):
        raise InterpError(f"the strength {strength} of feature {feature} is not finite; give a number such as 8.0.")
    if edit.where not in PLACES:
        raise unknown("place to edit", edit.where, PLACES)

    def apply(x_BTD: Float[Tensor, "B T D"], site: Site) -> Float[Tensor, "B T D"]:
        keep_BT = editable(x_BTD, site, norm_cutoff, separator)
        if edit.where != "all":
            keep_BT = keep_BT & (site.generated == (edit.where == "generated"))
        move_BT = change(edit, x_BTD.float(), sae, feature) * keep_BT
        moved = x_BTD.float() + move_BT[..., None] * sae.W_dec[feature]
        # Where nothing moves the tensor keeps its very bits.
        return torch.where((move_BT != 0)[..., None], moved.to(x_BTD.dtype), x_BTD)

    return Edit(sae.hook_name, apply)


def change(edit: FeatureEdit, x: Float[Tensor, "*B D"], sae: SAE, feature: int) -> Float[Tensor, "*B"]:
    """By how much the feature's activation is to change at each position."""
    if isinstance(edit, Add):
        return torch.full(x.shape[:-1], edit.strength, device=x.device)
    now = sae.encode_feature(x, feature)
    if isinstance(edit, Scale):
        return now * (edit.strength - 1.0)
    return (edit.strength if isinstance(edit, Clamp) else 0.0) - now


def editable(x_BTD: Float[Tensor, "B T D"], site: Site, norm_cutoff: float, separator: int) -> Bool[Tensor, "B T"]:
    """Positions that an edit may touch: no padding, no first position, no separator, no sink."""
    real = site.real_BT & (site.position_BT > 0) & (site.tokens_BT != separator)
    return real & (x_BTD.float().norm(dim=-1) <= norm_cutoff)
