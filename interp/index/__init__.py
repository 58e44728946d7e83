"""Which feature fires where, on disk."""

from interp.index.build import IndexConfig, build_index
from interp.index.neurons import Neurons, parse_neuron
from interp.index.read import Example, FeatureIndex

__all__ = ["Example", "FeatureIndex", "IndexConfig", "Neurons", "build_index", "parse_neuron"]
