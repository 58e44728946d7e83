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
    Settings,
    centred,
    check_sizes,
    config_of,
    floats,
    gated,
    integer,
    is_transcoder,
    keys,
    make,
    refuse,
    tensors_of,
    transposed,
    uncentred,
    whole_tensors,
    write_json,
)
from interp.checkpoint.formats.hooks import SITE, hooks_of, told
from interp.types import InterpError, unknown

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
STATE = ("k", "threshold", "group_sizes", "group_weights")
"""Tensors that topk classes keep besides; the threshold of `AutoEncoderTopK` is not used when it encodes."""
SETTINGS = Settings(
    read=frozenset({"dict_class", "k", "layer", "lm_name", "submodule_name", "activation_dim", "dict_size"}),
    harmless=keys(
        "trainer_class lr steps warmup_steps resample_steps decay_start seed device wandb_name trainer "
        "l1_penalty l1_warmup_steps sparsity_penalty sparsity_warmup_steps sparsity_function sparsity_update_steps "
        "initial_sparsity_penalty sparsity_queue_length n_sparsity_updates p_start p_end anneal_start anneal_end "
        "auxk_alpha top_k_aux threshold_beta threshold_start_step k_anneal_steps dead_feature_threshold bandwidth target_l0 "
        "group_fractions group_weights group_sizes use_april_update_mode activations_split_by_head"
    ),
    only={"apply_b_dec_to_input": (False,)},
    why={
        "apply_b_dec_to_input": "their class takes b_dec off where its attribute says so, which its configuration does not hold"
    },
)


BUFFER = Settings(
    read=keys("io"),
    harmless=keys(
        "d_submodule n_ctxs ctx_len refresh_batch_size out_batch_size device add_special_tokens remove_bos "
        "max_activation_norm_multiple"
    ),
    only={"rescale_acts": (False,)},
    why={"rescale_acts": "activations are scaled as they are collected"},
)
"""Of how activations were collected."""


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    return (path / "ae.pt").exists()


