"""A cross-layer transcoder on disk: a folder with its weights in one file and a card.

SAELens has no format for it, and circuit-tracer's holds every decoder of every pair of layers (`formats/circuit_tracer_cross.py` reads and writes it),
so the form is ours. `cross_layer.safetensors` has

    W_enc (L, D, F)  b_enc (L, F)  threshold (L, F)  W_dec (L, R, F, O)  b_dec (L, O)  mix (L, R, L)

in float16 where that holds exactly what was measured, else float32. `card.json` names the hook points, by layer, and has the file's hash.
"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp import places
from interp.checkpoint.card import TRAINED, Card
from interp.checkpoint.formats import circuit_tracer_cross
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.types import InterpError

FILE = "cross_layer.safetensors"
KIND = "cross-layer transcoder"
"""What the card calls the architecture."""
AXES = {"W_enc": "LDF", "b_enc": "LF", "threshold": "LF", "W_dec": "LRFO", "b_dec": "LO", "mix": "LRL"}
NAMES = {"L": "layers", "D": "columns that are read", "F": "features", "R": "ranks", "O": "columns that are written"}


def save_cross_layer(transcoder: CrossLayerTranscoder, folder: str | Path, card: Card) -> Card:
    """Write the folder; the card as written, with the weights' hash, comes back.

    Raises InterpError for weights that are not finite.
    """
    into = Path(folder)
    tensors = _tensors(transcoder)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InterpError(f"{name} holds a NaN or an infinity, so nothing was saved.")
    with places.whole_file(into / FILE) as partial:
        save_file({name: _kept(tensor) for name, tensor in tensors.items()}, partial)
        digest = places.sha256_file(partial)
    beside = {name: places.sha256_file(into / name) for name in (TRAINED,) if (into / name).exists()}
    return replace(card, architecture=KIND, sae_sha256=digest, files=beside | {FILE: digest}).write(into)


def holds_cross_layer(folder: Path) -> bool:
    """Whether there is a cross-layer transcoder in a folder, by the names of its files."""
    return (folder / FILE).exists() or circuit_tracer_cross.detect(folder)


def load_cross_layer(folder: str | Path, device: str = "cpu", *, check: bool = True) -> CrossLayerTranscoder:
    """The transcoder in a folder that `save_cross_layer` or circuit-tracer wrote.

    Raises InterpError, saying what is wrong, for a folder of another kind, one that is incomplete, weights that are not those that the card
    names (unless `check` is false), and tensors that do not fit each other.
    """
    path = Path(folder).expanduser()
    file = path / FILE
    if not file.exists() and circuit_tracer_cross.detect(path):
        return circuit_tracer_cross.read(path).to(device)
    if not file.exists():
        what = "holds an SAE, which `load` opens" if (path / "cfg.json").exists() else "holds none"
        raise InterpError(f"{path} is no folder of a cross-layer transcoder: it has no {FILE}, and {what}.")
    card = Card.read(path)
    if card.architecture != KIND:
        raise InterpError(
            f"{path}/card.json is of a {card.architecture}, and not of a {KIND}; copy the whole folder again."
        )
    if check and places.sha256_file(file) != (card.files.get(FILE) or card.sae_sha256):
        raise InterpError(
            f"{file} is not the file that card.json names (SHA-256 differs): it was changed or cut short."
        )
    try:
        tensors = load_file(file, device=device)
    except (SafetensorError, OSError, ValueError) as error:
        raise InterpError(f"{file} cannot be read: {error}.") from None
    _check(file, tensors)
    return CrossLayerTranscoder(**tensors, name=card.name, reads=card.hook_name, writes=card.hook_name_out)


def _tensors(transcoder: CrossLayerTranscoder) -> dict[str, Tensor]:
    each = transcoder.layers
    return {
        "W_enc": torch.stack([one.W_enc for one in each]),
        "b_enc": torch.stack([one.b_enc for one in each]),
        "threshold": torch.stack([one.threshold for one in each if one.threshold is not None]),
        "W_dec": transcoder.decoders,
        "b_dec": transcoder.b_dec,
        "mix": transcoder.mix,
    }


def _kept(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return (half if torch.equal(half.float(), tensor) else tensor).detach().cpu().contiguous()


def _check(file: Path, tensors: dict[str, Tensor]) -> None:
    """Raises InterpError when tensors are missing, too many, not finite, or of shapes that do not fit each other."""
    if tensors.keys() != AXES.keys():
        other = sorted(tensors.keys() ^ AXES.keys())
        raise InterpError(
            f"{file} has other tensors than {', '.join(AXES)}: {', '.join(other[:6])} differ; it is not whole."
        )
    sizes: dict[str, int] = {}
    for name, axes in AXES.items():
        tensor = tensors[name]
        if tensor.ndim != len(axes) or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise InterpError(f"{file}: {name} is no finite tensor of {len(axes)} axes; train it again.")
        for axis, size in zip(axes, tensor.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise InterpError(f"{file}: {name} is for {size} {NAMES[axis]}, and others are for {sizes[axis]}.")
