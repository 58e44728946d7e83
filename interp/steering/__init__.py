"""Edit features while the model runs; sweep, control, judge, record and replay what that does."""

from interp.renamed import renamed
from interp.steering.ablation import Ablation, ablate
from interp.steering.apply import editable
from interp.steering.binding import BoundEdit, Hooked, bind
from interp.steering.compiling import compile_edits, model_edit
from interp.steering.conflicts import find_conflicts
from interp.steering.controls import matched_features
from interp.steering.curve import StrengthSweep, StrengthSweepConfig
from interp.steering.difference import difference_of_means
from interp.steering.edits import Ablate, Add, Clamp, Direction, FeatureEdit, Orthogonal, Scale, When
from interp.steering.effects import Effects, effects
from interp.steering.presets import Preset
from interp.steering.replay import Replay, compare
from interp.steering.run import SteerBatch, SteerRun, generate, generate_many
from interp.steering.sampling import Sampling, SamplingOptions
from interp.steering.steerable import Steerable
from interp.steering.steered import SteeredModel, SteerRequest
from interp.steering.strength_sweep import sweep_strengths
from interp.steering.verdict import OPENINGS, Verdict, judge

__all__ = [
    "OPENINGS",
    "Ablate",
    "Ablation",
    "Add",
    "BoundEdit",
    "Clamp",
    "Direction",
    "Effects",
    "FeatureEdit",
    "Hooked",
    "Orthogonal",
    "Preset",
    "Replay",
    "Sampling",
    "SamplingOptions",
    "Scale",
    "SteerBatch",
    "SteerRequest",
    "SteerRun",
    "Steerable",
    "SteeredModel",
    "StrengthSweep",
    "StrengthSweepConfig",
    "Verdict",
    "When",
    "ablate",
    "bind",
    "compare",
    "compile_edits",
    "difference_of_means",
    "editable",
    "effects",
    "find_conflicts",
    "generate",
    "generate_many",
    "judge",
    "matched_features",
    "model_edit",
    "sweep_strengths",
]

__getattr__ = renamed(
    __name__,
    {
        "Stage": "SteeredModel",
        "Subject": "Steerable",
        "Sweep": "StrengthSweep",
        "SweepConfig": "StrengthSweepConfig",
        "contrast": "difference_of_means",
        "sweep": "sweep_strengths",
    },
)
