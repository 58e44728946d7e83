"""Gemma Scope 1 (`params.npz`) and 2 (`params.safetensors`, mostly with `config.json`), as published.

z = pre where pre = x W_enc + b_enc > threshold, matrices as in `SAE`, nothing taken off x; transcoders of the second may
add x · affine_skip_connection. The place is in `config.json` as a module's path, else in the names of the folders:
`resid_post/layer_17_width_16k_l0_small` in the second, and in the first `layer_20/width_16k/average_l0_71`, of which only
the repository's name (`gemma-scope-2b-pt-res`) says what it reads.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.checkpoint.formats.foreign import (
    Foreign,
    Settings,
    check_sizes,
    config_of,
    keys,
    make,
    tensors_of,
    whole_tensors,
)
from interp.checkpoint.formats.hooks import hooks_of, last_number, told
from interp.types import InterpError

FILES = ("params.safetensors", "params.npz")
SETTINGS = Settings(
    read=keys("hf_hook_point_in hf_hook_point_out width model_name affine_connection"),
    harmless=keys("l0 dtype dataset num_tokens"),
    only={"architecture": ("jump_relu", "jumprelu"), "type": ("sae", "transcoder"), "apply_b_dec_to_input": (False,)},
    why={"type": "each feature writes several layers"},
)
SITES = {
    "resid_post": ("hook_resid_post",),
    "attn_out": ("attn.hook_z",),
    "mlp_out": ("hook_mlp_out",),
    "transcoder": ("mlp.hook_in", "hook_mlp_out"),
}
"""Of the second release, by folder (`resid_post_all` is as `resid_post`): the hook points read and written."""
FIRST = {
    "res": ("hook_resid_post",),
    "att": ("attn.hook_z",),
    "mlp": ("hook_mlp_out",),
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}
REPOSITORY = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|att|mlp|transcoders)")
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")


def detect(path: Path) -> bool:
    """Whether files of this format lie there, by their names."""
    return path.name in FILES if path.is_file() else any((path / name).exists() for name in FILES)


def read(path: Path) -> Foreign:
    """The SAE or transcoder in a folder, or in one of the two files by itself.

    Raises InterpError when tensors are missing.
    """
    file = path if path.is_file() else next((path / name for name in FILES if (path / name).exists()), path / FILES[0])
    found = tensors_of(file, ("b_enc", "b_dec"))
    raw = {"W_" + name[2:] if name.startswith("w_") else name: tensor for name, tensor in found.items()}
    missing = [name for name in TENSORS if name not in raw]
    if missing:
        raise InterpError(f"{file} has no tensor {', '.join(missing)}; it has {', '.join(found)}.")
    if raw["W_dec"].ndim == 3:
        raise InterpError(
            f"{file} is a cross-layer transcoder: each feature writes several layers, which an SAE does not."
        )
    whole_tensors(file, raw, (*TENSORS, "affine_skip_connection"))
    config = config_of(file.parent / "config.json") if (file.parent / "config.json").exists() else {}
    unknown = SETTINGS.check(file.parent / "config.json", config)
    t = dict(raw) | {"threshold": _expanded(raw["threshold"], raw["b_enc"])}
    skip = t.pop("affine_skip_connection", None)
    if config.get("affine_connection") is not None and bool(config["affine_connection"]) != (skip is not None):
        raise InterpError(f"{file}: config.json and the weights disagree on whether there is an affine connection.")
    if skip is not None:
        t["W_skip"] = skip.T if skip.ndim == 2 else skip
    folder = file.resolve().parent
    hooks, model, lost = _place(folder, config)
    name = folder.name if file.name in FILES else file.stem
    sae = make(file, t, centred=False, reads=hooks[0], writes=hooks[1], name=name)
    check_sizes(file.parent / "config.json", {"width": config.get("width")}, sae)
    return Foreign(sae=sae, model=model, lost=lost, unknown=unknown)


def _expanded(threshold: Tensor, b_enc: Tensor) -> Tensor:
    """One threshold for all, or one for each."""
    return threshold.expand(b_enc.shape).clone() if threshold.numel() == 1 and b_enc.ndim == 1 else threshold


def _place(folder: Path, config: dict[str, Any]) -> tuple[tuple[str, str], str, list[str]]:
    """((hook point read, written), model, what to say of it), of the configuration or of the folders' names."""
    model = config.get("model_name")
    said = [config.get(f"hf_hook_point_{side}") for side in ("in", "out")]
    if isinstance(said[0], str):
        read = hooks_of(said[0])[1]
        apart = said[1] if isinstance(said[1], str) and said[1] != said[0] else ""
        out = hooks_of(apart)[1]
        lost = [told((), "", place) for place, hook in ((said[0], read), (apart, out)) if place and not hook]
        return (read, out), model if isinstance(model, str) else "", lost
    layer = last_number(folder, r"layer_(\d+)")
    second = next(
        (part.removesuffix("_all") for part in reversed(folder.parts) if part.removesuffix("_all") in SITES), ""
    )
    first = REPOSITORY.search(folder.as_posix())
    ends = SITES.get(second) or (FIRST[first[3]] if first else ())
    if layer is None or not ends:
        embedded = "embedding" in folder.parts
        note = [
            f"no hook point: the folders' names ({'/'.join(folder.parts[-3:])}) do not say of which layer and place it is, "
            "for which their publisher's (gemma-scope-2b-pt-res/layer_20/…) are kept; give it with --hook"
        ]
        scaled = ["it reads embeddings before Gemma multiplies them by √d"] if embedded else []
        return ("", ""), "", note + scaled
    hooks = [f"blocks.{layer}.{end}" for end in ends]
    if first:
        model = f"google/gemma-2-{first[1]}" + ("-it" if first[2] == "it" else "")
    return (
        (hooks[0], hooks[1] if len(hooks) > 1 else ""),
        str(model or ""),
        [told(hooks, "the folders' names ", folder.name, transcoder=len(hooks) > 1)],
    )
