"""Which feature fires where, on disk."""

from interp.index.build import build_index
from interp.index.read import Example, FeatureIndex

__all__ = ["Example", "FeatureIndex", "build_index"]
