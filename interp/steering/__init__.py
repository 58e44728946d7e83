"""Edit features while the model runs, and see what it says with and without the edits."""

from interp.steering.edits import Ablate, Add, Clamp, FeatureEdit, Scale, model_edit
from interp.steering.run import SteerRun, generate

__all__ = ["Ablate", "Add", "Clamp", "FeatureEdit", "Scale", "SteerRun", "generate", "model_edit"]
