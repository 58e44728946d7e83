"""What computes a behaviour: parts of a model, their effects on each other and on the logits."""

from interp.circuits.accuracy import Accuracies, Accuracy, logit_differences, measure_accuracy
from interp.circuits.behaviours import BEHAVIOURS, Behaviour, Pair, batches, behaviour
from interp.circuits.direct import DirectAttribution, attribute_directly
from interp.circuits.heads import HeadScores, NameMovers, induction_scores, name_mover_scores, previous_token_scores
from interp.circuits.logit_lens import LayerReadings, read_layers
from interp.circuits.metric import LogitDifference, Metric, logit_difference
from interp.circuits.patching import PatchEffects, attribute_patches, patch_activations
from interp.circuits.paths import all_parts, patch_paths
from interp.circuits.points import attention_heads, count_layers, each_layer

__all__ = [
    "BEHAVIOURS",
    "Accuracies",
    "Accuracy",
    "Behaviour",
    "DirectAttribution",
    "HeadScores",
    "LayerReadings",
    "LogitDifference",
    "Metric",
    "NameMovers",
    "Pair",
    "PatchEffects",
    "all_parts",
    "attention_heads",
    "attribute_directly",
    "attribute_patches",
    "batches",
    "behaviour",
    "count_layers",
    "each_layer",
    "induction_scores",
    "logit_difference",
    "logit_differences",
    "measure_accuracy",
    "name_mover_scores",
    "patch_activations",
    "patch_paths",
    "previous_token_scores",
    "read_layers",
]
