"""Train an SAE: batches in, steps out."""

from interp.training.config import TrainConfig
from interp.training.listeners import json_log, tensorboard
from interp.training.loop import steps, steps_many, train, train_many
from interp.training.step import Step

__all__ = ["Step", "TrainConfig", "json_log", "steps", "steps_many", "tensorboard", "train", "train_many"]
