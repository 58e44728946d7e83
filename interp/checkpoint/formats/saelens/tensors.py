"""Which tensors a folder of SAELens' format holds, of which shapes, and in which type each is stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp import places
from interp.checkpoint.formats.saelens.cfg import current
from interp.sae.shards import ONE, Shards
from interp.types import InterpError

TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")
AXES = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "threshold": 0}
"""Along which axis of a tensor its features lie; the others have none."""
_FOUR = ("W_enc", "b_enc", "W_dec", "b_dec")
KINDS: dict[str, tuple[str, ...]] = {
    "standard": _FOUR,
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
    "topk": _FOUR,
    "batchtopk": (*_FOUR, "topk_threshold"),
    "matryoshka_batchtopk": (*_FOUR, "topk_threshold"),
    "jumprelu": (*_FOUR, "threshold"),
    "transcoder": _FOUR,
    "skip_transcoder": (*_FOUR, "W_skip"),
    "jumprelu_transcoder": (*_FOUR, "threshold"),
    "jumprelu_skip_transcoder": (*_FOUR, "threshold", "W_skip"),
    "topk_transcoder": _FOUR,
    "topk_skip_transcoder": (*_FOUR, "W_skip"),
    "crosscoder": (*_FOUR, "threshold"),
}
"""What is read, with the tensors each needs; the last three are our own, SAELens has no format for them."""
OWN = tuple(KINDS)[-3:]


def check_weights(cfg: Path, weights: Path) -> None:
    """Raises InterpError when weights must not leave this machine: a NaN or infinity, a tensor missing or misshapen.

    Which tensors there must be, and their shapes, is told for the kinds of `KINDS`; of others only that all is finite.
    """
    said = places.read_json(cfg)
    said = current(said) if isinstance(said, dict) else {}
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{weights} cannot be read: {error}.") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(is_sound(name, tensor).all()):
            raise InterpError(f"{weights}: {name} holds a NaN or an infinity; train or convert it again.")
    kind = said.get("architecture")
    if isinstance(kind, str) and kind in KINDS:
        d_in = said.get("d_in")
        check_shapes(str(weights), kind, tensors, d_in, said.get("d_sae"), said.get("d_out", d_in))


def check_shapes(where: str, kind: str, tensors: Mapping[str, Tensor], d_in: Any, d_sae: Any, d_out: Any) -> None:
    """Raises InterpError when a tensor that this kind needs is not there or not of the shape that it must have."""
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,), "W_skip": (d_out, d_in)}
    shapes |= {"topk_threshold": ()}
    for name in KINDS[kind]:
        if name not in tensors:
            raise InterpError(f"{where} has no tensor {name}, which a {kind} SAE needs; it is not whole.")
        wanted, shape = shapes.get(name, (d_sae,)), tuple(tensors[name].shape)
        if shape != wanted:
            raise InterpError(f"{where}: {name} has shape {shape}, where {wanted} is needed.")


def is_sound(name: str, tensor: Tensor) -> Tensor:
    """True where a value may stand: finite, but for thresholds of +inf, which say that a feature never fires."""
    return tensor.isfinite() | (tensor == torch.inf) if name == "threshold" else tensor.isfinite()


def stored(x: Tensor, shards: Shards = ONE) -> Tensor:
    """A tensor as it is kept: float16, or float32 where float16 loses more than rounding does (it holds 6e-5 to 65,504
    well, and raw activations may be larger or smaller). With `shards` x is this rank's part of it."""
    half, whole = x.half(), x.float()
    lost, norm = (shards.norm_features(part) for part in (half.float() - whole, whole))
    return half if lost <= 2**-10 * norm else whole
