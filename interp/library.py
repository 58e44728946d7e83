"""The checkpoints in a folder: what each is, what was measured, how many labels it has, and whether it was verified."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import Card
from interp.checkpoint.files import below, present, shelved
from interp.checkpoint.readme import model_name
from interp.checkpoint.record import recall
from interp.labels import LabelBook
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One checkpoint; what is not known is None."""

    name: str
    folder: str
    model: str = ""
    hook: str = ""
    architecture: str = ""
    features: int | None = None
    mib: float = 0.0
    l0: float | None = None
    ev: float | None = None
    """1 - FVU, on the text that the card says."""
    delta_ce: float | None = None
    """Nats a token."""
    labels: int = 0
    indexed: int | None = None
    """Positions in the index beside it."""
    verified: str = "not verified"
    problem: str = ""
    """Why it cannot be read; empty for all that can."""


def library(root: str | Path | None = None, *, labels: str | None = None) -> list[Entry]:
    """Every checkpoint below a folder, by name; one that cannot be read says why instead of hiding.

    Without a folder: those below `saes/` here, and those that came with the project. `labels` is the label book's
    SQLAlchemy URL. Raises InterpError when there is no such folder.
    """
    if root is not None and not Path(root).is_dir():
        raise InterpError(
            f"there is no folder {root}; `interp train`, `interp pull` and `interp unpack` make checkpoints."
        )
    return [_entry(folder, labels) for folder in (below(Path(root)) if root is not None else shelved())]


def _entry(folder: Path, labels: str | None) -> Entry:
    try:
        files, _ = present(folder)
        cfg = places.read_json(folder / "cfg.json")
        card = Card.read(folder) if "card.json" in files else None
    except InterpError as error:
        return Entry(name=folder.name, folder=str(folder), problem=str(error))
    cfg = cfg if isinstance(cfg, dict) else {}
    about = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else cfg
    size = sum(path.stat().st_size for path in files.values()) / 2**20
    features = cfg.get("d_sae") if isinstance(cfg.get("d_sae"), int) else None
    shown: dict[str, Any] = {
        "folder": str(folder),
        "mib": round(size, 1),
        "features": features,
        "verified": recall(folder),
    }
    shown["indexed"] = _indexed(folder)
    if card is None:
        model, hook = (str((about or {}).get(key) or "") for key in ("model_name", "hook_name"))
        return Entry(name=folder.name, model=model, hook=hook, architecture=str(cfg.get("architecture")), **shown)
    figures = _figures(card)
    book = LabelBook(card.sae_sha256, features or 0, url=labels, shipped=folder / "labels.jsonl")
    return Entry(
        name=card.name,
        model=model_name(card.model),
        hook=card.hook_name + (f" → {card.hook_name_out}" if card.hook_name_out else ""),
        architecture=card.architecture,
        l0=figures.get("l0"),
        ev=1 - figures["fvu"] if "fvu" in figures else None,
        delta_ce=figures.get("delta_ce"),
        labels=len(book.all()),
        **shown,
    )


def _figures(card: Card) -> dict[str, float]:
    """The numbers of the card's first set of figures that has an L0 or FVU."""
    for figures in [card.metrics, *(value for value in card.metrics.values() if isinstance(value, dict))]:
        numbers = {key: float(value) for key, value in figures.items() if isinstance(value, int | float)}
        if "fvu" in numbers or "l0" in numbers:
            return numbers
    return {}


def _indexed(folder: Path) -> int | None:
    try:
        return int(places.read_json(folder / "index" / "index.json")["positions"])
    except (InterpError, KeyError, TypeError, ValueError):
        return None
