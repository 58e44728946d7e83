"""Harvest a model's activations, keep them on disk or stream them, and mix them into training batches."""

from interp.activations.batches import ActivationSource, Batches, Group, Together
from interp.activations.harvesting import harvest
from interp.activations.store import ActivationStore
from interp.activations.streaming import Stream, stream
from interp.activations.together import StoresTogether, open_stores

__all__ = [
    "ActivationSource",
    "ActivationStore",
    "Batches",
    "Group",
    "StoresTogether",
    "Stream",
    "Together",
    "harvest",
    "open_stores",
    "stream",
]