def read(path: Path) -> Foreign:
    """The dictionary in a folder; the first ones that were published have no config.json beside `ae.pt`."""
    config = config_of(path / "config.json") if (path / "config.json").exists() else {}
    beside = {key: value for key, value in config.items() if key not in ("trainer", "buffer")}
    nested, buffered = config.get("trainer"), config.get("buffer")
    trainer: dict[str, Any] = nested if isinstance(nested, dict) else beside
    buffer: dict[str, Any] = buffered if isinstance(buffered, dict) else {}
    strange = SETTINGS.check(path / "config.json", trainer) + BUFFER.check(path / "config.json", buffer)
    if trainer is not beside:
        strange += SETTINGS.check(path / "config.json", beside)
    raw = tensors_of(path / "ae.pt", ())
    kind, lost = _class(path, trainer, raw)
    floats(path / "ae.pt", raw, CLASSES[kind])
    whole_tensors(path / "ae.pt", raw, (*CLASSES[kind], *(STATE if kind.endswith(("TopK", "SAE")) else ())))
    tensors = _tensors(path, kind, raw)
    given: dict[str, Any] = {"centred": kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"), "name": path.name}
    if kind == "AutoEncoderTopK":
        given["k"] = _k(path, trainer, raw)
    if "group_sizes" in raw:
        lost.append(f"the groups {raw['group_sizes'].tolist()}, which matter in training only")
    if kind.endswith("SAE") and bool((raw["threshold"] < 0).any()):
        lost.append(
            "the threshold was never measured (it is negative): every positive activation passes, as in their code"
        )
    if buffer:
        lost.append("the buffer's settings")
    given["reads"], about = _hook(path, trainer, buffer)
    sae = make(path, tensors, **given)
    check_sizes(path / "config.json", {name: trainer.get(name) for name in ("activation_dim", "dict_size")}, sae)
    return Foreign(sae=sae, model=str(trainer.get("lm_name") or ""), lost=[*lost, about], unknown=strange)


def _class(path: Path, trainer: dict[str, Any], raw: dict[str, Tensor]) -> tuple[str, list[str]]:
    """(class, what to say of it): by `dict_class`, or by tensors that one class alone has."""
    kind = trainer.get("dict_class")
    if kind is not None:
        if str(kind) not in CLASSES:
            raise unknown("dictionary class", str(kind), CLASSES)
        return str(kind), []
    told_by = {"bias": "AutoEncoder", "gate_bias": "GatedAutoEncoder", "decoder.bias": "AutoEncoderNew"}
    kinds = [found for name, found in told_by.items() if name in raw]
    if len(kinds) != 1:
        raise InterpError(
            f"{path} names no dict_class in its config.json, and ae.pt ({', '.join(raw)}) may be of several, "
            f"which compute other things; add the one it is: {', '.join(CLASSES)}."
        )
    return kinds[0], [f"no dict_class is named: its tensors are those of {kinds[0]}"]


def _k(path: Path, trainer: dict[str, Any], raw: dict[str, Tensor]) -> int:
    """Of the configuration, and as the weights say where they keep it, too: their loader refuses two different ones."""
    k = integer(path / "config.json", trainer, "k")
    kept = raw.get("k")
    if kept is not None and (kept.numel() != 1 or float(kept) != k):
        raise InterpError(f"{path}: config.json says k is {k}, and ae.pt says {kept.tolist()}.")
    return k


def _hook(path: Path, trainer: dict[str, Any], buffer: dict[str, Any]) -> tuple[str, str]:
    """(hook point, a sentence about it): by `submodule_name`, or the folder that is named as the library's demo does.

    A layer alone says nothing of the place in it.
    """
    layer = trainer.get("layer")
    number = layer if isinstance(layer, int) and not isinstance(layer, bool) else None
    named = trainer.get("submodule_name")
    place, where = (named, "") if isinstance(named, str) and named else (None, "")
    if place is None:
        folders = [part for part in reversed(path.resolve().parts[-4:]) if SITE.match(part)]
        site = SITE.match(folders[0]) if folders else None
        place, where = (site[0], "the folder's name ") if site else (None, f"layer {layer!r} and submodule_name ")
    read_, written = hooks_of(place, number) if place is not None else ("", "")
    hook = {"in": read_, "out": written}.get(str(buffer.get("io", "out")), "")
    sentence = told((hook,), where, place)
    if place is not None and not hook and number is not None and any(hooks_of(place)):
        sentence += f" (beside layer {layer!r} and io {buffer.get('io', 'out')!r})"
    return hook, sentence


def _tensors(path: Path, kind: str, raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under our names, with a threshold a feature for all but topk."""
    t = {name: raw[name] for name in PLAIN if name in raw}
    if "encoder.weight" in raw:
        t |= {"W_enc": transposed(path, raw["encoder.weight"]), "W_dec": transposed(path, raw["decoder.weight"])}
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
    if is_transcoder(sae):
        raise refuse("dictionary_learning", "transcoders and skip connections", "convert to saelens")
    if sae.k is not None:
        W_enc, b_enc = centred(sae)
        kind, state = "AutoEncoderTopK", {
            "k": torch.tensor(sae.k, dtype=torch.int),
            "threshold": torch.tensor(-1.0),
            "encoder.weight": W_enc.T,
            "encoder.bias": b_enc,
            "decoder.weight": sae.W_dec.T,
            "b_dec": sae.b_dec,
        }  # fmt: skip
    else:
        assert sae.threshold is not None
        W_enc, b_enc = uncentred(sae)
        kind = "JumpReluAutoEncoder"
        state = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "threshold": sae.threshold}
    torch.save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, folder / "ae.pt")
    hook = sae.reads[0].name
    layer = hook.split(".")[1] if hook.startswith("blocks.") else ""
    trainer: dict[str, Any] = {
        "dict_class": kind,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
        "layer": int(layer) if layer.isdigit() else None,
        "lm_name": foreign.model or None,
        "submodule_name": hook or None,
    }
    write_json(folder, "config.json", {"trainer": trainer | ({"k": sae.k} if sae.k else {})})
    return ["how it was trained (trainer_class, lr, steps)", "the card, the index and the labels"]
