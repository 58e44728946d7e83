"""Measures of an SAE on held-out text, one file each, and the report of all of them."""

from interp.evals.fidelity import Fidelity, evaluate
from interp.renamed import renamed

__all__ = ["Fidelity", "evaluate"]

__getattr__ = renamed("interp.evals", {"Report": "interp.evals.fidelity:Fidelity"})
