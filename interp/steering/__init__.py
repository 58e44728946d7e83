"""Edit features while the model runs; sweep, control, judge, record and replay what that does."""

from interp.steering.apply import compile_edits, editable, model_edit
from interp.steering.contrast import contrast
from interp.steering.edits import Ablate, Add, Clamp, Direction, FeatureEdit, Hooked, Orthogonal, Scale, When
from interp.steering.effects import Effects, effects
from interp.steering.presets import Preset
from interp.steering.run import (
    Replay,
    Sampling,
    SamplingOptions,
    Stage,
    SteerBatch,
    SteerRun,
    compare,
    generate,
    generate_many,
)
from interp.steering.sweep import Sweep, SweepConfig, sweep
from interp.steering.verdict import OPENINGS, Subject, Verdict, judge, matched_features

__all__ = [
    "OPENINGS",
    "Ablate",
    "Add",
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
    "Stage",
    "SteerBatch",
    "SteerRun",
    "Subject",
    "Sweep",
    "SweepConfig",
    "Verdict",
    "When",
    "compare",
    "compile_edits",
    "contrast",
    "editable",
    "effects",
    "generate",
    "generate_many",
    "judge",
    "matched_features",
    "model_edit",
    "sweep",
]
