"""What every format is read into and written from: an `SAE`, and what its file says besides.

Each format's file states its own formula. Where it differs from `SAE`'s, the difference is folded into the weights, so
that the numbers stay: codes and reconstructions are the same functions of the same inputs. What cannot be folded is
refused; what is merely not held (training settings, groups, a card) is listed.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from interp import places
from interp.sae import SAE
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An SAE out of some file."""

    sae: SAE
    model: str = ""
    """Model it was made for, as the file says; empty when it does not."""
    lost: list[str] = field(default_factory=list)
    """What the file holds and an `SAE` does not, or what had to be guessed: a sentence each."""


def tensors_of(path: Path, needed: tuple[str, ...]) -> dict[str, Tensor]:
    """Float32 tensors of a .safetensors file, or of a .pt file read without running any code it may hold."""
    if not path.exists():
        raise InterpError(f"there is no file {path}; give the folder that holds it.")
    try:
        if path.suffix == ".safetensors":
            raw: Any = load_file(path)
        elif path.suffix == ".npz":
            raw = _npz(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load answers a broken file with whatever its reader stumbles on
        raise InterpError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0] if str(error) else error!r}."
        ) from None
    found = raw.get("state_dict", raw) if isinstance(raw, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InterpError(f"{path} does not hold tensors by name.")
    missing = [name for name in needed if name not in found]
    if missing:
        raise InterpError(f"{path} has no tensor {', '.join(missing)}; it has {', '.join(map(str, found))}.")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in found.items()}


def _npz(path: Path) -> dict[str, Tensor]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def config_of(path: Path) -> dict[str, Any]:
    value = places.read_json(path)
    if not isinstance(value, dict):
        raise InterpError(f"{path} is no object of settings.")
    return value


def make(path: Path, tensors: dict[str, Tensor], **given: Any) -> SAE:
    """The SAE of W_enc (D, F), b_enc, W_dec (F, O), b_dec, with threshold or k; InterpError when shapes disagree."""
    W_enc, W_dec = tensors["W_enc"], tensors["W_dec"]
    if W_enc.ndim != 2 or W_dec.ndim != 2 or min(W_enc.shape) < 1:
        raise InterpError(f"{path}: W_enc has shape {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)}, no matrices.")
    (d_in, d_sae), d_out = W_enc.shape, W_dec.shape[1]
    wanted = {
        "b_enc": (d_sae,),
        "W_dec": (d_sae, d_out),
        "b_dec": (d_out,),
        "threshold": (d_sae,),
        "W_skip": (d_out, d_in),
    }
    for name, shape in wanted.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise InterpError(f"{path}: {name} has shape {tuple(tensors[name].shape)}, where W_enc asks for {shape}.")
    if given.get("centred", True) and d_in != d_out:
        raise InterpError(f"{path}: an SAE that reads {d_in} and writes {d_out} is no autoencoder.")
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InterpError(f"{path}: {name} holds values that are not finite.")
    k = given.get("k")
    if k is not None and not 1 <= k <= d_sae:
        raise InterpError(f"{path}: k is {k}, with {d_sae} features.")
    kept: dict[str, Any] = {name: tensors[name].contiguous() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    extra: dict[str, Any] = {name: tensors[name] for name in ("threshold", "W_skip") if name in tensors}
    if "threshold" in extra:  # below 0 it passes what is positive, in every library
        extra["threshold"] = extra["threshold"].clamp_min(0.0)
    return SAE(**kept, **extra, **given)


def gated(path: Path, t: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gate and magnitude as one threshold: a feature is on where x·w > -b_gate, and gives e^r x·w + b_mag if positive.

    With pre = e^r x·w + b_mag that is pre > max(b_mag - e^r b_gate, 0).
    """
    gain = t["r_mag"].exp()
    if (
        t["W_enc"].ndim != 2
        or gain.shape != t["W_enc"].shape[1:]
        or not t["b_mag"].shape == t["b_gate"].shape == gain.shape
    ):
        raise InterpError(f"{path}: r_mag, b_mag, b_gate and W_enc have shapes that do not belong together.")
    threshold = (t["b_mag"] - gain * t["b_gate"]).clamp_min(0.0)
    kept = {name: t[name] for name in ("W_dec", "b_dec")}
    return kept | {"W_enc": t["W_enc"] * gain, "b_enc": t["b_mag"], "threshold": threshold}


def uncentred(sae: SAE) -> tuple[Tensor, Tensor]:
    """(W_enc, b_enc) that give the same pre-activations from x as the SAE's from x - b_dec."""
    return sae.W_enc, sae.b_enc - sae.b_dec @ sae.W_enc if sae.centred else sae.b_enc


def hook_of(place: str, *, layer: int | None = None, ends: str = "hook_resid_post") -> str:
    """TransformerLens' name for a module's path or a layer number; empty when none is in it."""
    if re.match(r"blocks\.\d+\.", place):
        return place
    found = re.search(r"(?:^|[._/-])(?:layers?|h)[._]?(\d+)(?:\.(\w+))?", place)
    number = layer if found is None else int(found.group(1))
    if number is None:
        return ""
    part = found.group(2) if found else None
    kinds = {"mlp": "hook_mlp_out", "self_attn": "hook_attn_out", "attn": "hook_attn_out", "attention": "hook_attn_out"}
    return f"blocks.{number}.{kinds.get(part or '', ends)}"


def write_json(folder: Path, name: str, value: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def integer(path: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InterpError(f"{path} gives {key} the value {value!r}, where a number from 1 on is needed.")
    return value


def refuse(format_: str, what: str, try_: str) -> InterpError:
    return InterpError(f"{format_} has no place for {what}; {try_}.")
