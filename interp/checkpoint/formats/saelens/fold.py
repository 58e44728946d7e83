"""What training did to activations, or finetuning to features, folded into the weights: they then take raw inputs.

Axes    D d_in, F d_sae, O d_out.
"""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.checkpoint.formats.foreign import config_of, number_of, tensors_of
from interp.types import InterpError

PER_INPUT = {
    "layer_norm": "takes the mean off each input and divides it by its standard deviation",
    "constant_norm_rescale": "scales each input to one norm",
}
"""Ways of normalising that differ from input to input, so that no scale stands for them."""


def fold_norms(t: dict[str, Tensor]) -> dict[str, Tensor]:
    """`rescale_acts_by_decoder_norm`: SAELens' code is topk of pre · ‖w‖, decoded by w / ‖w‖; so are these weights'."""
    norm = t["W_dec"].norm(dim=1).clamp_min(1e-8)
    return t | {"W_enc": t["W_enc"] * norm, "b_enc": t["b_enc"] * norm, "W_dec": t["W_dec"] / norm[:, None]}


def fold_finetuning(path: Path, cfg: dict[str, Any], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """The finetuned factor of each feature, moved into its decoder row.

    Raises InterpError when factors are misshapen, or are there though none is said to be used.
    """
    names = [name for name in ("scaling_factor", "finetuning_scaling_factor") if name in t]
    kept = {name: tensor for name, tensor in t.items() if name not in names}
    factor = t[names[0]].float() if names else None
    if factor is None or bool((factor == 1).all()):
        return kept
    if len(names) > 1 or factor.shape != t["W_dec"].shape[:1]:
        raise InterpError(
            f"{path} has {' and '.join(names)} of shape {tuple(factor.shape)}, where one factor a feature is needed."
        )
    if not cfg.get("finetuning_scaling_factor"):
        raise InterpError(f"{path} has a {names[0]} of each feature, and cfg.json says that none is used.")
    return kept | {"W_dec": t["W_dec"] * factor[:, None]}


def fold_scale(t: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights for raw inputs, of an SAE that was trained on inputs times `scale`.

    Raises InterpError for a scale that is not a positive number.
    """
    if not 0 < scale < math.inf:
        raise InterpError(f"the scale is {scale}; it is the number that training multiplied activations by.")
    parts = {"W_enc": scale, "W_dec": 1 / scale, "b_dec": 1 / scale}
    return t | {name: t[name] * factor for name, factor in parts.items()}


def fold_whitening(path: Path, cfg: dict[str, Any], t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for raw inputs, of an SAE that was trained on (x - mean) M, with x̂ M⁻¹ + mean for its output.

    Raises InterpError when the file beside the weights is missing or of another width.
    """
    white = tensors_of(path / "activation_whitening.safetensors", ("mean", "matrix", "inverse_matrix"))
    d_in = t["W_enc"].shape[0]
    if white["mean"].shape != (d_in,) or not white["matrix"].shape == white["inverse_matrix"].shape == (d_in, d_in):
        raise InterpError(f"{path}: activation_whitening.safetensors is not of {d_in} coordinates.")
    W_enc = white["matrix"] @ t["W_enc"]
    b_dec = t["b_dec"] @ white["inverse_matrix"] + white["mean"]
    folded = t | {"W_enc": W_enc, "W_dec": t["W_dec"] @ white["inverse_matrix"], "b_dec": b_dec}
    if cfg.get("apply_b_dec_to_input", True):
        return folded
    shift = white["mean"] @ W_enc
    gain = t["r_mag"].exp() if "r_mag" in t else 1.0
    parts = {"b_enc": shift, "b_gate": shift, "b_mag": shift * gain}
    return folded | {name: t[name] - part for name, part in parts.items() if name in t}


def for_raw_inputs(path: Path, cfg: dict[str, Any], t: dict[str, Tensor], scale: float | None) -> dict[str, Tensor]:
    """Tensors with the normalisation of inputs folded in; InterpError for one that is not a matter of weights."""
    how = cfg.get("normalize_activations")
    if isinstance(how, str) and how in PER_INPUT:
        raise InterpError(
            f"{path} {PER_INPUT[how]} ({how}): that differs from input to input, so no weights and no scale hold it, and "
            "this version does not compute it."
        )
    if how == "covariance_whitening":
        if scale is not None:
            raise InterpError(f"{path} whitens its inputs, of which a scale is no part; leave --scale out.")
        return fold_whitening(path, cfg, fold_norms(t) if rescales(cfg) else t)
    if how not in (None, "none", "expected_average_only_in"):
        raise InterpError(f"{path} normalises its inputs by {how!r}, which is not known here.")
    if how == "expected_average_only_in" and scale is None:
        scale = _scale_beside(path)
    if scale is None:
        return t
    folded = fold_scale(t, scale)
    if "topk_threshold" in t and rescales(
        cfg
    ):  # it is of activations times decoder norms, which were divided by the scale
        folded["topk_threshold"] = t["topk_threshold"] / scale
    return folded


def rescales(cfg: dict[str, Any]) -> bool:
    """Whether a topk chooses by activation times decoder norm: in training unless it says not, else where it says so."""
    kind = str(cfg.get("architecture"))
    return "topk" in kind and bool(cfg.get("rescale_acts_by_decoder_norm", kind.endswith("batchtopk")))


def _scale_beside(path: Path) -> float:
    """Of `activation_scaler.json`, which lies beside the weights of a run that was not finished."""
    file = path / "activation_scaler.json"
    if not file.exists():
        raise InterpError(
            f"{path} normalises its inputs (expected_average_only_in), which is not folded into its weights; "
            "fold the scale in first (`interp convert --scale`), or every activation would be wrong."
        )
    return number_of(file, config_of(file), "scaling_factor")
