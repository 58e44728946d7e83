"""An SAE out of a folder of SAELens' format, of any version."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from interp import places
from interp.checkpoint.card import WEIGHTS, Card, verify_files
from interp.checkpoint.formats.foreign import gated, integer, make, whole_tensors
from interp.checkpoint.formats.saelens.cfg import OTHERS, SETTINGS, TANH, current, place_of
from interp.checkpoint.formats.saelens.fold import fold_finetuning, fold_norms, for_raw_inputs, rescales
from interp.checkpoint.formats.saelens.tensors import AXES, KINDS
from interp.sae import SAE
from interp.sae.dictionary import with_widths
from interp.sae.shards import Shards
from interp.types import Hook, InterpError, parse_hooks


def opened(
    path: Path, device: str = "cpu", *, check: bool = True, scale: float | None = None
) -> tuple[SAE, dict[str, Any], list[str]]:
    """(SAE, its configuration in today's form, what it sets that is not known here) of a folder of SAELens' format.

    Raises InterpError, saying what is wrong, for a folder that cannot be opened as it is.
    """
    if not path.is_dir():
        raise InterpError(f"there is no folder {path}; give the folder that holds cfg.json and {WEIGHTS}.")
    for name in ("cfg.json", WEIGHTS):
        if not (path / name).exists():
            raise InterpError(f"{path} is not a checkpoint: it has no {name}.")
    raw = places.read_json(path / "cfg.json")
    cfg = current(raw) if isinstance(raw, dict) else {}
    kind = cfg.get("architecture")
    if not isinstance(kind, str) or kind not in KINDS:
        why = f" ({OTHERS[kind]})" if isinstance(kind, str) and kind in OTHERS else ""
        raise InterpError(f"{path} holds an SAE of architecture {kind!r}{why}; this version reads {', '.join(KINDS)}.")
    unknown = SETTINGS.check(path / "cfg.json", cfg)
    if "topk" not in kind:
        idle = [key for key in ("k", "rescale_acts_by_decoder_norm") if cfg.get(key)]
        unknown += [f"{key} = {cfg[key]!r} of a {kind}" for key in idle]
    card = Card.read(path) if (path / "card.json").exists() else None
    if card is not None and check:
        verify_files(path)
    try:
        tensors = load_file(path / WEIGHTS, device=device)
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{path / WEIGHTS} cannot be read: {error}.") from None
    tensors = _whole(path, kind, tensors)
    said = (cfg.get("d_in"), cfg.get("d_sae")), (cfg.get("d_sae"), cfg.get("d_out", cfg.get("d_in")))
    shapes = tuple(tensors["W_enc"].shape), tuple(tensors["W_dec"].shape)
    if said != shapes:
        raise InterpError(f"{path}: cfg.json says W_enc is {said[0]} and W_dec {said[1]}, the weights are {shapes}.")
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    floats = for_raw_inputs(path, cfg, fold_finetuning(path, cfg, floats), scale)
    return _opened(path, kind, cfg, floats, card), cfg, unknown


def opened_part(path: Path, shards: Shards) -> SAE:
    """The SAE of one rank's features, of a folder that training wrote; no more than these is read.

    Raises InterpError when the weights are not those that the card names.
    """
    if shards.leads:
        verify_files(path)
    cfg = current(places.read_json(path / "cfg.json"))
    held = shards.held(integer(path / "cfg.json", cfg, "d_sae"))
    with safe_open(path / WEIGHTS, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in KINDS[cfg["architecture"]]}
        parts = {n: s[held] if AXES.get(n) == 0 else s[:, held] if n in AXES else s[:] for n, s in slices.items()}
        floats = {name: part.float().contiguous() for name, part in parts.items()}
    return _opened(path, cfg["architecture"], cfg, floats, Card.read(path))


def _whole(path: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, of which none that the kind needs is missing and none is there that it does not have."""
    if "threshold" in KINDS[kind] and "threshold" not in tensors and "log_threshold" in tensors:
        tensors = tensors | {"threshold": tensors["log_threshold"].exp()}
        tensors.pop("log_threshold")
    missing = [name for name in KINDS[kind] if name not in tensors]
    if missing:
        raise InterpError(f"{path / WEIGHTS} has no tensor {', '.join(missing)}; it is not whole.")
    whole_tensors(path / WEIGHTS, tensors, (*KINDS[kind], "scaling_factor", "finetuning_scaling_factor"))
    return tensors


def _opened(path: Path, kind: str, cfg: dict[str, Any], floats: dict[str, Tensor], card: Card | None) -> SAE:
    """The SAE of a configuration and tensors whose matrices have its sizes."""
    k = integer(path / "cfg.json", cfg, "k") if kind.startswith("topk") else None
    if rescales(cfg) and cfg.get("normalize_activations") != "covariance_whitening":
        floats = fold_norms(floats)
    weights = _weights(path, kind, floats)
    widths = cfg.get("widths") or ()
    if not isinstance(widths, list | tuple) or not all(isinstance(width, int) for width in widths):
        raise InterpError(f"{path}/cfg.json gives widths the value {widths!r}, where a list of numbers is needed.")
    name, hook = (card.name, card.hook_name) if card else (path.name, place_of(cfg, "hook_name"))
    out = place_of(cfg, "hook_name_out")
    centred = cfg.get("apply_b_dec_to_input", "transcoder" not in kind)
    if not isinstance(centred, bool) or (centred and "transcoder" in kind):
        raise InterpError(
            f"{path}/cfg.json gives apply_b_dec_to_input the value {centred!r}, which is none for a {kind}."
        )
    reads = with_widths(parse_hooks(hook), widths) if widths else (Hook(hook),)
    squashes = cfg.get("activation_fn") == TANH
    return make(path, weights, k=k, centred=centred, name=name, reads=reads, writes=_written(out), tanh=squashes)


def _written(name: str) -> tuple[Hook, ...] | None:
    """The hook point of a transcoder's output; None where the file names none."""
    return (Hook(name),) if name else None


def _weights(path: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a kind as `SAE` takes them: ReLU is a threshold of 0, a gate another threshold."""
    kept = {name: tensors[name] for name in KINDS[kind] if name != "topk_threshold"}
    if kind in ("standard", "transcoder", "skip_transcoder"):
        return kept | {"threshold": torch.zeros_like(kept["b_enc"])}
    if "topk_threshold" in tensors:
        if tensors["topk_threshold"].numel() != 1:
            raise InterpError(
                f"{path / WEIGHTS} has a topk_threshold of shape {tuple(tensors['topk_threshold'].shape)}."
            )
        return kept | {"threshold": tensors["topk_threshold"].expand(kept["b_enc"].shape).clone()}
    return gated(path, kept) if kind == "gated" else kept
