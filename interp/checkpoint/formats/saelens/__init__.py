"""SAELens: `cfg.json`, `sae_weights.safetensors`; 6.x as it is, and folders of before 6 that carry no version.

It is the format of our own checkpoints too. A finetuning `scaling_factor` of before 6 multiplied activations on their way
to the decoder. A checkpoint of a run that was not finished has the training's form: activations scaled or whitened by what
lies in files beside it, and for BatchTopK one `topk_threshold`, of activations times decoder norms; all are folded in.
"""

from pathlib import Path
from typing import Any

import torch

from interp.checkpoint.formats.foreign import Foreign
from interp.checkpoint.formats.hooks import HOOK, told
from interp.checkpoint.formats.saelens.cfg import TANH
from interp.checkpoint.formats.saelens.reading import opened
from interp.checkpoint.formats.saelens.tensors import OWN
from interp.checkpoint.formats.saelens.writing import architecture_of, save_weights
from interp.types import InterpError

__all__ = ["TANH", "detect", "read", "write"]


def detect(path: Path) -> bool:
    """Whether cfg.json and the weights lie there."""
    return (path / "cfg.json").exists() and (path / "sae_weights.safetensors").exists()


def read(path: Path, scale: float | None = None) -> Foreign:
    """As `checkpoint.load` reads both forms; a scale that is given is folded in."""
    sae, cfg, unknown = opened(path, scale=scale)
    found = cfg.get("metadata")
    about: dict[str, Any] = found if isinstance(found, dict) else {}
    lost = []
    if about.get("prepend_bos"):
        lost.append("prepend_bos: it was trained with a BOS in front, where this project puts the separator")
    if cfg.get("reshape_activations") not in (None, "none"):
        lost.append(f"reshape_activations {cfg['reshape_activations']!r}: give it rows that are flat already")
    if about.get("hook_head_index") is not None:
        lost.append(f"hook_head_index {about['hook_head_index']!r}: it reads that head's part of the hook point alone")
    if str(cfg.get("dtype", "float32")).removeprefix("torch.") != "float32":
        lost.append(
            f"dtype {cfg['dtype']!r}, in which SAELens computes: here it is float32, on the weights as they are stored"
        )
    lost += _processing(about.get("model_from_pretrained_kwargs"))
    hooks = [
        (about.get(key), hook) for key, hook in (("hook_name", sae.hook_name), ("hook_name_out", sae.hook_name_out))
    ]
    lost += [
        told((hook,), "", name) for name, hook in hooks if isinstance(name, str) and name and not HOOK.fullmatch(name)
    ]
    if not hooks[0][0] and not (path / "card.json").exists():
        lost.append("no hook point is in cfg.json; give it with --hook")
    return Foreign(sae=sae, model=str(about.get("model_name") or ""), lost=lost, unknown=unknown)


def _processing(options: Any) -> list[str]:
    """What to say of a model that was opened with its weights changed (`center_writing_weights`, `fold_ln` …)."""
    if not isinstance(options, dict):
        return []
    harmless = ("trust_remote_code", "device", "device_map", "revision", "n_devices", "move_to_device", "cache_dir")
    changed = [
        f"{key}={value!r}" for key, value in options.items() if value not in (None, False) and key not in harmless
    ]
    if not changed:
        return []
    return [
        f"model_from_pretrained_kwargs: it was trained on a model opened with {', '.join(changed)}, which changes activations; "
        "here models are opened as they were published"
    ]


def write(foreign: Foreign, folder: Path) -> list[str]:
    """In float16 where that loses nothing, else in float32.

    Raises InterpError for crosscoders, which SAELens does not have.
    """
    sae = foreign.sae
    if len(sae.reads) > 1:
        raise InterpError("SAELens has no format for crosscoders, so this one stays in ours.")
    tensors = [tensor for tensor in sae.state_dict().values() if tensor is not None]
    exact = all(bool((tensor.half().float() == tensor).all()) for tensor in tensors)
    dtype = torch.float16 if exact else torch.float32
    save_weights(sae, folder, dtype=dtype, model=foreign.model)
    kind = architecture_of(sae)
    own = [f"SAELens itself has no {kind}: only this project opens the folder"] if kind in OWN else []
    return [*own, "the card, the index and the labels: `interp pack` takes the whole folder"]
