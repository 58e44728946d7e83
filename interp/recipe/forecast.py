"""What a harvest and a training would take on this machine, told from small runs of the same code (of an index see
`forecast_index`).

1.  Copies of the model with two and with four of its layers, of random weights, read a batch as a harvest does; their difference is a layer's time,
    and what is left the embedding's. Layers above the hook point do not run.
2.  A few steps are trained on random rows of the activations' width. Where so many features do not fit the memory, with as many
    as do; a step's time grows with their number. Then the end is tried: what is measured on held-out rows.

Memory is counted as the system counts a process's own. Forecasts are of a machine on which nothing else runs: of one thread on
the CPU its own time is taken (`clock_of`), so that what others do meanwhile is left out.

Axes    N block, T position, B batch row, D d_in.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from interp.activations.eight_bit import check_stored, row_bytes
from interp.activations.manifest import SHARD_POSITIONS
from interp.activations.store import BUFFER
from interp.corpus.blocks import BLOCK
from interp.device import resolve_device
from interp.models import Model
from interp.models.sizes import ModelSize, at_layer, layer_of, small_copy
from interp.recipe.held_out import HELD_OUT_ROWS
from interp.recipe.rules import PAIRED, bytes_of, make_rule
from interp.sae import Architecture
from interp.sae.options import Options
from interp.training import TrainConfig
from interp.training.plan import INIT_ROWS
from interp.training.trial import trial
from interp.training.watch import own_memory, wanted_l0
from interp.types import InterpError

BATCH_BLOCKS = 16
"""Blocks that a harvest reads at once."""
DEPTHS = (2, 4)
"""Layers of the copies that are timed; of a model with fewer, all and all but one."""
ROUNDS, SECONDS = 5, 20.0
"""How often a pass is timed: so many times, or until it has taken so long (but twice)."""
FITS = 0.4
"""Share of the free memory that a trial of training may take."""
TEXT_BYTES = 32
"""What a token of the text takes while it is read: its number and its document's, in lists and then in tensors."""
LEAST = 64
"""Features with which a step still says something of one with more."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage of the work takes."""

    stage: str
    memory: int
    """Bytes at its fullest, the process itself among them."""
    seconds: float
    disk: int
    """Bytes written."""
    rate: float
    """Tokens a second."""
    by: str
    """What was measured for it."""
    ranks: int = 1
    """Processes that share the work; `memory` is each one's."""
    sent: int = 0
    """Bytes that each of them sends a step."""

    @property
    def hours(self) -> float:
        """Of all ranks together."""
        return self.seconds * self.ranks / 3600


def forecast_harvest(
    size: ModelSize, hook_name: str, tokens: int, *, stored: str = "", device: str = "auto"
) -> tuple[Stage, int]:
    """(what a harvest of one hook point takes, the width of that hook point).

    Raises InterpError when the model lacks the hook point, when it cannot be made with fewer layers, and when activations are
    not `stored` so.
    """
    check_stored(stored)
    layers, clock = layer_of(hook_name, size), clock_of(device)
    block = min(BLOCK, size.n_ctx or BLOCK)
    tokens_NT = torch.ones(BATCH_BLOCKS, block, dtype=torch.long)  # which they are makes no difference to the time
    passes: list[Callable[[], torch.Tensor]] = []
    copied = 0
    depths = DEPTHS if size.layers >= DEPTHS[1] else (max(size.layers - 1, 1), size.layers)
    for depth in depths:
        model, name = small_copy(size.model, depth, dtype=size.dtype, device=device), at_layer(hook_name, depth - 1)
        model.check_hook(name)
        copied += bytes_here(model)
        passes.append(lambda model=model, name=name: model.run(tokens_NT, [name]).activations[name])  # type: ignore[misc]
    held = own_memory()
    with peak() as most:
        x_NTD = passes[-1]()
    few, more = _seconds(passes, clock)
    layer = max((more - few) / max(depths[1] - depths[0], 1), 0.0)
    rate = tokens_NT.numel() / max(few + layer * (layers - depths[0]), 1e-9)
    given = x_NTD.shape[-1] * x_NTD.element_size()
    row = row_bytes(x_NTD.shape[-1], x_NTD.element_size(), stored) + 4  # its norm
    # A shard is there as the model gave it, and once more as it is written.
    shard, text = min(tokens, SHARD_POSITIONS) * (given + row), TEXT_BYTES * tokens
    stage = Stage(
        stage="harvest",
        memory=held - copied + size.weights + max(most[0] - held, 0) + shard + text,
        seconds=tokens / rate,
        disk=tokens * row,
        rate=rate,
        by=f"{layers} of {size.layers} layers, by passes through {depths[0]} and {depths[1]}",
    )
    return stage, int(x_NTD.shape[-1])


