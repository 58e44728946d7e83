"""dictionary_learning (0.1 and its newest source): `config.json`, `ae.pt`.

Classes, by `trainer.dict_class`; W is (D, F) here, and thresholds are strict everywhere:

    AutoEncoder             relu((x - bias) W + b)                               AutoEncoderNew does not take the bias off
    GatedAutoEncoder        (x·w + gate_bias > 0) relu(e^r x·w + mag_bias), x less decoder_bias
    JumpReluAutoEncoder     relu(pre), where pre = x W + b > threshold
    AutoEncoderTopK         the k largest of relu((x - b_dec) W + b)
    BatchTopKSAE, MatryoshkaBatchTopKSAE    relu(pre), where it is over one threshold for all
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint.formats.foreign import (
    Foreign,
    config_of,
    gated,
    hook_of,
    integer,
    make,
    refuse,
    tensors_of,
    uncentred,
    write_json,
)
from interp.types import unknown

LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")
CLASSES: dict[str, tuple[str, ...]] = {
    "AutoEncoder": (*LINEAR, "bias"),
    "AutoEncoderNew": (*LINEAR, "decoder.bias"),
    "GatedAutoEncoder": ("encoder.weight", "decoder.weight", "decoder_bias", "r_mag", "gate_bias", "mag_bias"),
    "JumpReluAutoEncoder": (*PLAIN, "threshold"),
    "AutoEncoderTopK": (*LINEAR, "b_dec"),
    "BatchTopKSAE": (*LINEAR, "b_dec", "threshold"),
    "MatryoshkaBatchTopKSAE": (*PLAIN, "threshold"),
}


def detect(path: Path) -> bool:
    return (path / "ae.pt").exists() and (path / "config.json").exists()


def read(path: Path) -> Foreign:
    config = config_of(path / "config.json")
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else config
    kind = str(trainer.get("dict_class"))
    if kind not in CLASSES:
        raise unknown("dictionary class", kind, CLASSES)
    raw = tensors_of(path / "ae.pt", CLASSES[kind])
    tensors, lost = _tensors(path, kind, raw), []
    given: dict[str, Any] = {"centred": kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"), "name": path.name}
    if kind == "AutoEncoderTopK":
        given["k"] = integer(path / "config.json", trainer, "k")
    if "group_sizes" in raw:
        lost.append(f"the groups {raw['group_sizes'].tolist()}, which matter in training only")
    if "threshold" in raw and kind.endswith("SAE") and float(raw["threshold"]) < 0:
        lost.append(
            "the threshold was never measured (it is negative): every positive activation passes, as in their code"
        )
    if config.get("buffer"):
        lost.append("the buffer's settings")
    place, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    given["hook_name"] = hook_of(place, layer=layer if isinstance(layer, int) else None)
    lost.append(f"no hook point is in the files; {given['hook_name'] or 'none'} was read from {place or layer!r}")
    return Foreign(sae=make(path, tensors, **given), model=str(trainer.get("lm_name") or ""), lost=lost)


def _tensors(path: Path, kind: str, raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, with a threshold a feature for all but topk."""
    t = {name: raw[name] for name in PLAIN if name in raw}
    if "encoder.weight" in raw:
        t |= {"W_enc": raw["encoder.weight"].T, "W_dec": raw["decoder.weight"].T}
    if kind == "GatedAutoEncoder":
        names = {"r_mag": "r_mag", "b_gate": "gate_bias", "b_mag": "mag_bias", "b_dec": "decoder_bias"}
        return gated(path, t | {ours: raw[theirs] for ours, theirs in names.items()})
    t["b_enc"] = raw["encoder.bias"] if "encoder.bias" in raw else raw["b_enc"]
    for name in ("bias", "decoder.bias"):
        t |= {"b_dec": raw[name]} if name in raw else {}
    if kind != "AutoEncoderTopK":
        cut = (
            raw.get("threshold", torch.zeros(())) if kind not in ("AutoEncoder", "AutoEncoderNew") else torch.zeros(())
        )
        t["threshold"] = (
            cut.float().clamp_min(0.0).expand(t["b_enc"].shape).clone() if cut.numel() in (1, len(t["b_enc"])) else cut
        )
    return t


def write(foreign: Foreign, folder: Path) -> list[str]:
    """`AutoEncoderTopK` for topk, `JumpReluAutoEncoder` for what has thresholds (b_dec folded into b_enc)."""
    sae = foreign.sae
    if sae.d_in != sae.d_out or sae.W_skip is not None or (sae.k is not None and not sae.centred):
        raise refuse("dictionary_learning", "transcoders and skip connections", "convert to saelens")
    if sae.k is not None:
        kind, state = "AutoEncoderTopK", {
            "k": torch.tensor(sae.k, dtype=torch.int),
            "threshold": torch.tensor(-1.0),
            "encoder.weight": sae.W_enc.T,
            "encoder.bias": sae.b_enc,
            "decoder.weight": sae.W_dec.T,
            "b_dec": sae.b_dec,
        }  # fmt: skip
    else:
        assert sae.threshold is not None
        W_enc, b_enc = uncentred(sae)
        kind = "JumpReluAutoEncoder"
        state = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "threshold": sae.threshold}
    torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, folder / "ae.pt")
    layer = sae.hook_name.split(".")[1] if sae.hook_name.startswith("blocks.") else ""
    trainer: dict[str, Any] = {
        "dict_class": kind,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "layer": int(layer) if layer.isdigit() else None,
        "lm_name": foreign.model or None,
        "submodule_name": sae.hook_name or None,
    }
    write_json(folder, "config.json", {"trainer": trainer | ({"k": sae.k} if sae.k else {})})
    return ["how it was trained (trainer_class, lr, steps)", "the card, the index and the labels"]
