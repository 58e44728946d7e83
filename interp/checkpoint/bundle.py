"""Several checkpoints of one model, opened together."""

from collections.abc import Sequence
from pathlib import Path

from interp.checkpoint.card import Card
from interp.checkpoint.files import below, resolve
from interp.checkpoint.folder import load
from interp.sae import SAE
from interp.sae.bundle import Bundle


def open_bundle(
    folders: str | Path | Sequence[str | Path], device: str = "cpu", *, check: bool = True, order: Sequence[str] = ()
) -> Bundle[SAE]:
    """The SAEs, transcoders or crosscoders in these folders, by hook point.

    A folder that is no checkpoint stands for all checkpoints below it. `device` and `check` are those of `load`, and
    `order` those of `Bundle`. Raises InterpError when one cannot be opened, when two read one hook point, and when their
    cards are of different models (one without a card is taken to be of the others').
    """
    given = [folders] if isinstance(folders, str | Path) else list(folders)
    opened = list(dict.fromkeys(folder for each in given for folder in _checkpoints(Path(each).expanduser())))
    saes = [load(folder, device, check=check) for folder in opened]
    return Bundle(saes, models=[_model(folder) for folder in opened], order=order)


def _checkpoints(path: Path) -> list[Path]:
    if path.is_dir() and not (path / "cfg.json").exists():
        return below(path) or [resolve(path)]
    return [resolve(path)]


def _model(folder: Path) -> str:
    """The hash of the model's weights, as the card has it; empty without a card."""
    return Card.read(folder).model_sha256 if (folder / "card.json").exists() else ""
