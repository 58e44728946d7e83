"""circuit-tracer's cross-layer transcoders, read and written: two files a layer, and a `config.yaml` beside them.

    W_enc_<l>.safetensors   W_enc_<l> (F, D), b_enc_<l> (F), b_dec_<l> (O), threshold_<l>? (F)
    W_dec_<l>.safetensors   W_dec_<l> (F, layers from l on, O)

A feature fires above its threshold, else above 0. Hook points are `blocks.<l>.` and what `config.yaml` says. Their form has a decoder for every pair of
layers; read, each distance up is one of ours (`rank` is then the number of layers), half of which are zeros.

Source  circuit-tracer 0.5.0, transcoder/cross_layer_transcoder.py.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.checkpoint.formats.foreign import Settings, keys, tensors_of, whole_tensors
from interp.device import check_memory, resolve_device
from interp.render.words import counted
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.types import InterpError

CONFIG = "config.yaml"
HOOKS = ("feature_input_hook", "feature_output_hook")
KIND = "cross_layer_transcoder"
SETTINGS = Settings(
    read=frozenset({"model_name", *HOOKS}),
    harmless=keys(
        "scan scan_name repo_id revision subfolder license dtype d_model d_transcoder n_layers lazy_encoder lazy_decoder"
    ),
    only={"model_kind": (KIND,), "skip_connection": (False,)},
)


def detect(folder: Path) -> bool:
    """Whether its files lie there, by their names."""
    return (folder / "W_enc_0.safetensors").exists() and (folder / "W_dec_0.safetensors").exists()


def read(folder: Path) -> CrossLayerTranscoder:
    """The transcoder in a folder.

    Raises InterpError when layers are missing, tensors do not fit each other or are not known, for settings that are not computed here, and for one that the memory
    does not hold.
    """
    config = _config(folder)
    unknown = SETTINGS.check(folder / CONFIG, config)
    if unknown:
        raise InterpError(f"{folder / CONFIG} sets {', '.join(unknown)}, which this version does not know.")
    stems = [file.stem.removeprefix("W_enc_") for file in folder.glob("W_enc_*.safetensors")]
    if strange := [stem for stem in stems if not stem.isdecimal()]:
        raise InterpError(f"{folder} has a file W_enc_{strange[0]}.safetensors, which is of no layer.")
    numbers = sorted(map(int, stems))
    if numbers != list(range(len(numbers))):
        raise InterpError(f"{folder} has encoders of layers {numbers}; one of every layer is needed, from 0 on.")
    layers = len(numbers)
    sides = [_encoder(folder, layer) for layer in numbers]
    features, width = sides[0]["b_enc"].shape[0], sides[0]["b_dec"].shape[0]
    need = 4 * layers * layers * features * width * 2
    check_memory(
        need, f"{counted(layers * features, 'feature')} with a decoder for each later layer", resolve_device("cpu")
    )
    W_dec = torch.zeros(layers, layers, features, width)
    mix = torch.zeros(layers, layers, layers)
    for layer in numbers:
        up = torch.arange(layers - layer)
        W_dec[layer, : layers - layer] = _decoder(folder, layer, (features, layers - layer, width)).transpose(0, 1)
        mix[layer, up, layer + up] = 1
    hooks = [config.get(side) for side in HOOKS]
    reads, writes = (tuple(f"blocks.{layer}.{hook}" for layer in numbers) if hook else () for hook in hooks)
    return CrossLayerTranscoder(
        W_enc=_stacked(folder, [side["W_enc"].T for side in sides]),
        b_enc=_stacked(folder, [side["b_enc"] for side in sides]),
        threshold=_stacked(folder, [side["threshold"] for side in sides]),
        W_dec=W_dec,
        b_dec=_stacked(folder, [side["b_dec"] for side in sides]),
        mix=mix,
        name=folder.name,
        reads=reads,
        writes=writes,
    )


def write(transcoder: CrossLayerTranscoder, folder: str | Path, model: str) -> Path:
    """The folder as circuit-tracer opens it, float32: every decoder of every pair, so 2 · layers · features · width bytes times the layers.

    Raises InterpError where its layers read or write at hook points of different names, or have none.
    """
    into = Path(folder)
    spots = [{hook.name.split(".", 2)[-1] for hook in hooks} for hooks in (transcoder.reads, transcoder.writes)]
    if any(len(each) != 1 or "" in each for each in spots):
        raise InterpError(
            f"{transcoder.name} has hook points {transcoder.hook_name or '(none)'}; circuit-tracer has one name for what all layers read, and one for what "
            "they write."
        )
    into.mkdir(parents=True, exist_ok=True)
    for layer, one in enumerate(transcoder.layers):
        assert one.threshold is not None
        side = {"W_enc": one.W_enc.T, "b_enc": one.b_enc, "b_dec": transcoder.b_dec[layer], "threshold": one.threshold}
        later = [transcoder.decoder(layer, m) for m in range(layer, transcoder.n_layers)]
        for name, tensors in ((f"W_enc_{layer}", side), (f"W_dec_{layer}", {"W_dec": torch.stack(later, 1)})):
            with places.whole_file(into / f"{name}.safetensors") as partial:
                save_file({f"{of}_{layer}": x.detach().cpu().contiguous() for of, x in tensors.items()}, partial)
    read_at, written_at = (each.pop() for each in spots)
    lines = (f"model_name: {model}", f"model_kind: {KIND}", f"{HOOKS[0]}: {read_at}", f"{HOOKS[1]}: {written_at}")
    with places.whole_file(into / CONFIG) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return into


def _config(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InterpError(
            f"{folder} has no {CONFIG}, which says at what hook points its layers read and write."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InterpError(f"{folder / CONFIG} is not readable as YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(value, dict) or not all(isinstance(value.get(hook), str) for hook in HOOKS):
        raise InterpError(
            f"{folder / CONFIG} does not say {' and '.join(HOOKS)}, so nobody knows where its layers read and write."
        )
    return value


def _encoder(folder: Path, layer: int) -> dict[str, Tensor]:
    file = folder / f"W_enc_{layer}.safetensors"
    needed = tuple(f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec"))
    raw = tensors_of(file, needed)
    whole_tensors(file, raw, (*needed, f"threshold_{layer}"))
    made = {name.rpartition("_")[0]: x for name, x in raw.items()}
    cut = made.get("threshold", torch.zeros(()))
    if bool((cut < 0).any()):
        raise InterpError(f"{file} has thresholds below 0, where negative values pass; here nothing below 0 passes.")
    made["threshold"] = cut.reshape(-1).expand(made["b_enc"].shape).clone() if cut.numel() == 1 else cut.reshape(-1)
    shapes = [made["W_enc"].shape[0], *(made[name].shape[0] for name in ("b_enc", "threshold"))]
    if made["W_enc"].ndim != 2 or len(set(shapes)) > 1:
        raise InterpError(
            f"{file}: W_enc, b_enc and the thresholds are for {shapes} features, which should be one number."
        )
    return made


def _decoder(folder: Path, layer: int, shape: tuple[int, int, int]) -> Tensor:
    file, name = folder / f"W_dec_{layer}.safetensors", f"W_dec_{layer}"
    raw = tensors_of(file, (name,))
    whole_tensors(file, raw, (name,))
    if tuple(raw[name].shape) != shape:
        raise InterpError(
            f"{file} has a decoder of {tuple(raw[name].shape)}, and features, layers from {layer} on and width are {shape}."
        )
    return raw[name]


def _stacked(folder: Path, tensors: list[Tensor]) -> Tensor:
    if len({tensor.shape for tensor in tensors}) > 1:
        raise InterpError(
            f"{folder}: layers have tensors of different shapes: {sorted({tuple(t.shape) for t in tensors})}."
        )
    return torch.stack(tensors)
