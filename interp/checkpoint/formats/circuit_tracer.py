"""circuit-tracer's per-layer transcoders, to read: one file a layer, in one of three spellings.

    its own (to_safetensors)   W_enc (F, D), b_enc, W_dec (F, O), b_dec, activation_function.threshold?, W_skip?
    Gemma Scope 2              w_enc (D, F), b_enc, w_dec (F, O), b_dec, threshold, affine_skip_connection (D, O)?
    Gemma Scope (.npz)         W_enc (D, F), b_enc, W_dec (F, O), b_dec, threshold

Without a threshold the rule is ReLU. Hook points are `blocks.<layer>.` and what a `config.yaml` beside the file says.
A cross-layer transcoder writes to every later layer, which an `SAE` does not.
"""

import re
from pathlib import Path
from typing import Any

import torch

from interp.checkpoint.formats.foreign import Foreign, make, tensors_of
from interp.types import InterpError

FILE = re.compile(r"(?:layer_(\d+)\.safetensors|.*\.npz|.*\.safetensors)")


def detect(path: Path) -> bool:
    if path.is_file():
        return path.suffix in (".safetensors", ".npz")
    return bool(_files(path)) and not (path / "cfg.json").exists() and not (path / "config.json").exists()


def _files(path: Path) -> list[Path]:
    found = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.npz"))
    return [file for file in found if FILE.fullmatch(file.name)]


def read(path: Path) -> Foreign:
    """The transcoder in a file, or the only one in a folder; InterpError, naming the files, when there are several."""
    files = [path] if path.is_file() else _files(path)
    if any(re.match(r"W_(enc|dec)_\d+\.", file.name) for file in files):
        raise InterpError(
            f"{path} is a cross-layer transcoder: each feature writes several layers, which an SAE does not."
        )
    if len(files) != 1:
        raise InterpError(
            f"{path} holds {len(files)} transcoders ({', '.join(f.name for f in files[:4])}…); name one file."
        )
    file = files[0]
    raw = tensors_of(file, ("b_enc", "b_dec"))
    names = {"w_enc": "W_enc", "w_dec": "W_dec", "activation_function.threshold": "threshold"}
    t = {names.get(name, name): tensor for name, tensor in raw.items()}
    if "W_enc" not in t or "W_dec" not in t or t["W_enc"].ndim != 2:
        raise InterpError(f"{file} holds no W_enc and W_dec of a transcoder; it has {', '.join(raw)}.")
    if "W_enc" in raw and file.suffix != ".npz":
        t["W_enc"] = t["W_enc"].T
    if "affine_skip_connection" in t:
        t["W_skip"] = t.pop("affine_skip_connection").T
    cut = t.get("threshold", torch.zeros(()))
    t["threshold"] = (
        cut.float().clamp_min(0.0).expand(t["b_enc"].shape).clone() if cut.numel() == 1 else cut.float().clamp_min(0.0)
    )
    config, lost = _config(file.parent), []
    layer = re.search(r"layer_(\d+)", file.as_posix())
    hooks = [f"blocks.{layer.group(1)}.{config[side]}" if layer and side in config else "" for side in HOOKS]
    if not all(hooks):
        lost.append("no hook points are in the file, and none in a config.yaml beside it")
    if config.get("scan"):
        lost.append(f"scan {config['scan']!r}, where its feature pages are")
    skip = [name for name in t if name not in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")]
    lost += [f"the tensor {name}" for name in skip]
    given = {"centred": False, "hook_name": hooks[0], "hook_name_out": hooks[1], "name": file.stem}
    return Foreign(
        sae=make(file, {k: v for k, v in t.items() if k not in skip}, **given), model=_model(config), lost=lost
    )


HOOKS = ("feature_input_hook", "feature_output_hook")


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
