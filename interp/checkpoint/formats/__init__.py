"""Other libraries' checkpoints, read and written: one file a format, one line here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp import places
from interp.checkpoint.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    llamascopium,
    saelens,
    sparsify,
    torch_files,
)
from interp.checkpoint.formats.foreign import Foreign
from interp.sae import SAE
from interp.types import InterpError, unknown


@dataclass(frozen=True)
class Format:
    """How one library's checkpoints are told, read and written."""

    detect: Callable[[Path], bool]
    read: Callable[[Path], Foreign]
    write: Callable[[Foreign, Path], list[str]] | None
    """Into an existing empty folder; what the format cannot hold comes back, a phrase each. None: not written."""
    scaled: Callable[[Path, float], Foreign] | None = None
    """`read` with what training multiplied activations by, where the files may not hold it."""


FORMATS: dict[str, Format] = {
    "saelens": Format(saelens.detect, saelens.read, saelens.write, saelens.read),
    "sparsify": Format(sparsify.detect, sparsify.read, sparsify.write),
    "dictionary_learning": Format(dictionary_learning.detect, dictionary_learning.read, dictionary_learning.write),
    "llamascopium": Format(llamascopium.detect, llamascopium.read, llamascopium.write, llamascopium.read),
    "llama-scope": Format(llama_scope.detect, llama_scope.read, None),
    "gemma-scope": Format(gemma_scope.detect, gemma_scope.read, None),
    "qwen-scope": Format(torch_files.detect("qwen-scope"), torch_files.read_qwen_scope, None),
    "attn-saes": Format(torch_files.detect("attn-saes"), torch_files.read_attn_saes, None),
    "openai": Format(torch_files.detect("openai"), torch_files.read_openai, None),
    "linear": Format(torch_files.detect("linear"), torch_files.read_linear, None),
    "circuit-tracer": Format(circuit_tracer.detect, circuit_tracer.read, None),
}
"""Told in this order, the ones that look at more files first."""
WHOLE = ("sae_weights.safetensors", "sae.safetensors", "ae.pt", "final.safetensors")
"""Weights that are nothing without the configuration beside them: naming such a file is naming its folder."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did."""

    source: str
    target: str
    into: Path
    sae: SAE
    """As read from the source."""
    model: str
    """As the source or the caller names it; may be empty."""
    lost: list[str]
    """What the one or the other format does not hold."""

    def error(self, x_BD: Float[Tensor, "B D"]) -> dict[str, float]:
        """How far what was written lies from what was read, on the same inputs (see `compare`)."""
        return compare(self.sae, FORMATS[self.target].read(self.into).sae, x_BD)


def format_of(path: Path) -> str:
    """The name of the format whose files lie there; empty when it is none of them."""
    return next((name for name, known in FORMATS.items() if known.detect(path)), "")


def offer(path: Path) -> str:
    """What to add to the sentence that a folder is no checkpoint, where it is of another library's format."""
    name = format_of(path) if path.exists() else ""
    return f"; it is of the format {name}, of which `interp convert` makes one" if name not in ("", "saelens") else ""


def read(path: str | Path, format_: str = "", scale: float | None = None) -> tuple[str, Foreign]:
    """(format, what is in it); the format is told from the files' names when it is not given.

    `scale` is what training multiplied activations by, for folders in which it is neither folded nor written down.

    Raises InterpError for a format that is unknown, a path that holds none, and a scale that cannot be folded in.
    """
    place = Path(path)
    if format_ and format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if not place.exists():
        raise InterpError(f"there is nothing at {place}; give a checkpoint's folder or file.")
    if place.name in WHOLE:
        place = place.parent.parent if place.parent.name == "checkpoints" else place.parent
    name = format_ or format_of(place)
    if not name:
        raise _nothing_known(place)
    known = FORMATS[name]
    if scale is None:
        return name, known.read(place)
    if known.scaled is None:
        can = " or ".join(name for name, known in FORMATS.items() if known.scaled)
        raise InterpError(f"a scale is folded into folders of {can} only, and {place} is of {name}.")
    if not 0 < scale < math.inf:
        raise InterpError(f"the scale is {scale}; it is the number that training multiplied activations by.")
    return name, known.scaled(place, scale)


def _nothing_known(place: Path) -> InterpError:
    """The error for a path that is of no format, which names what lies below it if that is of one."""
    below = [] if place.is_file() else sorted({folder for folder in _folders(place, 3) if format_of(folder)})
    if below:
        shown = ", ".join(folder.relative_to(place).as_posix() for folder in below[:6])
        more = f" and {len(below) - 6} more" if len(below) > 6 else ""
        return InterpError(f"{place} holds {len(below)} checkpoints ({shown}{more}); name one of them.")
    return InterpError(f"{place} is of no format that is known here ({', '.join(FORMATS)}); --from names one.")


def _folders(place: Path, depth: int) -> list[Path]:
    """Folders below one, not through links, to a depth."""
    inside = [entry for entry in sorted(place.iterdir()) if entry.is_dir() and not entry.is_symlink()][:500]
    return inside + [deeper for entry in inside if depth > 1 for deeper in _folders(entry, depth - 1)]


def convert(
    source: str | Path,
    target: str,
    into: str | Path,
    *,
    format_: str = "",
    hook_name: str = "",
    hook_name_out: str = "",
    model: str = "",
    scale: float | None = None,
) -> Conversion:
    """Write a checkpoint in another library's format; `into` appears whole or not at all.

    Raises InterpError when the source cannot be read, or the target cannot compute what the source computes.
    """
    if target not in FORMATS:
        raise unknown("format", target, FORMATS)
    writer = FORMATS[target].write
    if writer is None:
        can = [name for name, known in FORMATS.items() if known.write]
        raise InterpError(f"{target} is read and not written here; formats that are written: {', '.join(can)}.")
    name, foreign = read(source, format_, scale)
    if foreign.sae.tanh:
        raise InterpError(f"{target} has no {saelens.TANH}, by which {source} squashes activations; open it as it is.")
    said = foreign.not_held()
    if hook_name or hook_name_out:
        sae = foreign.sae
        sae.set_hooks(hook_name or sae.hook_name, hook_name_out or sae.hook_name_out or None)
    if hook_name:
        said = [phrase for phrase in said if not phrase.startswith("no hook point")]
    foreign = replace(foreign, model=model or foreign.model)
    with places.whole_folder(Path(into)) as partial:
        lost = [*said, *writer(foreign, partial)]
    return Conversion(source=name, target=target, into=Path(into), sae=foreign.sae, model=foreign.model, lost=lost)


@torch.inference_mode()
def compare(a: SAE, b: SAE, x_BD: Float[Tensor, "B D"]) -> dict[str, float]:
    """Largest difference of codes and of reconstructions, and codes that one has and the other has not.

    Computed plainly and densely, in batches, so that it rests on no shortcut.
    """
    codes = outputs = 0.0
    flips = total = 0
    for rows in x_BD.split(256):
        za, zb = a.encode(rows), b.encode(rows)
        both = (za > 0) & (zb > 0)
        codes = max(codes, float(((za - zb).abs() * both).max()))
        flips, total = flips + int(((za > 0) ^ (zb > 0)).sum()), total + int((za > 0).sum())
        outputs = max(outputs, float((a.reconstruct(rows) - b.reconstruct(rows)).abs().max()))
    return {"codes": codes, "reconstruction": outputs, "come_or_go": flips, "active": total, "rows": len(x_BD)}


__all__ = ["FORMATS", "Conversion", "Foreign", "compare", "convert", "format_of", "offer", "read"]
