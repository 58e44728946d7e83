"""How the processes that torchrun began come together for one training, and part.

This file and `training/grid.py`, which has what they tell each other, alone know ranks: others see `Shards`. The engine is
torch.distributed, begun by torchrun.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from interp.sae.architecture import Architecture
from interp.sae.shards import ONE, Shards
from interp.training.grid import Grid, LostRank, listening, patience
from interp.types import InterpError

FAREWELL = timedelta(seconds=5)
"""So long a rank that is done waits for the others to be."""
_met: list[dist.Store] = []
"""Where the ranks met, inside `joined`."""


def use_own_gpu() -> None:
    """Let what is to run on a GPU run, of those of this machine, on the one with this rank's number."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process is one of those that torchrun began together; where it did not, nothing happens.

    Raises InterpError when the others do not come within PATIENCE.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available()
    use_own_gpu()
    if cuda:
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # an error of ours instead of an abort
    with listening():
        store, rank, world = next(rendezvous("env://", timeout=patience()))
        # torchrun keeps its store when it begins all anew, and with it the addresses of those that are gone.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=patience())
    _met.append(store)
    lost = False
    try:
        yield
    except LostRank:
        lost = True
        raise
    finally:
        if not lost:
            part()
        _met.clear()
        _grid.cache_clear()
        dist.destroy_process_group()


def part() -> None:
    """Until every rank is here, or FAREWELL is over: to one that still reads the last exchange, who leaves looks lost."""
    for store in _met:
        store.set(f"leaving {dist.get_rank()}", "")
        with suppress(RuntimeError):  # one does not come, or the store went with whoever kept it
            store.wait([f"leaving {rank}" for rank in range(dist.get_world_size())], FAREWELL)


def leads() -> bool:
    """Whether this process speaks and writes: the first of several, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def shards_of(architecture: Architecture, feature_ranks: int, *, needs_whole: str = "") -> Shards:
    """This process's part of a run; everything, where it is the only one.

    `needs_whole` says what of the run has to see all features at once. Raises InterpError when the ranks do not fit the run.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world % feature_ranks:
        raise InterpError(
            f"feature_ranks is {feature_ranks}, and there are {world} ranks: no whole number of such groups. Begin as many "
            "processes as a multiple of it (torchrun --nproc-per-node), or choose a divisor."
        )
    if world == 1:
        return ONE
    if architecture.d_sae % feature_ranks:
        raise InterpError(
            f"{architecture.d_sae} features cannot be shared equally among {feature_ranks} ranks; choose a d_sae that "
            f"{feature_ranks} divides, or other feature_ranks."
        )
    if architecture.traits.along:
        raise InterpError(
            "temporal contrast compares every pair of rows of a batch, which several ranks do not hold together; train in "
            "one process, or leave temporal at 0."
        )
    if needs_whole and feature_ranks > 1:
        raise InterpError(
            f"{needs_whole} compares features with each other, and {feature_ranks} ranks share them; leave feature_ranks at "
            "1, or leave that out."
        )
    return _grid(feature_ranks)


def refuse_several(what: str) -> None:
    """Raises InterpError inside `joined`: this is trained in one process."""
    if dist.is_initialized():
        raise InterpError(f"{what} is trained in one process; begin it without torchrun.")


@cache
def _grid(feature_ranks: int) -> Grid:
    return Grid(feature_ranks)
