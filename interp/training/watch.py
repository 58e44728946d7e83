"""What a run says without being asked: what it will take, and what looks wrong while it runs.

Axes    B batch row, D d_in.
"""

import copy
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from interp import places
from interp.mask import SINK_RATIO
from interp.render.words import duration, size
from interp.sae.architecture import Architecture
from interp.sae.kernels import BLOCK_ROWS
from interp.sae.shards import ONE, Shards
from interp.training.batch import Batch
from interp.training.config import TrainConfig
from interp.training.optimise import Measured, optimise
from interp.training.plan import INIT_ROWS
from interp.training.state import State, adam
from interp.types import InterpError

DEAD_SHARE = 0.1
UNMIXED = 3.0
"""Batch means may scatter this many times as widely as those of shuffled rows would (as variances)."""
MIX_BATCHES = 24
MIX_EVERY = 16
OFF_TARGET = 0.1
FOLLOWING = 3
"""A target L0 that is being followed may be this many times as far off before it is said."""
RECENT = 20
"""Batches over which the L0 is averaged."""
PROBE_STEPS = 3
CANDIDATE = 650
"""Bytes that setting each feature's threshold takes for every active entry, with those that lie under the level."""
EXPECT_FROM = 50
"""Batches: shorter passes are over before an estimate is made, and after so many it is looked at again."""
WORTH_SAYING = 10.0
"""Seconds."""


@dataclass(frozen=True)
class Sizes:
    """Bytes that a run takes."""

    held: int
    """To its end, the finished SAE among them."""
    passing: int
    """Beside them at its fullest moment, with the batches that wait."""
    disk: int
    """Of the saved state and of the latest checkpoint."""


