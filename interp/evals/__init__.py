"""Measures of an SAE on held-out text, one file each."""

from interp.evals.fidelity import Report, evaluate

__all__ = ["Report", "evaluate"]
