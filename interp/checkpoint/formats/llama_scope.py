"""Llama Scope, as published: `hyperparams.json`, `checkpoints/final.safetensors`.

    pre = (x √d / n_in) W + b            n: mean norms of the input's and the output's hook points, nothing taken off x
    a feature passes where pre · ‖w‖ n_out / √d > jump_relu_threshold, and keeps pre
    x̂ = (Σ pre w + b_dec) n_out / √d

The threshold is in the units of raw activations, since lm-saes compares once it has folded the norms of the data and of
the decoder's rows; without `sparsity_include_decoder_norm` a feature passes where pre · n_in / √d is over it. Where
rows have norm 1, this is what sae-lens makes of the same folder, but for transcoders, of which it takes n_out to be n_in.
Source  He et al. 2024, "Llama Scope", and lm-saes' loading of it.
"""

import math
from pathlib import Path
from typing import Any

import torch

from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    check_sizes,
    config_of,
    keys,
    make,
    number_of,
    tensors_of,
    transposed,
    whole_tensors,
)
from interp.checkpoint.formats.hooks import hook_of, told
from interp.types import InterpError

CONFIG = "hyperparams.json"
WEIGHTS = Path("checkpoints") / "final.safetensors"
MATRICES = ("encoder.weight", "encoder.bias", "decoder.weight")
SETTINGS = Settings(
    read=keys(
        "hook_point_in hook_point_out d_model d_sae expansion_factor jump_relu_threshold dataset_average_activation_norm "
        "sparsity_include_decoder_norm use_decoder_bias norm_activation act_fn"
    ),
    harmless=keys(
        "top_k k_warmup_steps bias_init_method init_decoder_norm init_encoder_norm init_encoder_with_decoder_transpose "
        "decoder_exactly_unit_norm remove_gradient_parallel_to_decoder_directions l1_coefficient l1_coefficient_warmup_steps "
        "lp use_ghost_grads use_batch_norm_mse normalize_decoder device dtype seed tp_size ddp_size strict_loading "
        "sae_pretrained_name_or_path init_search lr betas"
    ),
    only={
        "use_glu_encoder": (False,),
        "apply_decoder_bias_to_pre_encoder": (False,),
        "act_fn": ("jumprelu", "topk"),
        "norm_activation": ("dataset-wise", "inference"),
    },
    why={
        "use_glu_encoder": "a second encoder gates the first",
        "apply_decoder_bias_to_pre_encoder": "the decoder's bias is taken off the input",
        "norm_activation": "each input is divided by its own norm, which cannot be folded into weights",
    },
)


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    return (path / CONFIG).exists()


def read(path: Path) -> Foreign:
    """The SAE with its normalisation folded in; InterpError for settings that are not computed here."""
    file, config = path / CONFIG, config_of(path / CONFIG)
    unknown = SETTINGS.check(file, config)
    bias = config.get("use_decoder_bias", True)
    raw = tensors_of(path / WEIGHTS, (*MATRICES, *(["decoder.bias"] if bias else [])))
    whole_tensors(path / WEIGHTS, raw, (*MATRICES, "decoder.bias"))
    W_enc, W_dec = transposed(path, raw["encoder.weight"]), transposed(path, raw["decoder.weight"])
    into, out = _scales(path, config)
    b_dec = raw["decoder.bias"] if bias else torch.zeros(W_dec.shape[1])
    cut, lost = _threshold(file, config, W_dec, into, out)
    t = {
        "W_enc": W_enc * into,
        "b_enc": raw["encoder.bias"],
        "W_dec": W_dec / out,
        "b_dec": b_dec / out,
        "threshold": cut,
    }
    places = [str(config.get(f"hook_point_{side}") or "") for side in ("in", "out")]
    hooks = [hook_of(place) for place in places]
    lost += [told((), "", place) for place, hook in zip(places, hooks, strict=True) if not hook]
    written = None if places[0] == places[1] else hooks[1]
    sae = make(path, t, centred=False, name=path.name, reads=hooks[0], writes=written)
    check_sizes(file, {name: config.get(name) for name in ("d_model", "d_sae")}, sae)
    return Foreign(sae=sae, lost=lost, unknown=unknown)


def _scales(path: Path, config: dict[str, Any]) -> tuple[float, float]:
    """What training multiplied inputs and outputs by."""
    if config.get("norm_activation", "dataset-wise") == "inference":
        return 1.0, 1.0
    norms = config.get("dataset_average_activation_norm")
    if not isinstance(norms, dict):
        raise InterpError(f"{path / CONFIG} normalises by mean norms of its hook points, and does not hold them.")
    root = math.sqrt(number_of(path / CONFIG, config, "d_model"))
    return tuple(root / number_of(path / CONFIG, norms, side) for side in ("in", "out"))  # type: ignore[return-value]


def _threshold(
    file: Path, config: dict[str, Any], W_dec: torch.Tensor, into: float, out: float
) -> tuple[torch.Tensor, list[str]]:
    """(threshold of each feature's pre-activation, what to say of it)."""
    cut, lost = number_of(file, config, "jump_relu_threshold"), []
    if config.get("act_fn") == "topk":
        lost.append("topk: a feature passes by the threshold that is given beside it, as their loader does it")
    norms = W_dec.norm(dim=1)
    if config.get("sparsity_include_decoder_norm") is True:
        if not bool((norms > 0).all()):
            raise InterpError(f"{file} selects by decoder norms, and some decoder rows have norm 0.")
        return cut * out / norms, lost
    if "sparsity_include_decoder_norm" not in config and bool(((norms - 1).abs() > 1e-2).any()):
        lost.append(
            "sparsity_include_decoder_norm is not given: decoder norms are left out of the selection, as in sae-lens"
        )
    return torch.full_like(norms, cut * into), lost
