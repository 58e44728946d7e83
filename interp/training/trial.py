"""What a run would take, from a few steps of one on rows that are given."""

from torch import Tensor

from interp.device import keeping_freed_memory
from interp.sae import Architecture
from interp.training.batch import total_rows
from interp.training.config import TrainConfig
from interp.training.plan import HELD_BACK, Plan
from interp.training.run import Run
from interp.training.watch import Sizes
from interp.types import InterpError


@keeping_freed_memory()
def trial(architecture: Architecture, config: TrainConfig, batches: list[Tensor]) -> tuple[Sizes, float]:
    """(what a run of `config.tokens` rows in such batches takes in bytes, the seconds of a step); the batches (B, D) are those
    that its first parameters are made from.

    Raises InterpError when the config does not say how long the run is, and when the batches do not fit the architecture.
    """
    if config.tokens is None:
        raise InterpError("TrainConfig(tokens=…) is needed: a trial does not know how long the run will be.")
    plan = Plan(config.tokens, min(HELD_BACK, config.tokens // 10), config.tokens)
    run = Run("", architecture, config, plan, batches, None, None, restart=False)
    run.open(list(batches), None)
    held = total_rows(batches, None) or sum(map(len, batches))
    sizes = run.sizes(len(batches[0]), sum(batch.nbytes for batch in batches) // held)
    return sizes, run.seconds_a_step(list(batches))
