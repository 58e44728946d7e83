"""Train an SAE: batches in, steps out."""

from interp.training.loop import Step, TrainConfig, steps, train

__all__ = ["Step", "TrainConfig", "steps", "train"]