def forecast_training(
    kind: str,
    width: int,
    tokens: int,
    options: Options,
    *,
    batch: int = 4096,
    device: str = "auto",
    ranks: int = 1,
    feature_ranks: int = 1,
    bare: int | None = None,
) -> Stage:
    """What training one SAE on a harvest of so many tokens takes; of several ranks (docs/scale.md) each one's part, timed here
    alone, so what they wait for each other's numbers is not in the time. The last tenth of the text, or HELD_OUT_ROWS of it, is
    measured on and not trained on. `bare` is what a process has that has opened no model; now, without.

    Raises InterpError for an architecture or options that do not exist, for one that reads several hook points, for ranks that
    cannot share the run equally, and when not even a small trial fits the memory.
    """
    if kind in PAIRED:
        raise InterpError(f"a {kind} reads and writes several hook points; plans are made for SAEs of one.")
    d_sae, rows = _parts(int(options["d_sae"]), batch, ranks, feature_ranks)
    judged = min(tokens // 10, HELD_OUT_ROWS)
    steps = max((tokens - judged) // batch, 1)
    config, clock = TrainConfig(device=device, tokens=steps * batch), clock_of(device)

    def make(features: int) -> Architecture:
        return make_rule(kind, config, {"d_in": width}, {**options, "d_sae": features})

    whole, tried = make(int(options["d_sae"])), make(d_sae)
    while bytes_of(tried) * 2 > FITS * psutil.virtual_memory().available:
        if tried.d_sae < LEAST:
            raise InterpError(
                "too little memory is free for a trial of training; close something, or plan a smaller batch."
            )
        tried = make(tried.d_sae // 2)
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(rows, width, generator=draw) for _ in range(max(1, INIT_ROWS // rows))]
    made = trial(tried, config, batches, judged, clock)
    grows = d_sae / tried.d_sae
    seconds = steps * (made.step * grows + _drawing(batches, clock)) + made.end * grows
    of = "a few steps" if grows == 1 else f"a few steps with {tried.d_sae:,} features"
    # A buffer is filled shard by shard.
    buffer = 2 * (min(tokens, BUFFER) + min(tokens, SHARD_POSITIONS)) * width + 4 * judged * width
    return Stage(
        stage="train",
        memory=(bare or own_memory()) + int((made.sizes.held + made.sizes.passing) * grows) + buffer,
        seconds=seconds,
        disk=int(made.sizes.disk * grows) * feature_ranks,
        rate=tokens / seconds,
        by=f"{of} of {rows:,} rows on {resolve_device(device)}",
        ranks=ranks,
        sent=sent_a_step(whole, rows, ranks // feature_ranks, feature_ranks),
    )


def _drawing(batches: list[torch.Tensor], clock: Callable[[], float]) -> float:
    """Seconds in which a batch is taken from mixed rows, as a store gives them."""
    rows_ND = torch.cat(batches).bfloat16()
    order = torch.randperm(len(rows_ND))[: len(batches[0])]
    began = clock()
    rows_ND[order].float()
    return clock() - began


def _parts(d_sae: int, batch: int, ranks: int, feature_ranks: int) -> tuple[int, int]:
    """(features, rows of a batch) that each of the ranks has."""
    if ranks % feature_ranks or d_sae % feature_ranks or batch % (ranks // feature_ranks):
        raise InterpError(
            f"{ranks} ranks, {feature_ranks} of which share the features, cannot have equal parts of {d_sae:,} features and "
            f"{batch:,} rows; choose numbers that divide."
        )
    return d_sae // feature_ranks, batch // (ranks // feature_ranks)


def sent_a_step(rule: Architecture, rows: int, data: int, features: int) -> int:
    """Bytes that each rank sends in a step of training, of a grid of `data` × `features` ranks with so many rows each.

    A sum over n ranks sends 2 (n - 1) / n of its bytes (ring), a gathering n - 1 times its own. Small numbers are left out, and
    so is what only a step with dead features exchanges.
    """

    def summed(bytes_: float, ranks: int) -> float:
        return 2 * (ranks - 1) / ranks * bytes_

    here = rule.d_sae / features
    gradients = 4 * (here * (rule.d_in + rule.d_out + 1) + rule.d_out) + 8 * here  # and who fired
    reconstruction = 4 * rows * rule.d_out
    if rule.traits.measured:  # BatchTopK's level, by histograms of the values' bits
        codes = summed(8 * 2**15, data * features)
    else:
        codes = 4.0 * rows * (wanted_l0(rule) or 0) * (features - 1)
    return round(summed(gradients, data) + summed(reconstruction, features) + codes)


@contextmanager
def peak(every: float = 0.002) -> Iterator[list[int]]:
    """The process's own memory in bytes at its fullest while the block runs, looked at every so many seconds; one number in a
    list."""
    most, over = [own_memory()], threading.Event()

    def watch() -> None:
        while not over.wait(every):
            most[0] = max(most[0], own_memory())

    looking = threading.Thread(target=watch, daemon=True)
    looking.start()
    try:
        yield most
    finally:
        over.set()
        looking.join()


def clock_of(device: str) -> Callable[[], float]:
    """The clock by which work is timed: of one thread on the CPU that which stands while others have the processor."""
    one = torch.get_num_threads() == 1 and resolve_device(device).type == "cpu"
    return time.process_time if one else time.perf_counter


def bytes_here(model: Model) -> int:
    """What a model's weights take, tied ones once."""
    held = {id(each): each for each in (*model.module.parameters(), *model.module.buffers())}
    return sum(each.nbytes for each in held.values())


def _seconds(passes: list[Callable[[], torch.Tensor]], clock: Callable[[], float]) -> list[float]:
    """The median time of each, run in turn."""
    taken: list[list[float]] = [[] for _ in passes]
    began = time.perf_counter()
    for round_ in range(ROUNDS):
        for one, seconds in zip(passes, taken, strict=True):
            start = clock()
            one()
            seconds.append(clock() - start)
        if round_ and time.perf_counter() - began > SECONDS:
            break
    return [statistics.median(seconds) for seconds in taken]
