"""Run a model and edit it at its hook points."""

from interp.models.model import Edit, Model, Run, Site
from interp.models.open import MODELS, open_model

__all__ = ["MODELS", "Edit", "Model", "Run", "Site", "open_model"]
