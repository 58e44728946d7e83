"""llamascopium (2.0 betas; lm-saes before): `config.json`, `sae_weights.safetensors`.

pre = x W_E + b_E, nothing taken off x; `relu`, `jumprelu` (pre > e^log_threshold) or `topk` of its positive part. With
`sparsity_include_decoder_norm` a feature passes by pre · ‖w‖ and keeps pre. With `norm_activation` dataset-wise the
code is of x √d / (mean norm of the input hook), and x̂ is multiplied by (mean norm of the output hook) / √d.
Their R1-Distill release has the same under lm-saes' names (`encoder.weight`, `log_jumprelu_threshold`), and no norms.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    check_sizes,
    config_of,
    integer,
    keys,
    make,
    refuse,
    tensors_of,
    transposed,
    uncentred,
    whole_tensors,
    write_json,
)
from interp.checkpoint.formats.hooks import hook_of, told
from interp.types import InterpError

WEIGHTS = "sae_weights.safetensors"
LOG = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm."
BEFORE = {"encoder.bias": "b_E", "decoder.bias": "b_D", "log_jumprelu_threshold": LOG}
"""lm-saes' names; its matrices are transposed besides."""
SETTINGS = Settings(
    read=keys(
        "sae_type act_fn norm_activation sparsity_include_decoder_norm top_k hook_point_in hook_point_out "
        "d_model d_sae expansion_factor use_decoder_bias"
    ),
    harmless=keys(
        "use_triton_kernel sparsity_threshold_for_triton_spmm_kernel sparsity_threshold_for_csr jumprelu_threshold_window "
        "dtype device circuit_tracing_mode sae_pretrained_name_or_path strict_loading use_auxk dead_threshold"
    ),
    only={
        "use_glu_encoder": (False,),
        "apply_decoder_bias_to_pre_encoder": (False,),
        "force_unit_decoder_norm": (False,),
    },
    why={
        "use_glu_encoder": "a second encoder gates the first",
        "apply_decoder_bias_to_pre_encoder": "the decoder's bias is taken off the input",
        "force_unit_decoder_norm": "decoder rows are divided by their norms as it runs",
    },
)


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    return (path / WEIGHTS).exists() and (path / "config.json").exists() and not (path / "cfg.json").exists()


def read(path: Path, scale: float | None = None) -> Foreign:
    """`scale` is what training multiplied activations by, for a folder that has normalised them and holds no norms.

    Raises InterpError for settings that are not computed here.
    """
    config = config_of(path / "config.json")
    rule, norms = str(config.get("act_fn", "relu")).lower(), config.get("norm_activation", "dataset-wise")
    if config.get("sae_type", "sae") != "sae":
        raise InterpError(
            f"{path} holds a {config.get('sae_type')!r} of llamascopium; this version reads its plain SAEs."
        )
    if rule not in ("relu", "jumprelu", "topk"):
        raise InterpError(f"{path} selects by {rule!r}, over a batch; convert it to jumprelu in llamascopium first.")
    if norms not in ("inference", "dataset-wise"):
        raise InterpError(f"{path} normalises each {norms} input, which cannot be folded into weights.")
    unknown = SETTINGS.check(path / "config.json", config)
    raw = _tensors(path, rule, config)
    t = {"W_enc": raw["W_E"], "b_enc": raw["b_E"], "W_dec": raw["W_D"], "b_dec": raw["b_D"]}
    if rule != "topk":
        t["threshold"] = raw[LOG].exp() if rule == "jumprelu" else torch.zeros_like(raw["b_E"])
    hooks = [str(config.get(f"hook_point_{side}") or "") for side in ("in", "out")]
    lost = ["lm_config.json"] if (path / "lm_config.json").exists() else []
    if config.get("sparsity_include_decoder_norm", True):
        lost += _fold_norms(path, t)
    if norms == "dataset-wise":
        given = None if scale is None else torch.tensor(math.sqrt(t["W_enc"].shape[0]) / scale)
        _fold_scale(path, t, [raw.get(NORM + hook, given) for hook in hooks])
    places = [hook_of(hook) for hook in hooks]
    lost += [told((), "", hook) for hook, known in zip(hooks, places, strict=True) if not known]
    written = None if hooks[0] == hooks[1] else places[1]
    k = integer(path / "config.json", config, "top_k") if rule == "topk" else None
    sae = make(path, t, k=k, centred=False, name=path.name, reads=places[0], writes=written)
    check_sizes(path / "config.json", {name: config.get(name) for name in ("d_model", "d_sae")}, sae)
    return Foreign(sae=sae, lost=lost, unknown=unknown)


def _tensors(path: Path, rule: str, config: dict[str, Any]) -> dict[str, Tensor]:
    """Under today's names, with zeros for a bias of the decoder that is said not to be there."""
    raw = tensors_of(path / WEIGHTS, ())
    if "encoder.weight" in raw:
        raw = {BEFORE.get(name, name): tensor for name, tensor in raw.items()}
        raw |= {
            new: transposed(path, raw.pop(old))
            for new, old in (("W_E", "encoder.weight"), ("W_D", "decoder.weight"))
            if old in raw
        }
    bias = config.get("use_decoder_bias", True)
    needed = ["W_E", "b_E", "W_D", *(["b_D"] if bias else []), *([LOG] if rule == "jumprelu" else [])]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise InterpError(f"{path / WEIGHTS} has no tensor {', '.join(missing)}; it has {', '.join(raw)}.")
    known = (*needed, LOG, "tokens_since_last_activation", "is_dead")
    whole_tensors(path / WEIGHTS, [name for name in raw if not name.startswith(NORM)], known)
    return raw if bias else raw | {"b_D": torch.zeros(raw["W_D"].shape[-1:])}


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
        raise InterpError(
            f"{path} normalises by mean norms of its hook points, and its weights do not hold them; --scale takes √d "
            "by the norm, which is what training multiplied activations by."
        )
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
        "hook_point_in": sae.reads[0].name,
        "hook_point_out": sae.writes[0].name or sae.reads[0].name,
        "use_glu_encoder": False,
    }
    write_json(folder, "config.json", config)
    return ["the model's name (theirs is in lm_config.json)", "the card, the index and the labels"]


def _factor(d_in: int, d_sae: int) -> float:
    """What times d_in, cut to an integer, is d_sae."""
    factor = d_sae / d_in
    return factor if int(d_in * factor) == d_sae else math.nextafter(factor, math.inf)
