"""Run a model and edit it at its hook points."""

from interp.models.model import Model
from interp.models.open import MODELS, open_model
from interp.models.own import open_module
from interp.models.passes import Edit, Run, Site

__all__ = ["MODELS", "Edit", "Model", "Run", "Site", "open_model", "open_module"]
