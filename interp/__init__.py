"""interp: train sparse autoencoders on a model's activations, and see, search, name and steer their features.

Names are imported when first used, so that `import interp` costs nothing.
"""

from typing import TYPE_CHECKING

from interp.renamed import renamed

if TYPE_CHECKING:
    from interp.activations import ActivationStore, Stream, harvest, open_stores, stream
    from interp.checkpoint import Card, load, open_bundle, save
    from interp.corpus import Corpus, open_corpus
    from interp.evals import evaluate
    from interp.index import FeatureIndex, build_index
    from interp.models import open_model, open_module
    from interp.recipe import selftest, train_checkpoint, train_sweep
    from interp.sae import (
        SAE,
        BatchTopK,
        Bundle,
        Crosscoder,
        Gated,
        JumpReLU,
        Matryoshka,
        Standard,
        TopK,
        Transcoder,
        make_architecture,
    )
    from interp.steering import Ablate, Add, Clamp, Direction, Orthogonal, Scale, StrengthSweepConfig, When
    from interp.training import Step, TrainConfig, steps, steps_many, train, train_many
    from interp.types import FeatureRef, Hook, InterpError
    from interp.workbench import Workbench

_HOME = {
    "ActivationStore": "activations",
    "Stream": "activations",
    "harvest": "activations",
    "open_stores": "activations",
    "stream": "activations",
    "Card": "checkpoint",
    "load": "checkpoint",
    "open_bundle": "checkpoint",
    "save": "checkpoint",
    "Corpus": "corpus",
    "open_corpus": "corpus",
    "evaluate": "evals",
    "FeatureIndex": "index",
    "build_index": "index",
    "open_model": "models",
    "open_module": "models",
    "selftest": "recipe",
    "train_checkpoint": "recipe",
    "train_sweep": "recipe",
    "SAE": "sae",
    "BatchTopK": "sae",
    "Bundle": "sae",
    "Crosscoder": "sae",
    "Gated": "sae",
    "JumpReLU": "sae",
    "Matryoshka": "sae",
    "Standard": "sae",
    "TopK": "sae",
    "Transcoder": "sae",
    "make_architecture": "sae",
    "Ablate": "steering",
    "Add": "steering",
    "Clamp": "steering",
    "Direction": "steering",
    "Orthogonal": "steering",
    "Scale": "steering",
    "StrengthSweepConfig": "steering",
    "When": "steering",
    "Step": "training",
    "TrainConfig": "training",
    "steps": "training",
    "steps_many": "training",
    "train": "training",
    "train_many": "training",
    "FeatureRef": "types",
    "Hook": "types",
    "InterpError": "types",
    "Workbench": "workbench",
}

__all__ = [
    "SAE",
    "Ablate",
    "ActivationStore",
    "Add",
    "BatchTopK",
    "Bundle",
    "Card",
    "Clamp",
    "Corpus",
    "Crosscoder",
    "Direction",
    "FeatureIndex",
    "FeatureRef",
    "Gated",
    "Hook",
    "InterpError",
    "JumpReLU",
    "Matryoshka",
    "Orthogonal",
    "Scale",
    "Standard",
    "Step",
    "Stream",
    "StrengthSweepConfig",
    "TopK",
    "TrainConfig",
    "Transcoder",
    "When",
    "Workbench",
    "build_index",
    "evaluate",
    "harvest",
    "load",
    "make_architecture",
    "open_bundle",
    "open_corpus",
    "open_model",
    "open_module",
    "open_stores",
    "save",
    "selftest",
    "steps",
    "steps_many",
    "stream",
    "train",
    "train_checkpoint",
    "train_many",
    "train_sweep",
]

__getattr__ = renamed("interp", {"sweep": "train_sweep", "SweepConfig": "StrengthSweepConfig"}, _HOME)
