"""What a run would take, from a few steps of one on rows that are given, and from its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from interp.device import keeping_freed_memory
from interp.sae import Architecture
from interp.training.batch import sides, total_rows
from interp.training.config import TrainConfig
from interp.training.finish import finish
from interp.training.plan import HELD_BACK, Plan
from interp.training.run import LATEST_ROWS, Run
from interp.training.watch import Sizes
from interp.types import InterpError

ENDED_ON = 8_192
"""Rows on which the end of a run is tried; its time grows with their number."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a run takes."""

    sizes: Sizes
    step: float
    """Seconds of a step."""
    end: float
    """Seconds of what is measured on held-out rows: for each state that is saved, and when all is over."""


@keeping_freed_memory()
def trial(
    architecture: Architecture,
    config: TrainConfig,
    batches: list[Tensor],
    judged: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """What a run of `config.tokens` rows in such batches takes, which is measured on `judged` held-out rows; the batches (B, D)
    are those that its first parameters are made from. Seconds are the `clock`'s.

    Raises InterpError when the config does not say how long the run is, and when the batches do not fit the architecture.
    """
    if config.tokens is None:
        raise InterpError("TrainConfig(tokens=…) is needed: a trial does not know how long the run will be.")
    plan = Plan(config.tokens, min(HELD_BACK, config.tokens // 10), config.tokens)
    run = Run("", architecture, config, plan, batches, None, None, restart=False)
    run.open(list(batches), None)
    held = total_rows(batches, None) or sum(map(len, batches))
    sizes = run.sizes(len(batches[0]), sum(batch.nbytes for batch in batches) // held)
    step = run.seconds_a_step(list(batches), clock)
    assert run.state is not None
    x_BD, y_BO = (side[:ENDED_ON] for side in sides(batches[0], architecture, run.device))
    began = clock()
    finish(run.state, architecture, x_BD)
    saving = (clock() - began) / len(x_BD)
    began = clock()
    run.finish((x_BD, y_BO))
    ending = (clock() - began) / len(x_BD)
    saves = 1 + (config.tokens - 1) // config.save_every
    return Trial(sizes=sizes, step=step, end=saves * saving * min(judged, LATEST_ROWS) + ending * judged)
