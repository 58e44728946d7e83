"""What a direction at a hook point makes the model say, at its own position and later: linear maps to the final residual."""

from interp.lenses.cut import cut_stretches
from interp.lenses.files import load_lenses
from interp.lenses.fitting import FitConfig
from interp.lenses.jacobian import fit_jacobian
from interp.lenses.judge import Judgement, judge
from interp.lenses.lens import Lens, logit_lens, readout
from interp.lenses.measure import Context, measure_changes
from interp.lenses.tuned import fit_tuned

__all__ = [
    "Context",
    "FitConfig",
    "Judgement",
    "Lens",
    "cut_stretches",
    "fit_jacobian",
    "fit_tuned",
    "judge",
    "load_lenses",
    "logit_lens",
    "measure_changes",
    "readout",
]
