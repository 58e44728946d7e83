"""SAELens: `cfg.json`, `sae_weights.safetensors`; 6.x as it is, and folders of before 6 that carry no version.

Before 6 everything lay at the top level under other names (`hook_point`, `activation_fn_str`), topk was an activation of
the standard architecture, and a finetuning `scaling_factor` multiplied activations on their way to the decoder.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint.formats.foreign import Foreign, config_of
from interp.types import InterpError

OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
ABOUT = ("model_name", "hook_name", "hook_name_out", "hook_head_index", "context_size", "prepend_bos", "dataset_path")


def detect(path: Path) -> bool:
    return (path / "cfg.json").exists() and (path / "sae_weights.safetensors").exists()


def current(cfg: dict[str, Any]) -> dict[str, Any]:
    """A configuration in today's form; one that has the form already comes back as it is.

    As in SAELens, a configuration without a version of 6 or later is an old one.
    """
    about = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    version = str((about or {}).get("sae_lens_version") or cfg.get("sae_lens_version") or "0")
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 6:
        return cfg
    old = {OLD_NAMES.get(key, key): value for key, value in cfg.items()}
    scale = old.get("normalize_activations")
    if isinstance(scale, bool) or scale is None:
        old["normalize_activations"] = "expected_average_only_in" if scale else "none"
    old.setdefault("architecture", "standard")
    options = old.get("activation_fn_kwargs")
    if old.get("activation_fn") == "topk" and isinstance(options, dict) and "k" in options:
        old |= {"architecture": "topk", "k": options["k"]}
    if old.get("activation_fn") not in (None, "relu", "topk"):
        raise InterpError(
            f"cfg.json asks for the activation function {old['activation_fn']!r}, which is not computed here."
        )
    old["metadata"] = {"prepend_bos": True} | {key: old[key] for key in ABOUT if key in old}
    return old


def fold_norms(t: dict[str, Tensor]) -> dict[str, Tensor]:
    """`rescale_acts_by_decoder_norm`: SAELens' code is topk of pre · ‖w‖, decoded by w / ‖w‖; so are these weights'."""
    norm = t["W_dec"].norm(dim=1)
    if not bool((norm > 0).all()):
        raise InterpError("the decoder has rows of norm 0, by which activations cannot be scaled.")
    return t | {"W_enc": t["W_enc"] * norm, "b_enc": t["b_enc"] * norm, "W_dec": t["W_dec"] / norm[:, None]}


def fold_finetuning(t: dict[str, Tensor]) -> dict[str, Tensor]:
    """The finetuned factor of each feature, moved into its decoder row."""
    factor = next((t[name] for name in ("scaling_factor", "finetuning_scaling_factor") if name in t), None)
    if factor is None or factor.shape != t["b_enc"].shape:
        return t
    return t | {"W_dec": t["W_dec"] * factor.float()[:, None]}


def fold_scale(t: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights for raw inputs, of an SAE that was trained on inputs times `scale`."""
    if not scale > 0:
        raise InterpError(f"the scale is {scale}; it is the number that training multiplied activations by.")
    parts = {"W_enc": scale, "W_dec": 1 / scale, "b_dec": 1 / scale}
    return t | {name: t[name] * factor for name, factor in parts.items()}


def read(path: Path, scale: float | None = None) -> Foreign:
    """Through `checkpoint.load`, which reads both forms and folds a scale that is given."""
    from interp.checkpoint.folder import load

    cfg = current(config_of(path / "cfg.json"))
    about = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    sae = load(path, scale=scale)
    lost = []
    if (about or {}).get("prepend_bos"):
        lost.append("prepend_bos: it was trained with a BOS in front, where this project puts the separator")
    if cfg.get("reshape_activations") not in (None, "none"):
        lost.append(f"reshape_activations {cfg['reshape_activations']!r}: give it rows that are flat already")
    return Foreign(sae=sae, model=str((about or {}).get("model_name") or ""), lost=lost)


def write(foreign: Foreign, folder: Path) -> list[str]:
    """In float16 where that loses nothing, else in float32."""
    from interp.checkpoint.folder import OWN, architecture_of, save_weights

    sae = foreign.sae
    if sae.widths:
        raise InterpError("SAELens has no format for crosscoders, so this one stays in ours.")
    tensors = [tensor for tensor in sae.state_dict().values() if tensor is not None]
    exact = all(bool((tensor.half().float() == tensor).all()) for tensor in tensors)
    dtype = torch.float16 if exact else torch.float32
    save_weights(sae, folder, dtype=dtype, model=foreign.model)
    kind = architecture_of(sae)
    own = [f"SAELens itself has no {kind}: only this project opens the folder"] if kind in OWN else []
    return [*own, "the card, the index and the labels: `interp pack` takes the whole folder"]
