"""sparsify (eai-sparsify 1.3): `cfg.json`, `sae.safetensors`.

z = the k largest of relu((x - b_dec) W_encᵀ + b); a transcoder (`transcode`) does not take b_dec off and may add x W_skipᵀ.
`groupmax` takes the largest of each of k groups, and early `signed` coders the k largest by magnitude with their sign:
an `SAE` does neither. The hook point is the folder's name: that of a module, of which an SAE reads the output, and a
transcoder reads the input and writes the output.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from interp import places
from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    centred,
    check_sizes,
    config_of,
    integer,
    is_transcoder,
    make,
    refuse,
    tensors_of,
    transposed,
    uncentred,
    whole_tensors,
    write_json,
)
from interp.checkpoint.formats.hooks import hook_of, hooks_of, told
from interp.types import InterpError

WEIGHTS = "sae.safetensors"
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
SETTINGS = Settings(
    read=frozenset({"k", "d_in", "num_latents", "expansion_factor", "transcode", "skip_connection", "multi_topk"}),
    harmless=frozenset({"normalize_decoder", "lookup_max_order", "gram_table_hash", "d_embed"}),
    only={"activation": ("topk",), "signed": (False,), "embed_skip": (False,), "gram_lookup": (False,)},
    why={
        "activation": "groupmax takes the largest of each group",
        "signed": "the k largest by magnitude pass and keep their sign",
        "embed_skip": "the output has a part of the embedding's activations",
        "gram_lookup": "a table of n-grams is taken off the input",
    },
)


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    return (path / WEIGHTS).exists() and (path / "cfg.json").exists()


def read(path: Path) -> Foreign:
    """The sparse coder in a folder named after its module, such as `layers.15` or `layers.15.mlp`.

    Raises InterpError when files are missing or say what is not computed here.
    """
    config = config_of(path / "cfg.json")
    unknown = SETTINGS.check(path / "cfg.json", config)
    raw = tensors_of(path / WEIGHTS, TENSORS)
    whole_tensors(path / WEIGHTS, raw, (*TENSORS, "W_skip"))
    transcode = _flag(path, config, "transcode")
    if _flag(path, config, "skip_connection") != ("W_skip" in raw):
        raise InterpError(f"{path}: cfg.json and {WEIGHTS} disagree on whether there is a skip connection.")
    tensors = {
        "W_enc": transposed(path, raw["encoder.weight"]),
        "b_enc": raw["encoder.bias"],
        "W_dec": raw["W_dec"],
        "b_dec": raw["b_dec"],
    }
    tensors |= {"W_skip": raw["W_skip"]} if "W_skip" in raw else {}
    lost = ["multi_topk: a setting of training"] if config.get("multi_topk") else []
    module = path.parent if re.fullmatch(r"seed_?\d+", path.name) else path
    read_, written = hooks_of(module.name) if transcode else (hook_of(module.name), "")
    if transcode and not (read_ and written):
        read_ = written = ""
    lost.append(told((read_, written), "the folder's name ", module.name, transcoder=transcode))
    k = integer(path / "cfg.json", config, "k")
    sae = make(path, tensors, k=k, centred=not transcode, reads=read_, writes=written, name=path.name)
    check_sizes(path / "cfg.json", {name: config.get(name) for name in ("d_in", "num_latents")}, sae)
    return Foreign(sae=sae, model=_model(module), lost=lost, unknown=unknown)


def _flag(path: Path, config: dict[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise InterpError(f"{path}/cfg.json gives {key} the value {value!r}, where true or false is needed.")
    return value


def _model(module: Path) -> str:
    """As the run's `config.json` says, one folder up; empty without."""
    file = module.resolve().parent / "config.json"
    config = places.read_json(file) if file.is_file() else None
    name = config.get("model") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def write(foreign: Foreign, folder: Path) -> list[str]:
    """Into an existing empty folder; what the format cannot hold comes back. InterpError for what it cannot compute."""
    sae = foreign.sae
    if sae.k is None:
        raise refuse(
            "sparsify", "thresholds: it knows topk only", "convert to saelens, dictionary_learning or llamascopium"
        )
    if sae.d_in != sae.d_out or (sae.W_skip is not None and sae.centred):
        raise refuse("sparsify", f"a coder from {sae.d_in} to {sae.d_out}", "convert to saelens")
    transcode = is_transcoder(sae)
    W_enc, b_enc = uncentred(sae) if transcode else centred(sae)
    tensors = {"encoder.weight": W_enc.T, "encoder.bias": b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    tensors |= {} if sae.W_skip is None else {"W_skip": sae.W_skip}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    norms = sae.W_dec.norm(dim=1)
    config = {
        "activation": "topk",
        "expansion_factor": max(sae.d_sae // sae.d_in, 1),
        "normalize_decoder": bool(torch.allclose(norms, torch.ones_like(norms), atol=1e-3)),
        "num_latents": sae.d_sae,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": sae.W_skip is not None,
        "transcode": transcode,
        "d_in": sae.d_in,
    }
    write_json(folder, "cfg.json", config)
    return [
        f"model and hook point: name the folder after the module ({sae.reads[0].name or 'its hook point is unknown'})"
    ]
