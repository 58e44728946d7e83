"""Other libraries' checkpoints, read and written: one file a format, one line here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from interp import places
from interp.checkpoint.formats import circuit_tracer, dictionary_learning, llamascopium, saelens, sparsify
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


FORMATS: dict[str, Format] = {
    "saelens": Format(saelens.detect, saelens.read, saelens.write),
    "sparsify": Format(sparsify.detect, sparsify.read, sparsify.write),
    "dictionary_learning": Format(dictionary_learning.detect, dictionary_learning.read, dictionary_learning.write),
    "llamascopium": Format(llamascopium.detect, llamascopium.read, llamascopium.write),
    "circuit-tracer": Format(circuit_tracer.detect, circuit_tracer.read, None),
}


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


def read(path: str | Path, format_: str = "", scale: float | None = None) -> tuple[str, Foreign]:
    """(format, what is in it); the format is told from the files' names when it is not given.

    `scale` is what training multiplied activations by, for SAELens folders in which it is not folded.
    """
    place = Path(path)
    if format_ and format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if not place.exists():
        raise InterpError(f"there is nothing at {place}; give a checkpoint's folder or file.")
    name = format_ or next((name for name, known in FORMATS.items() if known.detect(place)), "")
    if not name:
        raise InterpError(f"{place} is of no format that is known here ({', '.join(FORMATS)}); --from names one.")
    if scale is not None and name != "saelens":
        raise InterpError(f"a scale is folded into SAELens folders only, and {place} is of {name}.")
    return name, FORMATS[name].read(place) if scale is None else saelens.read(place, scale)


def convert(
    source: str | Path,
    target: str,
    into: str | Path,
    *,
    format_: str = "",
    hook_name: str = "",
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
    if hook_name:
        foreign.sae.hook_name = hook_name
    foreign = replace(foreign, model=model or foreign.model)
    with places.whole_folder(Path(into)) as partial:
        lost = [*foreign.lost, *writer(foreign, partial)]
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


__all__ = ["FORMATS", "Conversion", "Foreign", "compare", "convert", "read"]
