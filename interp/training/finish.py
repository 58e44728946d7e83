"""From a training state to an SAE in raw units.

Axes    B batch row, D d_in, O d_out, F d_sae; of a cross-layer transcoder L layer, R rank, F features of one layer.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.checkpoint import stored
from interp.sae import SAE, Architecture
from interp.sae.batchtopk import threshold_for
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.cross_layer_rule import CrossLayer
from interp.sae.shards import ONE, Shards
from interp.sae.thresholds import feature_thresholds
from interp.training.state import State
from interp.types import Hook


@torch.no_grad()
def finish(
    state: State, architecture: Architecture, held_out_BD: Float[Tensor, "B D"] | None, shards: Shards = ONE
) -> SAE:
    """The SAE in raw units, decoder rows of norm 1, weights rounded as they are stored; where the architecture has no threshold
    of its own, one is measured on held-out inputs after rounding (without them, the last batch's is taken).

    With inputs scaled by s_D, targets by s_O and activations by c (the mean of s_O): W_enc s_D / c, W_dec c / s_O, and
    biases and thresholds / c give the same reconstruction of raw rows. Where ranks share the features, each gets its part.
    """
    p, made = state.p, architecture.inference(state.p)
    unit = state.scale_out.mean()
    W_dec = p["W_dec"] * (unit / state.scale_out)
    # Activations take the decoder's norm, so that one unit of any feature moves the stream by 1.
    norm_F = W_dec.norm(dim=1) if made.k is None else torch.ones(len(W_dec), device=W_dec.device)
    norm_F = torch.where(norm_F > 1e-8, norm_F, 1.0)
    weights: dict[str, Any] = {
        "W_enc": _rounded((made.W_enc * state.scale_in * (norm_F / unit)[:, None]).T.contiguous(), shards),
        "b_enc": _rounded(made.b_enc * norm_F / unit, shards),
        "W_dec": _rounded(W_dec / norm_F[:, None], shards),
        "b_dec": _rounded(p["b_dec"] / state.scale_out),
    }
    if "W_skip" in p:
        weights["W_skip"] = _rounded(p["W_skip"] * state.scale_in / state.scale_out[:, None])
    reads = tuple(Hook("", width) for width in architecture.traits.widths)  # whose names training does not know
    traits: dict[str, Any] = {"centred": architecture.traits.centred, "reads": reads}
    if made.k is not None:
        return SAE(**weights, k=made.k, **traits)
    if made.threshold is not None:
        return SAE(**weights, threshold=_rounded(made.threshold * norm_F / unit, shards), **traits)
    assert made.per_row is not None
    if held_out_BD is None:
        return SAE(**weights, threshold=_rounded(float(state.hint) / unit * norm_F, shards), **traits)
    held_out_BD = held_out_BD.to(state.device)
    u_BD = held_out_BD - weights["b_dec"] if traits["centred"] else held_out_BD
    threshold_F = _measured_threshold(u_BD, weights["W_enc"], weights["b_enc"], norm_F, made.per_row, shards)
    return SAE(**weights, threshold=threshold_F, **traits)


def _measured_threshold(
    u_BD: Tensor, W_enc: Tensor, b_enc: Tensor, norm_F: Tensor, k: int, shards: Shards = ONE
) -> Float[Tensor, " F"]:
    """The thresholds, rounded, above which k entries a row lie: one level in the units in which features were chosen, which was
    before activations took the decoder's norm."""
    return _rounded(threshold_for(u_BD, W_enc.T / norm_F[:, None], b_enc / norm_F, k, shards) * norm_F, shards)


@torch.no_grad()
def finish_cross_layer(state: State, rule: CrossLayer, held_out_LBD: Float[Tensor, "L B D"]) -> CrossLayerTranscoder:
    """The transcoder in raw units, what a unit of each feature writes at all layers of norm 1, weights rounded as they are stored; each
    layer's threshold is measured on held-out inputs after rounding.

    Targets' scales s_m go into mix, whose rows then get norm 1 from the decoders.
    """
    p = state.p
    mix = p["mix"] / state.scale_out
    size = mix.norm(dim=2, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    mix, W_dec = mix / size, p["W_dec"] * size[..., None]
    alike = torch.einsum("lrs,lrfo->lsfo", mix @ mix.transpose(1, 2), W_dec)
    norm_LF = (alike * W_dec).sum((1, 3)).clamp_min(0).sqrt()
    norm_LF = torch.where(norm_LF > 1e-8, norm_LF, 1.0)
    W_enc = (p["W_enc"] * state.scale_in[:, None, None] * norm_LF[..., None]).transpose(1, 2)
    made = {
        "W_enc": W_enc,
        "b_enc": p["b_enc"] * norm_LF,
        "W_dec": W_dec / norm_LF[:, None, :, None],
        "b_dec": p["b_dec"] / state.scale_out[:, None],
    }
    made = {name: torch.stack([_rounded(one) for one in of]) for name, of in made.items()}
    held = zip(held_out_LBD.to(state.device), made["W_enc"], made["b_enc"], norm_LF, strict=True)
    cuts = [_measured_threshold(x, W, b, norm_F, rule.k) for x, W, b, norm_F in held]
    weights: dict[str, Any] = made | {"threshold": torch.stack(cuts), "mix": mix}
    return CrossLayerTranscoder(**weights)


def with_feature_thresholds(sae: SAE, x_BD: Float[Tensor, "B D"], y_BO: Float[Tensor, "B O"], k: int) -> SAE:
    """A finished SAE with a threshold for each feature, set on these rows, rounded as it is stored."""
    weights: dict[str, Any] = sae.state_dict()
    if sae.device.type == "mps":  # which has no float64
        here = SAE(**{name: value.cpu() for name, value in weights.items()}, centred=sae.centred, reads=sae.reads)
        weights["threshold"] = feature_thresholds(here, x_BD, y_BO, k).to(sae.device)
    else:
        weights["threshold"] = feature_thresholds(sae, x_BD, y_BO, k)
    return SAE(**weights | {"threshold": _rounded(weights["threshold"])}, centred=sae.centred, reads=sae.reads)


def _rounded(x: Tensor, shards: Shards = ONE) -> Tensor:
    return stored(x, shards).float()
