"""Which feature fires where, on disk. Names are imported when first used: whoever reads an index builds none."""

from typing import TYPE_CHECKING

from interp.renamed import renamed

if TYPE_CHECKING:
    from interp.index.build import IndexConfig, build_index
    from interp.index.neurons import Neurons, parse_neuron
    from interp.index.read import Example, FeatureIndex

_HOME = {
    "Example": "read",
    "FeatureIndex": "read",
    "IndexConfig": "build",
    "Neurons": "neurons",
    "build_index": "build",
    "parse_neuron": "neurons",
}

__all__ = ["Example", "FeatureIndex", "IndexConfig", "Neurons", "build_index", "parse_neuron"]

__getattr__ = renamed(__name__, {}, _HOME)
