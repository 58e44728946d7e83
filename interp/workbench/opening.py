"""What is open: one SAE with its card and labels, and beside it its model and its index, each opened when first needed."""

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from interp import places
from interp.checkpoint import Card, load
from interp.checkpoint.card import versions
from interp.checkpoint.files import resolve
from interp.device import native_bfloat16, resolve_device
from interp.index import FeatureIndex
from interp.labels import LabelBook
from interp.lenses.said import Said, load_said
from interp.models import Model, open_model
from interp.sae import SAE
from interp.search.meanings import Meanings
from interp.steering import Hooked, SteeredModel
from interp.types import InterpError
from interp.workbench.meant import meanings

Kind = TypeVar("Kind", bound="Opened")
SAID = "lenses.safetensors"
"""In a checkpoint's folder, what its features are disposed to say (`lenses/said.py`)."""
EMBEDDED = "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"


class SharedModels:
    """Models that several workbenches have open: each is in memory once, for as long as one of them needs it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: WeakValueDictionary[tuple[object, ...], Model] = WeakValueDictionary()

    def open(self, name: str, dtype: str, device: str, attention: str) -> Model:
        """As `open_model`; a folder whose files were written anew is opened anew. Raises what that raises."""
        local = Path(name)
        files = sorted((each.name, each.stat().st_mtime_ns) for each in local.iterdir()) if local.is_dir() else []
        key = (name, dtype, device, attention, *files)
        with self._lock:
            model = self._open.get(key)
            if model is None:
                model = open_model(name, dtype=dtype, device=device, attention=attention)
                self._open[key] = model
            return model


@dataclass(frozen=True, eq=False)
class Opened:
    """One open SAE, as the rooms of the workbench take it; threads (pages in several browser tabs) may share it."""

    sae: SAE
    card: Card
    folder: Path
    labels: LabelBook
    device: str = "auto"
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Of what is opened once for all threads."""
    _answers: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What the model said of texts that were searched with, so that a page can be drawn again at once."""
    _models: SharedModels = field(default_factory=SharedModels, repr=False)
    """Where its model is opened, or found open."""
    _given: Model | None = field(default=None, repr=False)
    """Its model, where that was open already."""

    @classmethod
    def open(
        cls: type[Kind],
        path: str | Path = EMBEDDED,
        *,
        device: str = "auto",
        labels: str | None = None,
        models: SharedModels | None = None,
        model: Model | None = None,
    ) -> Kind:
        """The checkpoint in a folder, with its labels (a SQLAlchemy URL moves them elsewhere); `models` are shared with others.
        `model` is its model where that is open already, such as a module of one's own, which no name opens.

        The model and the index are opened when they are first needed. Raises InterpError when the folder is
        no checkpoint with a card.
        """
        folder = resolve(path)
        if folder.is_dir() and not (folder / "card.json").exists():
            raise InterpError(
                f"{folder} has no card.json, so its model and hook point are unknown; open it with interp.load instead."
            )
        sae = load(folder)
        card = Card.read(folder)
        book = LabelBook(card.sae_sha256, sae.d_sae, url=labels, shipped=folder / "labels.jsonl")
        return cls(sae, card, folder, book, device, _models=models or SharedModels(), _given=model)

    @property
    def model(self) -> Model:
        """The model the SAE was made for, opened once; InterpError when another one answers to its name."""
        with self._lock:  # since Python 3.12 a cached_property has none of its own
            return self._model

    @cached_property
    def _model(self) -> Model:
        model = self._given or self._open_model()
        here = model.fingerprint_like(self.card.model_sha256)
        if here != self.card.model_sha256:
            raise InterpError(
                f"{self.card.name} was made for {self.card.model} with weights {self.card.model_sha256[:12]}…, and the "
                f"{self.card.model} found here has {here[:12]}…; open the model it was trained on."
            )
        self.sae.to(model.device)
        return model

    def _open_model(self) -> Model:
        # As when its activations were harvested; bfloat16 only where it is native, for elsewhere it takes minutes.
        native = native_bfloat16(resolve_device(self.device))
        dtype = "float32" if self.card.dtype == "bfloat16" and not native else self.card.dtype
        return self._models.open(self.card.model, dtype, self.device, self.card.attention)

    @property
    def full_index_folder(self) -> Path:
        """Where the full index lies, once it was built."""
        return places.cache() / "indexes" / self.card.sae_sha256

    def neuron_index_folder(self, hook_name: str) -> Path:
        """Where the index of a layer's raw neurons lies, once it was built; every SAE of the model finds it."""
        return self.full_index_folder.with_name(f"{self.card.model_sha256}-{hook_name}")

    @cached_property
    def index(self) -> FeatureIndex:
        """The full index where one was built, else the one that came with the checkpoint.

        Raises InterpError when there is none, or it was made for other weights.
        """
        full = self.full_index_folder
        index = FeatureIndex.open(full if (full / "index.json").exists() else self.folder / "index")
        if index.meta["sae_sha256"] != self.card.sae_sha256:
            raise InterpError(
                f"the index in {index.folder} was made for other weights; `interp index {self.folder}` builds it anew."
            )
        index.said = self.said
        return index

    @property
    def said_path(self) -> Path:
        """Where what features are disposed to say is kept on this machine, once it was found."""
        return places.cache() / "lenses" / "said" / f"{self.card.sae_sha256}.safetensors"

    @cached_property
    def said(self) -> Said | None:
        """What the lenses that were judged best say of all features: as it was found on this machine, else as it came with
        the checkpoint; None where none was judged.

        Raises InterpError when the file is damaged or of other weights.
        """
        for path in (self.said_path, self.folder / SAID):
            if path.exists():
                return load_said(path, self.card.sae_sha256, self.card.model_sha256, self.sae.d_sae)
        return None

    def index_or_none(self) -> FeatureIndex | None:
        """The index; None where there is none that belongs to these weights."""
        try:
            return self.index
        except InterpError:
            return None

    @cached_property
    def meanings(self) -> Meanings:
        """Sentence vectors of texts: those of labels that came with the checkpoint, and what is kept under INTERP_HOME."""
        return meanings(self.folder)

    @cached_property
    def saes(self) -> dict[str, Hooked]:
        """This SAE where it is edited, and those that edits have named; the empty name is this one's."""
        own = Hooked(self.sae, self.card.mask.cutoffs, self.card.separator, self.card.sae_sha256)
        return {"": own, self.card.name: own}

    @cached_property
    def steered(self) -> SteeredModel:
        """The model with this SAE (and those that edits have named) at their hook points, for `interp.steering`."""
        identity = {
            "sae": self.card.name,
            "sae_sha256": self.card.sae_sha256,
            "hook_name": self.card.hook_name,
            "model": self.model.name,
            "model_sha256": self.card.model_sha256,
            "versions": versions(),
        }
        return SteeredModel(self.model, self.saes, lambda: self.model.vocabulary, identity)

    def name(self, feature: int) -> str:
        """The feature's label, or its automatic description."""
        label = self.labels.get(feature)
        return label.text if label else self.index.describe(feature)
