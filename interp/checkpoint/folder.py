"""A checkpoint's folder: an SAE in SAELens 6's format (`cfg.json`, `sae_weights.safetensors`) with our card beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from interp import places
from interp.checkpoint.card import TRAINED, WEIGHTS, Card
from interp.checkpoint.formats import format_of, read, saelens
from interp.checkpoint.formats.saelens.reading import opened, opened_part
from interp.checkpoint.formats.saelens.writing import save_weights
from interp.sae import SAE
from interp.sae.shards import ONE, Shards
from interp.types import InterpError


def save(sae: SAE, folder: str | Path, card: Card, shards: Shards = ONE) -> Card:
    """Write the checkpoint; the card as written, with the weights' hash, comes back.

    Of several ranks that share the features each writes its part of the weights, and the first the rest.
    """
    into = Path(folder)
    digest = save_weights(sae, into, card, shards=shards)
    if not shards.leads:
        return card
    beside = [name for name in ("cfg.json", TRAINED) if (into / name).exists()]
    files = {name: places.sha256_file(into / name) for name in beside} | {WEIGHTS: digest}
    return replace(card, sae_sha256=digest, files=files).write(into)


def load(folder: str | Path, device: str = "cpu", *, check: bool = True, scale: float | None = None) -> SAE:
    """The SAE in a folder of SAELens 6's format, with or without our card, or in another library's that is known.

    Raises InterpError, saying what is wrong, for a folder that is missing, incomplete or of another kind, when it has
    settings that are not known here, and when the weights are not the ones the card names (unless `check` is false: for
    who compares them himself). `scale` is what training multiplied activations by, for a folder that says they are
    normalised: it is folded in.
    """
    path = Path(folder)
    if not saelens.detect(path):
        found = _of_another_library(path, scale)
        if found is not None:
            return found.to(device)
    sae, _, unknown = opened(path, device, check=check, scale=scale)
    _refuse_unknown(path, unknown)
    return sae


def load_part(folder: str | Path, shards: Shards) -> SAE:
    """The SAE in a folder that training wrote, or of its features those of this rank, where ranks share them.

    Raises InterpError when the weights are not the ones that the card names.
    """
    return load(folder) if shards.features == 1 else opened_part(Path(folder), shards)


def _of_another_library(path: Path, scale: float | None) -> SAE | None:
    """What `formats.read` reads there; None where it is of no format that is known."""
    if not path.exists() or not format_of(path):
        return None
    foreign = read(path, scale=scale)[1]
    _refuse_unknown(path, foreign.unknown)
    return foreign.sae


def _refuse_unknown(path: Path, unknown: Sequence[str]) -> None:
    if unknown:
        raise InterpError(
            f"{path} has settings that this version does not know ({', '.join(unknown[:4])}), and which may change numbers; "
            "`interp convert` writes it without them, and lists them."
        )
