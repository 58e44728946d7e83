"""sparsify (eai-sparsify 1.3): `cfg.json`, `sae.safetensors`.

z = the k largest of relu((x - b_dec) W_encᵀ + b); a transcoder (`transcode`) does not take b_dec off and may add x W_skipᵀ.
`groupmax` takes the largest of each of k groups, which an `SAE` does not do. The hook point is the folder's name.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from interp.checkpoint.formats.foreign import Foreign, config_of, hook_of, integer, make, refuse, tensors_of, write_json
from interp.types import InterpError

WEIGHTS = "sae.safetensors"


def detect(path: Path) -> bool:
    return (path / WEIGHTS).exists() and (path / "cfg.json").exists()


def read(path: Path) -> Foreign:
    """The sparse coder in a folder named after its module, such as `layers.15` or `layers.15.mlp`."""
    config = config_of(path / "cfg.json")
    if config.get("activation", "topk") != "topk":
        raise InterpError(f"{path} selects by {config['activation']!r}, and this version computes topk only.")
    raw = tensors_of(path / WEIGHTS, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    tensors = {
        "W_enc": raw["encoder.weight"].T,
        "b_enc": raw["encoder.bias"],
        "W_dec": raw["W_dec"],
        "b_dec": raw["b_dec"],
    }
    transcode = bool(config.get("transcode", False))
    lost = []
    if "W_skip" in raw:
        tensors["W_skip"] = raw["W_skip"]
    if config.get("multi_topk"):
        lost.append("multi_topk: a setting of training")
    hook = hook_of(path.name)
    lost.append(f"no hook point is in the files; {hook or 'none'} was read from the folder's name {path.name!r}")
    given: dict[str, Any] = {"centred": not transcode, "hook_name": hook, "name": path.name}
    return Foreign(sae=make(path, tensors, k=integer(path / "cfg.json", config, "k"), **given), lost=lost)


def write(foreign: Foreign, folder: Path) -> list[str]:
    sae = foreign.sae
    if sae.k is None:
        raise refuse(
            "sparsify", "thresholds: it knows topk only", "convert to saelens, dictionary_learning or llamascopium"
        )
    if sae.d_in != sae.d_out or (sae.W_skip is not None and sae.centred):
        raise refuse("sparsify", f"a coder from {sae.d_in} to {sae.d_out}", "convert to saelens")
    tensors = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
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
        "transcode": not sae.centred,
        "d_in": sae.d_in,
    }
    write_json(folder, "cfg.json", config)
    return [f"model and hook point: name the folder after the module ({sae.hook_name or 'its hook point is unknown'})"]
