"""From a training state to an SAE in raw units.

Axes    B batch row, D d_in, O d_out, F d_sae.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.checkpoint import stored
from interp.sae import SAE, Architecture
from interp.sae.batchtopk import threshold_for
from interp.sae.thresholds import feature_thresholds
from interp.training.state import State
from interp.types import Hook


@torch.no_grad()
def finish(state: State, architecture: Architecture, held_out_BD: Float[Tensor, "B D"] | None) -> SAE:
    """The SAE in raw units, decoder rows of norm 1, weights rounded as they are stored; where the architecture has no threshold
    of its own, one is measured on held-out inputs after rounding (without them, the last batch's is taken).

    With inputs scaled by s_D, targets by s_O and activations by c (the mean of s_O): W_enc s_D / c, W_dec c / s_O, and
    biases and thresholds / c give the same reconstruction of raw rows.
    """
    p, made = state.p, architecture.inference(state.p)
    unit = state.scale_out.mean()
    W_dec = p["W_dec"] * (unit / state.scale_out)
    # Activations take the decoder's norm, so that one unit of any feature moves the stream by 1.
    norm_F = W_dec.norm(dim=1) if made.k is None else torch.ones(len(W_dec), device=W_dec.device)
    norm_F = torch.where(norm_F > 1e-8, norm_F, 1.0)
    weights: dict[str, Any] = {
        "W_enc": _rounded((made.W_enc * state.scale_in * (norm_F / unit)[:, None]).T.contiguous()),
        "b_enc": _rounded(made.b_enc * norm_F / unit),
        "W_dec": _rounded(W_dec / norm_F[:, None]),
        "b_dec": _rounded(p["b_dec"] / state.scale_out),
    }
    if "W_skip" in p:
        weights["W_skip"] = _rounded(p["W_skip"] * state.scale_in / state.scale_out[:, None])
    reads = tuple(Hook("", width) for width in architecture.traits.widths)  # whose names training does not know
    traits: dict[str, Any] = {"centred": architecture.traits.centred, "reads": reads}
    if made.k is not None:
        return SAE(**weights, k=made.k, **traits)
    if made.threshold is not None:
        return SAE(**weights, threshold=_rounded(made.threshold * norm_F / unit), **traits)
    assert made.per_row is not None
    if held_out_BD is None:
        return SAE(**weights, threshold=_rounded(float(state.hint) / unit * norm_F), **traits)
    held_out_BD = held_out_BD.to(state.device)
    u_BD = held_out_BD - weights["b_dec"] if traits["centred"] else held_out_BD
    # In the units in which features were chosen, before activations took the decoder's norm.
    W_FD, b_F = weights["W_enc"].T / norm_F[:, None], weights["b_enc"] / norm_F
    level = threshold_for(u_BD, W_FD, b_F, made.per_row)
    return SAE(**weights, threshold=_rounded(level * norm_F), **traits)


def with_feature_thresholds(sae: SAE, x_BD: Float[Tensor, "B D"], y_BO: Float[Tensor, "B O"], k: int) -> SAE:
    """A finished SAE with a threshold for each feature, set on these rows, rounded as it is stored."""
    weights: dict[str, Any] = sae.state_dict()
    if sae.device.type == "mps":  # which has no float64
        here = SAE(**{name: value.cpu() for name, value in weights.items()}, centred=sae.centred, reads=sae.reads)
        weights["threshold"] = feature_thresholds(here, x_BD, y_BO, k).to(sae.device)
    else:
        weights["threshold"] = feature_thresholds(sae, x_BD, y_BO, k)
    return SAE(**weights | {"threshold": _rounded(weights["threshold"])}, centred=sae.centred, reads=sae.reads)


def _rounded(x: Tensor) -> Tensor:
    return stored(x).float()