def own_memory() -> int:
    """Bytes in memory that are this process's own: pages of mapped files, which the system may take back, do not count."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def own_bytes(batch: Any) -> int:
    """Bytes that a batch keeps while it waits; a view of something larger keeps nothing."""
    if isinstance(batch, Tensor):
        return batch.nbytes if batch.untyped_storage().nbytes() == batch.nbytes else 0
    return sum(own_bytes(part) for part in batch if part is not None)


def sizes(
    state: State, architecture: Architecture, config: TrainConfig, rows: int, waiting: int, back: int, judged: int
) -> Sizes:
    """By what the run is made of: `rows` a batch, `waiting` bytes of each row that waits, `back` rows that are kept
    back, `judged` ones that are measured at the end.

    AuxK over many dead features, and codes that are not sparse, take more.
    """
    d_in, both, d_sae = architecture.d_in, architecture.d_in + architecture.d_out, architecture.d_sae
    distinct = both if architecture.traits.pairs else d_in
    parameters, width = sum(value.numel() for value in state.p.values()) * 4, 2 if config.bfloat16 else 4
    step = d_sae * (d_in + 2 + BLOCK_ROWS) * width + 24 * rows * both + waiting * (max(INIT_ROWS, back) + rows)
    # The threshold is measured on half of the rows (less b_dec, then as the encoder's), the rest is judged in batches.
    half = judged // 2
    per_entry = 36 if config.thresholds == "one" else 36 + CANDIDATE  # bytes
    entries = int(per_entry * half * (wanted_l0(architecture) or 0)) + 16 * min(half, 4096) * both
    last = (waiting + 4 * distinct) * back + 8 * half * d_in + entries + 4 * d_sae * BLOCK_ROWS
    first = (waiting + 8 * distinct) * INIT_ROWS
    # Held: parameters, two moments, and gradients or at the end the SAE, which is made with copies of its matrices.
    return Sizes(4 * parameters, max(step, first, last + 7 * parameters // 2), 3 * parameters + parameters // 2)


def seconds_a_step(
    state: State,
    architecture: Architecture,
    config: TrainConfig,
    batch: Batch,
    done: float,
    shards: Shards = ONE,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The median of some steps on a copy of the state."""
    trial = copy.copy(state)
    trial.p = {name: value.clone() for name, value in state.p.items()}
    trial.optimiser = adam(trial.p, architecture)
    trial.idle_F = state.idle_F.clone()
    seconds = []
    for _ in range(PROBE_STEPS):
        began = clock()
        optimise(trial, architecture, config, batch, done, shards)
        seconds.append(clock() - began)
    return sorted(seconds)[PROBE_STEPS // 2]


def expects(runs: list[Sizes], more: int, minutes: float) -> str:
    """What all runs of a pass will take together, `more` bytes of it for what the batches are drawn from."""
    memory = more + sum(run.held for run in runs) + max(run.passing for run in runs)
    several = f" for {len(runs)} SAEs" if len(runs) > 1 else ""
    return (
        f"expects {size(memory)} of memory, {size(sum(run.disk for run in runs))} of disk and "
        f"{duration(60 * minutes)}{several}"
    )


def check_disk(folder: Path, new: list[int], all_runs: list[int]) -> None:
    """Raises InterpError when the folder's disk cannot take what new runs will save, and the largest of all twice: old
    and new at once. All in bytes."""
    free, needed = places.free_bytes(folder), sum(new) + max(all_runs)
    if needed > free:
        raise InterpError(
            f"the run saves {size(sum(new))} in {folder} (and needs {size(max(all_runs))} more while it writes), and the "
            f"disk has {size(free)} free; choose another folder or make room."
        )


class Pace:
    """Whether a pass goes as fast as was said."""

    def __init__(self, batches: int, seconds: float, drawn: int, fill: int | None) -> None:
        """The batches are to take `seconds`. Those `drawn` before tell nothing; a buffer is filled every `fill` batches,
        and one filling must be seen."""
        self.batches, self.seconds = batches, seconds
        self.first, self.due = drawn, drawn + max(EXPECT_FROM, fill or 0)
        self.done, self.began = 0, 0.0

    def look(self) -> list[str]:
        """After each batch: once, when enough of them are over, what is to come if it differs from what was said."""
        self.done += 1
        if self.done == self.first:
            self.began = time.perf_counter()
        if self.done != self.due:
            return []
        left = self.batches - self.done
        said = self.seconds / self.batches * left
        seen = (time.perf_counter() - self.began) / (self.done - self.first) * left
        if abs(seen - said) <= max(0.3 * said, WORTH_SAYING):
            return []
        return [f"expects {duration(seen)} from here; by what was said before it would be {duration(said)}."]


class Watch:
    """Warnings, each given once."""

    def __init__(
        self, first: list[Batch], architecture: Architecture, batches: int, findable: int | None = None
    ) -> None:
        """`first` batches show what norms are usual; `batches` are to come. Features beyond the `findable` ones, where
        that is known, are bound to die."""
        self.architecture = architecture
        self.idle = max(architecture.d_sae - findable, 0) if findable is not None else 0
        columns = zip(*(_parts(batch) for batch in first), strict=True)
        medians = [float(torch.cat([_norms(part) for part in parts]).nanmedian()) for parts in columns]
        self.limits = [SINK_RATIO * median or float("inf") for median in medians]
        self.said: set[str] = set()
        self.seen = 0
        # Batches of one shuffle buffer mix well with each other, so those that are compared lie apart.
        self.every = max(min(MIX_EVERY, batches // MIX_BATCHES), 1)
        self.means: list[Tensor] = []
        self.spreads: list[float] = []
        self.wanted = wanted_l0(architecture)
        self.settled = max(getattr(architecture, "anneal", 0.0), 0.2) if _fixed(architecture) else 0.5
        self.l0s = deque[float](maxlen=RECENT)

    def look(self, batch: Batch, measured: Measured, done: float) -> list[str]:
        """What is wrong with this batch, or with the features after it, when `done` of the run was over."""
        found = self._massive(_parts(batch)) + self._off_target(measured.l0, done)
        if self.seen % self.every == 0:
            found += self._mixing(_parts(batch)[0].float())
        self.seen += 1
        share = measured.dead / self.architecture.d_sae
        if measured.dead - self.idle > DEAD_SHARE * self.architecture.d_sae:
            advice = "lower lr, train on more tokens, or make the SAE narrower: the data may not hold so many features"
            found += self._once("dead", f"{share:.0%} of the features are dead; {advice}.")
        return found

    def _massive(self, parts: tuple[Tensor, ...]) -> list[str]:
        """Of each hook point by itself: their norms may be of different sizes."""
        found = []
        for number, (part, limit) in enumerate(zip(parts, self.limits, strict=True), 1):
            count = int((_norms(part) > limit).sum())
            if count:
                which = f" (tensor {number} of {len(parts)})" if len(parts) > 1 else ""
                has = "has" if count == 1 else "have"
                found += self._once(
                    f"massive {number}",
                    f"{count} of {len(part)} rows of a batch{which} {has} a norm over {SINK_RATIO:.0f} times the median: "
                    "massive activations (sinks) that flatter the FVU and kill features; mask them (stores made by "
                    "harvest do).",
                )
        return found

    def _mixing(self, x_BD: Tensor) -> list[str]:
        if len(x_BD) < 2:
            return []
        self.means.append(x_BD.mean(0).cpu())
        self.spreads.append(float(x_BD.var(0).sum()) / len(x_BD))
        if len(self.means) < MIX_BATCHES:
            return []
        ratio = float(torch.stack(self.means).var(0).sum()) / max(sum(self.spreads) / MIX_BATCHES, 1e-30)
        self.means, self.spreads = [], []
        if not UNMIXED <= ratio < float("inf"):
            return []
        return self._once(
            "mixing",
            f"batch means scatter {ratio:.0f} times as much as those of shuffled rows would: the shuffle buffer is too "
            "small to mix the texts; give batches() a larger buffer (--buffer).",
        )

    def _off_target(self, l0: float, done: float) -> list[str]:
        """A budget of k holds from the first step, or the end of annealing: less is active only where too little is
        positive. A target L0 is followed, and may be some way off until the learning rate falls."""
        if self.wanted is None or done < self.settled:
            return []
        self.l0s.append(l0)
        mean = sum(self.l0s) / len(self.l0s)
        fixed = _fixed(self.architecture)
        if len(self.l0s) < RECENT or abs(mean - self.wanted) <= (1 if fixed else FOLLOWING) * OFF_TARGET * self.wanted:
            return []
        advice = "lower k or lr" if fixed else "raise coefficient, or train on more tokens"
        return self._once(
            "off target", f"{mean:.1f} features are active a row in training, and {self.wanted:g} were asked; {advice}."
        )

    def _once(self, key: str, message: str) -> list[str]:
        if key in self.said:
            return []
        self.said.add(key)
        return [f"warning: {message}"]


def _parts(batch: Batch) -> tuple[Tensor, ...]:
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def _norms(part: Tensor) -> Tensor:
    """Of a part's rows, on the CPU: batches may come from several devices."""
    return part.float().norm(dim=1).cpu()


def _fixed(architecture: Architecture) -> bool:
    """Whether features are chosen by number."""
    return hasattr(architecture, "k")


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
