"""What graphs are made of, opened: a model with transcoders, its own neurons or SAEs of the residual stream in the place of its parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp import places
from interp.checkpoint import Card, load
from interp.checkpoint.cross_layer import holds_cross_layer, load_cross_layer
from interp.checkpoint.eight_bit import FILE, Described, cutoffs_of, expanded, read_features
from interp.checkpoint.files import below, resolve
from interp.circuits.crossed import replace_by_cross_layer
from interp.circuits.graph import NEURONS, RESIDUAL
from interp.circuits.neurons import PER_POSITION, replace_by_neurons
from interp.circuits.replacement import Replacement, make_replacement
from interp.circuits.residual import STEPS, reads_stream, replace_stream
from interp.labels import LabelBook
from interp.models import Model, open_model
from interp.sae import SAE
from interp.types import InterpError


@dataclass(frozen=True)
class Opened:
    """A model read through its transcoders, as its neurons or through SAEs of its residual stream."""

    replacement: Replacement
    folders: tuple[str, ...] = ()
    """Of each layer's transcoder or SAE, as it was named."""
    books: tuple[LabelBook | None, ...] = ()
    described: Mapping[tuple[int, int], Described] = field(default_factory=dict, repr=False)
    """By layer and feature, what it fires on."""

    @property
    def model(self) -> Model:
        return self.replacement.model

    def names(self, features: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
        """By layer and number: what people or a run called them, else on which tokens they fire where that is known; others are left out.
        Neurons have no names of this kind."""
        return {feature: one.text for feature, one in self.told(features).items()}

    def told(self, features: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Described]:
        """The same, with the label that others may share: one that a person or a run gave, or one that held."""
        newest = [book.newest() if book is not None else {} for book in self.books]
        found = {}
        for layer, feature in features:
            label = newest[layer].get(feature) if newest else None
            if label is not None and label.text.strip():
                found[layer, feature] = Described(label.text, label.text)
            elif (layer, feature) in self.described:
                found[layer, feature] = self.described[layer, feature]
        return found


def open_circuits(transcoders: str | Path, *, model: str = "", device: str = "auto") -> Opened:
    """The model of these transcoders (checkpoints below a folder, or a cross-layer transcoder), and they in the places of its MLPs.

    `model` names it where they have no cards. Raises InterpError when there are none, when they are of several models or of another
    one than is here, and when a layer has none.
    """
    root = _place(transcoders)
    if holds_cross_layer(root):
        opened, cutoffs = _model_of([root], f"the cross-layer transcoder at {transcoders}", model, device)
        crossed = replace_by_cross_layer(opened, load_cross_layer(root), cutoffs)
        return Opened(crossed, (str(transcoders),), described=read_features(root))
    described = read_features(root)
    root = expanded(root) if (root / FILE).exists() else root
    folders = below(root) if root.is_dir() else []
    if not folders:
        raise InterpError(
            f"there are no transcoders at {transcoders}; a graph needs one for every layer of the model. Name the folder that holds them "
            "with --transcoders, or train them with recipes/smollm2_transcoders.py."
        )
    opened, cutoffs = _model_of(folders, f"the transcoders at {transcoders}", model, device)
    saes = {str(folder): load(folder) for folder in folders}
    made = make_replacement(opened, list(saes.values()), cutoffs)
    ordered = _ordered(made, saes)
    # As they were named, not where they lie on this machine: graphs that are passed on say it.
    named = tuple((Path(transcoders) / Path(each).relative_to(root)).as_posix() for each in ordered)
    return Opened(made, named, tuple(_book(Path(each)) for each in ordered), described)


def open_neurons(model: str, *, per_position: int = PER_POSITION, gate: str = "held", device: str = "auto") -> Opened:
    """A model read as its own MLP neurons, `per_position` of each layer at a position (see `circuits.neurons`).

    Raises InterpError for a model whose MLPs are neither plain nor gated.
    """
    opened = open_model(model, dtype="float32", device=device)
    return Opened(replace_by_neurons(opened, per_position=per_position, gate=gate))


def open_stream(saes: Sequence[str], *, steps: int = STEPS, model: str = "", device: str = "auto") -> Opened:
    """The model of these SAEs (checkpoints, or folders that hold some), and they along its residual stream (see `circuits.residual`).

    `model` names it where they have no cards. Raises InterpError when there are none, when they are of several models or of another
    one than is here, and for SAEs that are not of the residual stream, or two at one hook point of it.
    """
    folders = {folder: name for each in saes for folder, name in _checkpoints(each).items()}
    if not folders:
        raise InterpError("a graph over the residual stream needs at least one SAE; name its folder with --saes.")
    opened, cutoffs = _model_of(list(folders), f"the SAEs at {', '.join(saes)}", model, device)
    loaded = {str(folder): load(folder) for folder in folders}
    made = replace_stream(opened, list(loaded.values()), cutoffs, steps=steps)
    ordered = _ordered(made, loaded)
    return Opened(made, tuple(folders[Path(each)] for each in ordered), tuple(_book(Path(each)) for each in ordered))


def open_asked(asked: Mapping[str, Any], device: str = "auto") -> Opened:
    """What a graph was made of, as its file says it (`about`, `asked`)."""
    model = str(asked.get("model", ""))
    if asked.get("over") == NEURONS:
        return open_neurons(
            model,
            per_position=int(asked.get("per_position", PER_POSITION)),
            gate=str(asked.get("gate", "held")),
            device=device,
        )
    if asked.get("over") == RESIDUAL:
        return open_stream(list(asked["saes"]), steps=int(asked.get("steps", STEPS)), model=model, device=device)
    return open_circuits(str(asked["transcoders"]), model=model, device=device)


def holds_stream(folder: str) -> bool:
    """Whether there are SAEs of the residual stream below a folder, and no transcoders."""
    root = _place(folder)
    if not root.is_dir() or (root / FILE).exists():
        return False
    found = below(root)
    return bool(found) and all(reads_stream(load(each)) for each in found)


def _place(folder: str | Path) -> Path:
    """Where a folder lies: as it is named, or among what came with the project."""
    place = Path(folder).expanduser()
    return place if place.exists() else places.shipped(str(folder))


def _checkpoints(named: str) -> dict[Path, str]:
    """The checkpoints that a name stands for, each as it would be named alone."""
    root = _place(named)
    if root.is_dir() and not (root / "cfg.json").exists() and (inner := below(root)):
        return {folder: (Path(named) / folder.relative_to(root)).as_posix() for folder in inner}
    return {resolve(named): named}


def _model_of(folders: Sequence[Path], what: str, model: str, device: str) -> tuple[Model, dict[str, float]]:
    """(the model that these checkpoints were made for, the norms above which positions are sinks)."""
    cards = {folder: Card.read(folder) for folder in folders if (folder / "card.json").exists()}
    names = {card.model for card in cards.values()}
    if len(names) > 1:
        raise InterpError(f"{what} are of several models: {', '.join(sorted(names))}.")
    if not names and not model:
        raise InterpError(f"{what} have no cards, so name their model with --model.")
    opened = open_model(model or next(iter(names)), dtype="float32", device=device)
    cutoffs: dict[str, float] = {}
    for folder, card in cards.items():
        here = opened.fingerprint_like(card.model_sha256)
        if here != card.model_sha256:
            raise InterpError(
                f"{folder.name} was made for {card.model} with weights {card.model_sha256[:12]}…, and {opened.name}, which is here, has "
                f"{here[:12]}…: a graph is of the model that its dictionaries were trained on."
            )
        cutoffs |= cutoffs_of(card)
    return opened, cutoffs


def _ordered(made: Replacement, saes: Mapping[str, SAE]) -> list[str]:
    where = {id(one): folder for folder, one in saes.items()}
    return [where[id(one)] for one in made.transcoders]


def _book(folder: Path) -> LabelBook | None:
    return LabelBook.of(folder) if (folder / "card.json").exists() else None
