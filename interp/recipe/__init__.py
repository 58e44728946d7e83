"""From activations to checkpoints with their cards: one SAE, a sweep of many from one pass, and the self-test."""

from interp.recipe.grid import train_sweep
from interp.recipe.one import train_checkpoint
from interp.recipe.planted import selftest
from interp.renamed import renamed

__all__ = ["selftest", "train_checkpoint", "train_sweep"]

__getattr__ = renamed("interp.recipe", {"sweep": "train_sweep", "Source": "interp.activations:ActivationSource"})
