"""llamascopium (2.0 betas; lm-saes before): `config.json`, `sae_weights.safetensors`.

pre = x W_E + b_E, nothing taken off x; `relu`, `jumprelu` (pre > e^log_threshold) or `topk` of its positive part. With
`sparsity_include_decoder_norm` a feature passes by pre · ‖w‖ and keeps pre. With `norm_activation` dataset-wise the
code is of x √d / (mean norm of the input hook), and x̂ is multiplied by (mean norm of the output hook) / √d.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.checkpoint.formats.foreign import (
    Foreign,
    config_of,
    hook_of,
    integer,
    make,
    refuse,
    tensors_of,
    uncentred,
    write_json,
)
from interp.types import InterpError

WEIGHTS = "sae_weights.safetensors"
LOG = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."


def detect(path: Path) -> bool:
    return (path / WEIGHTS).exists() and (path / "config.json").exists() and not (path / "cfg.json").exists()


def read(path: Path) -> Foreign:
    config = config_of(path / "config.json")
    rule, norms = str(config.get("act_fn", "relu")).lower(), config.get("norm_activation", "dataset-wise")
    if config.get("sae_type", "sae") != "sae" or config.get("use_glu_encoder"):
        raise InterpError(
            f"{path} holds a {config.get('sae_type')!r} of llamascopium; this version reads its plain SAEs."
        )
    if rule not in ("relu", "jumprelu", "topk"):
        raise InterpError(f"{path} selects by {rule!r}, over a batch; convert it to jumprelu in llamascopium first.")
    if norms not in ("inference", "dataset-wise"):
        raise InterpError(f"{path} normalises each {norms} input, which cannot be folded into weights.")
    raw = tensors_of(path / WEIGHTS, ("W_E", "b_E", "W_D", *((LOG,) if rule == "jumprelu" else ())))
    b_D = raw.get("b_D", torch.zeros(raw["W_D"].shape[-1]))
    t = {"W_enc": raw["W_E"], "b_enc": raw["b_E"], "W_dec": raw["W_D"], "b_dec": b_D}
    if rule != "topk":
        t["threshold"] = raw[LOG].exp() if rule == "jumprelu" else torch.zeros_like(raw["b_E"])
    hooks = [str(config.get(f"hook_point_{side}") or "") for side in ("in", "out")]
    lost = ["lm_config.json"] if (path / "lm_config.json").exists() else []
    if config.get("sparsity_include_decoder_norm", True):
        lost += _fold_norms(path, t)
    if norms == "dataset-wise":
        _fold_scale(path, t, [raw.get(NORM + hook) for hook in hooks])
    given: dict[str, Any] = {"k": integer(path / "config.json", config, "top_k")} if rule == "topk" else {}
    names = {"hook_name": hook_of(hooks[0]), "hook_name_out": "" if hooks[0] == hooks[1] else hook_of(hooks[1])}
    return Foreign(sae=make(path, t, centred=False, name=path.name, **names, **given), lost=lost)


def _fold_norms(path: Path, t: dict[str, Tensor]) -> list[str]:
    """Selection by pre · ‖w‖: a threshold divides by it; for topk the norm moves from the decoder into the encoder."""
    norm = t["W_dec"].norm(dim=-1) if t["W_dec"].ndim == 2 else torch.zeros(0)
    if norm.shape != t["b_enc"].shape or not bool((norm > 0).all()):
        raise InterpError(f"{path} has decoder rows of norm 0, or of another number than features.")
    if "threshold" in t:
        t["threshold"] = t["threshold"] / norm
        return []
    if bool(((norm - 1).abs() < 1e-6).all()):
        return []
    t["W_enc"], t["b_enc"], t["W_dec"] = t["W_enc"] * norm, t["b_enc"] * norm, t["W_dec"] / norm[:, None]
    return [
        "decoder norms are 1 now, and each feature's activations multiplied by the norm it had "
        f"({float(norm.min()):.3g} to {float(norm.max()):.3g}): it selects by that product"
    ]


def _fold_scale(path: Path, t: dict[str, Tensor], norms: list[Tensor | None]) -> None:
    if any(norm is None or norm.numel() != 1 or not float(norm) > 0 for norm in norms):
        raise InterpError(f"{path} normalises by mean norms of its hook points, and its weights do not hold them.")
    into, out = (math.sqrt(t["W_enc"].shape[0]) / float(norm) for norm in norms if norm is not None)
    t["W_enc"], t["W_dec"], t["b_dec"] = t["W_enc"] * into, t["W_dec"] / out, t["b_dec"] / out


def write(foreign: Foreign, folder: Path) -> list[str]:
    """In inference form: nothing is normalised, selection is by the pre-activation itself."""
    sae = foreign.sae
    if sae.d_in != sae.d_out or sae.W_skip is not None:
        raise refuse("llamascopium", "two widths or a skip connection", "convert to saelens")
    W_E, b_E = uncentred(sae)
    tensors = {"W_E": W_E, "b_E": b_E, "W_D": sae.W_dec, "b_D": sae.b_dec}
    if sae.threshold is not None:
        tensors[LOG] = sae.threshold.log()
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
    config = {
        "sae_type": "sae",
        "d_model": sae.d_in,
        "expansion_factor": _factor(sae.d_in, sae.d_sae),
        "use_decoder_bias": True,
        "act_fn": "topk" if sae.k else "jumprelu",
        "norm_activation": "inference",
        "sparsity_include_decoder_norm": False,
        "top_k": sae.k or 50,
        "use_triton_kernel": False,
        "hook_point_in": sae.hook_name,
        "hook_point_out": sae.hook_name_out or sae.hook_name,
        "use_glu_encoder": False,
    }
    write_json(folder, "config.json", config)
    return ["the model's name (theirs is in lm_config.json)", "the card, the index and the labels"]


def _factor(d_in: int, d_sae: int) -> float:
    """What times d_in, cut to an integer, is d_sae."""
    factor = d_sae / d_in
    return factor if int(d_in * factor) == d_sae else math.nextafter(factor, math.inf)
