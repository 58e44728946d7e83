"""interp: train sparse autoencoders on a model's activations, and see, search, name and steer their features.

Names are imported when first used, so that `import interp` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.activations import ActivationStore, harvest
    from interp.checkpoint import Card, load, save
    from interp.corpus import Corpus, open_corpus
    from interp.evals import evaluate
    from interp.index import FeatureIndex, build_index
    from interp.models import open_model
    from interp.recipe import train_checkpoint
    from interp.sae import SAE, BatchTopK, TopK
    from interp.steering import Ablate, Add, Clamp, Scale
    from interp.training import Step, TrainConfig, steps, train
    from interp.types import FeatureRef, InterpError
    from interp.workbench import Workbench

_HOME = {
    "ActivationStore": "activations",
    "harvest": "activations",
    "Card": "checkpoint",
    "load": "checkpoint",
    "save": "checkpoint",
    "Corpus": "corpus",
    "open_corpus": "corpus",
    "evaluate": "evals",
    "FeatureIndex": "index",
    "build_index": "index",
    "open_model": "models",
    "train_checkpoint": "recipe",
    "SAE": "sae",
    "BatchTopK": "sae",
    "TopK": "sae",
    "Ablate": "steering",
    "Add": "steering",
    "Clamp": "steering",
    "Scale": "steering",
    "Step": "training",
    "TrainConfig": "training",
    "steps": "training",
    "train": "training",
    "FeatureRef": "types",
    "InterpError": "types",
    "Workbench": "workbench",
}

__all__ = [
    "SAE",
    "Ablate",
    "ActivationStore",
    "Add",
    "BatchTopK",
    "Card",
    "Clamp",
    "Corpus",
    "FeatureIndex",
    "FeatureRef",
    "InterpError",
    "Scale",
    "Step",
    "TopK",
    "TrainConfig",
    "Workbench",
    "build_index",
    "evaluate",
    "harvest",
    "load",
    "open_corpus",
    "open_model",
    "save",
    "steps",
    "train",
    "train_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"interp.{_HOME[name]}"), name)
