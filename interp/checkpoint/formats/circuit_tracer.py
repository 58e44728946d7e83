"""circuit-tracer's per-layer transcoders, to read: `layer_<n>.safetensors`, with a `config.yaml` beside them.

    W_enc (F, D), b_enc, W_dec (F, O), b_dec, activation_function.threshold?, W_skip?, k?

The rule is the one that `activation` names, else jumprelu where there is a threshold, else ReLU. Hook points are
`blocks.<layer>.` and what `config.yaml` says. Files in Gemma Scope's spelling are read as those (`gemma_scope.py`).
A cross-layer transcoder writes to every later layer, which an `SAE` does not.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint.formats import gemma_scope
from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    integer,
    keys,
    make,
    tensors_of,
    transposed,
    whole_tensors,
)
from interp.checkpoint.formats.hooks import HOOK, last_number
from interp.types import InterpError

OTHERS = ("sae_weights.safetensors", "sae.safetensors", "activation_whitening.safetensors", "sparsity.safetensors")
"""Of other libraries' checkpoints, which are nothing without what lies beside them."""
HOOKS = ("feature_input_hook", "feature_output_hook")
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
SETTINGS = Settings(
    read=frozenset({"model_name", *HOOKS, "activation", "k", "scan", "transcoders"}),
    harmless=keys("scan_name repo_id revision subfolder license dtype skip_connection d_model d_transcoder"),
    only={"model_kind": ("transcoder_set",), "activation": ("relu", "topk", "jumprelu", "jump_relu")},
    why={"model_kind": "each feature writes several layers"},
)


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    if path.is_file():
        return path.suffix in (".safetensors", ".npz") and path.name not in OTHERS
    return bool(_files(path)) and not (path / "cfg.json").exists() and not (path / "config.json").exists()


def _files(path: Path) -> list[Path]:
    found = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.npz"))
    return [file for file in found if file.name not in OTHERS]


def read(path: Path) -> Foreign:
    """The transcoder in a file, or the only one in a folder; InterpError, naming the files, when there are several."""
    files = [path] if path.is_file() else _files(path)
    if any(re.match(r"W_(enc|dec)_\d+\.", file.name) for file in files):
        raise InterpError(
            f"{path} is a cross-layer transcoder: each feature writes several layers, which an SAE does not; `interp circuit --transcoders` opens it."
        )
    if len(files) != 1:
        raise InterpError(
            f"{path} holds {len(files)} transcoders ({', '.join(f.name for f in files[:4])}…); name one file."
        )
    file = files[0]
    config = _config(file.parent)
    unknown = SETTINGS.check(file.parent / "config.yaml", config)
    raw = {} if file.suffix == ".npz" else tensors_of(file, ("b_enc", "b_dec"))
    if file.suffix == ".npz" or "w_enc" in raw:
        return _placed(file, gemma_scope.read(file), config, unknown)
    if "W_enc" not in raw or "W_dec" not in raw:
        raise InterpError(f"{file} holds no W_enc and W_dec of a transcoder; it has {', '.join(raw)}.")
    whole_tensors(file, raw, (*TENSORS, "W_skip", "k", "activation_function.threshold"))
    t = {name: raw[name] for name in (*TENSORS, "W_skip") if name in raw} | {"W_enc": transposed(file, raw["W_enc"])}
    if t["W_enc"].shape[0] == t["W_enc"].shape[1] and not re.fullmatch(r"layer_\d+", file.stem):
        raise InterpError(
            f"{file} has a square W_enc, which does not show whether features are its rows; circuit-tracer's files, in "
            "which they are, are named layer_0.safetensors and so on."
        )
    rule, lost = _rule(file, config, raw)
    sae = make(file, t | rule["tensors"], centred=False, name=file.stem, **rule["given"])
    return _placed(file, Foreign(sae=sae, lost=lost), config, unknown)


def _rule(file: Path, config: dict[str, Any], raw: dict[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """({tensors, given} of `make`, what to say of it): the rule that is named, and agrees with the tensors."""
    cut, k = raw.get("activation_function.threshold"), raw.get("k")
    named = config.get("activation") or ("topk" if k is not None else "jumprelu" if cut is not None else "relu")
    if (named in ("jumprelu", "jump_relu")) != (cut is not None):
        raise InterpError(
            f"{file}: config.yaml says the activation is {named}, and thresholds are {'' if cut is not None else 'not '}in the file."
        )
    if k is not None and (k.numel() != 1 or k.is_floating_point()):
        raise InterpError(f"{file} has a tensor k of shape {tuple(k.shape)}, where one whole number is needed.")
    if named == "topk":
        number = (
            integer(file.parent / "config.yaml", config, "k") if config.get("k") is not None or k is None else int(k)
        )
        if k is not None and int(k) != number:
            raise InterpError(f"{file} says k is {k.tolist()}, and config.yaml {number}.")
        return {"tensors": {}, "given": {"k": number}}, [
            "topk: where fewer than k pre-activations are above 0 theirs keeps negative ones, and here they are 0"
        ]
    cut = torch.zeros(()) if cut is None else cut
    below = (
        ["thresholds below 0, where theirs passes negative values: here nothing below 0 passes"]
        if bool((cut < 0).any())
        else []
    )
    return {
        "tensors": {"threshold": cut.expand(raw["b_enc"].shape).clone() if cut.numel() == 1 else cut},
        "given": {},
    }, below


def _placed(file: Path, theirs: Foreign, config: dict[str, Any], unknown: list[str]) -> Foreign:
    """With the hook points of `config.yaml`, and the layer in the file's name or its place in that list."""
    listed = config.get("transcoders")
    listed = [str(name) for name in listed] if isinstance(listed, list) else []
    spots = [i for i, name in enumerate(listed) if name.partition("?")[0].endswith("/".join(file.parts[-4:]))]
    layer = spots[0] if len(spots) == 1 else last_number(file.resolve(), r"layer_(\d+)")
    hooks = [f"blocks.{layer}.{config.get(side)}" if layer is not None else "" for side in HOOKS]
    lost = list(theirs.lost)
    named = theirs.sae.reads[0].name  # by the publisher
    if not named and all(HOOK.fullmatch(hook) for hook in hooks):
        theirs.sae.set_hooks(*hooks)
        lost = [phrase for phrase in lost if not phrase.startswith("no hook point")]
    elif not named:
        lost.append("no hook points are in the file, and none in a config.yaml beside it; give --hook and --hook-out")
    if config.get("scan"):
        lost.append(f"scan {config['scan']!r}, where its feature pages are")
    return Foreign(sae=theirs.sae, model=theirs.model or _model(config), lost=lost, unknown=theirs.unknown + unknown)


def _config(folder: Path) -> dict[str, Any]:
    for file in (folder / "config.yaml", folder.parent / "config.yaml"):
        if file.exists():
            import yaml

            try:
                value = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
                raise InterpError(f"{file} is not readable as YAML: {str(error).splitlines()[0]}.") from None
            if isinstance(value, dict):
                return value
    return {}


def _model(config: dict[str, Any]) -> str:
    return str(config.get("model_name") or "")
