"""What a run says without being asked: what it will take, and what looks wrong while it runs.

Axes    B batch row, D d_in.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from interp import places
from interp.sae.architecture import Architecture
from interp.sae.kernels import BLOCK_ROWS
from interp.training.config import TrainConfig
from interp.training.optimise import Batch, Measured, optimise, sides
from interp.training.source import rows_of
from interp.training.state import State, adam
from interp.types import InterpError

MASSIVE = 6.0
"""A row is massive when its norm exceeds this many times the median (as sinks do; see activations)."""
DEAD_SHARE = 0.1
UNMIXED = 3.0
"""Batch means may scatter this many times as widely as those of shuffled rows would (as variances)."""
MIX_BATCHES = 24
OFF_TARGET = 0.1
PROBE_STEPS = 3


@dataclass(frozen=True)
class Expectation:
    """What a run will take."""

    memory: int
    """Bytes of this process at its peak beyond what it holds before the run."""
    disk: int
    """Bytes of the saved state and of the latest checkpoint."""
    seconds: float

    def __str__(self) -> str:
        return (
            f"expects {self.memory / 2**30:.2f} GiB of memory, {self.disk / 2**30:.2f} GiB of disk and "
            f"{self.seconds / 60:.1f} min"
        )


def expect(state: State, architecture: Architecture, config: TrainConfig, batch: Batch, left: int) -> Expectation:
    """Memory and disk from sizes, time from some steps on a copy of the state; `left` tokens are to come."""
    parameters = sum(value.numel() for value in state.p.values()) * 4
    trial = copy.copy(state)
    trial.p = {name: value.clone() for name, value in state.p.items()}
    trial.optimiser = adam(trial.p, architecture)
    trial.idle_F = state.idle_F.clone()
    seconds = []
    for _ in range(PROBE_STEPS):
        began = time.perf_counter()
        optimise(trial, architecture, config, batch, state.tokens / max(state.tokens + left, 1))
        seconds.append(time.perf_counter() - began)
    rows, width = rows_of(batch), 2 if config.bfloat16 else 4
    encoder = architecture.d_sae * (architecture.d_in + 2) * width + BLOCK_ROWS * architecture.d_sae * width
    # Parameters, two moments and gradients, and at the end the finished SAE with its matrices beside them.
    memory = 8 * parameters + encoder + rows * (architecture.d_in + architecture.d_out) * 4 * 6
    return Expectation(memory, 3 * parameters + parameters // 2, left / rows * sorted(seconds)[PROBE_STEPS // 2])


def check_disk(folder: Path, expected: Expectation) -> None:
    """Raises InterpError when the folder's disk cannot take what the run will save (old and new at once)."""
    free = places.free_bytes(folder)
    if expected.disk * 2 > free:
        raise InterpError(
            f"the run saves {expected.disk / 2**30:.2f} GiB in {folder} (twice that while it writes), and the disk has "
            f"{free / 2**30:.2f} GiB free; choose another folder or make room."
        )


class Watch:
    """Warnings, each given once."""

    def __init__(self, first: list[Batch], architecture: Architecture) -> None:
        self.architecture = architecture
        norms = torch.cat([sides(batch, architecture)[0].norm(dim=1) for batch in first])
        self.limit = MASSIVE * float(norms.nanmedian())
        self.said: set[str] = set()
        self.means: list[Tensor] = []
        self.spread = 0.0
        self.seen = 0

    def look(self, batch: Batch, measured: Measured) -> list[str]:
        """What is wrong with this batch, or with the features after it."""
        found = []
        if self.seen % 16 == 0 or self.seen < MIX_BATCHES:
            x_BD = sides(batch, self.architecture)[0]
            found += self._massive(x_BD) + self._mixing(x_BD)
        self.seen += 1
        share = measured.dead / self.architecture.d_sae
        if share > DEAD_SHARE:
            found += self._once("dead", f"{share:.0%} of the features are dead; lower lr, or train on more tokens.")
        return found

    def _massive(self, x_BD: Tensor) -> list[str]:
        count = int((x_BD.norm(dim=1) > self.limit).sum())
        if not count:
            return []
        return self._once(
            "massive",
            f"{count} of {len(x_BD)} rows of a batch have a norm over {MASSIVE:.0f} times the median: massive "
            "activations (sinks) that flatter the FVU and kill features; mask them (stores made by harvest do).",
        )

    def _mixing(self, x_BD: Tensor) -> list[str]:
        if self.seen >= MIX_BATCHES:
            return []
        self.means.append(x_BD.mean(0))
        self.spread += float(x_BD.var(0).sum())
        if len(self.means) < MIX_BATCHES:
            return []
        scatter = float(torch.stack(self.means).var(0).sum()) * len(x_BD)
        ratio = scatter / max(self.spread / MIX_BATCHES, 1e-30)
        if ratio < UNMIXED:
            return []
        return self._once(
            "mixing",
            f"batch means scatter {ratio:.0f} times as much as those of shuffled rows would: the shuffle buffer is too "
            "small to mix the texts; give batches() a larger buffer.",
        )

    def _once(self, key: str, message: str) -> list[str]:
        if key in self.said:
            return []
        self.said.add(key)
        return [f"warning: {message}"]


def wanted_l0(architecture: Architecture) -> float | None:
    """The L0 that the architecture aims at, if it does: k, or JumpReLU's target."""
    if getattr(architecture, "form", "quadratic") != "quadratic":
        return None
    wanted = getattr(architecture, "k", None) or getattr(architecture, "l0", None)
    return None if wanted is None else float(wanted)


def off_target(l0: float, wanted: float | None) -> list[str]:
    """The warning that the finished SAE's L0 is not what was asked."""
    if wanted is None or abs(l0 - wanted) <= OFF_TARGET * wanted:
        return []
    return [f"warning: on held-out rows {l0:.1f} features are active a row, and {wanted:g} were asked."]


def ended_early(tokens: int, total: int) -> list[str]:
    """The warning that the batches held fewer rows than the learning rate was to fall over."""
    if tokens >= 0.99 * total:
        return []
    return [
        f"warning: the batches ended after {tokens:,} of {total:,} tokens, before the learning rate had fallen; "
        "ask for as many tokens as they hold, or give more batches."
    ]
