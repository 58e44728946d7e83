"""How to train, checked; what to train is the architecture's."""

from dataclasses import dataclass, replace

import torch

from interp.device import native_bfloat16
from interp.sae.architecture import Architecture
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; what to train is the architecture's."""

    tokens: int | None = None
    """Rows to train on; None: all that the batches give."""
    lr: float | None = None
    """Peak learning rate; None: 2e-3 / sqrt(d_sae / 9216), at most 1e-2 (docs/training.md has the comparisons)."""
    warmup: float = 0.02
    """Share of the run over which the rate rises from 0."""
    decay: float = 0.5
    """Share of the run, at its end, over which it falls linearly to 0."""
    aux_alpha: float = 1 / 32
    """Weight of AuxK, for architectures that have it; 0 leaves it out."""
    aux_k: int | None = None
    """Dead features that AuxK lets explain the residual; None: d_in / 2."""
    dead_after: int = 500_000
    """Tokens without firing after which a feature counts as dead."""
    resample: bool = False
    """Where there is no AuxK: begin dead features anew, on rows that are explained worst, every `dead_after` tokens."""
    save_every: int = 1_000_000
    """Tokens between saved states."""
    seed: int = 0
    bfloat16: bool | None = None
    """The encoder's product in bfloat16; None: where the machine has it natively."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise InterpError(f"tokens is {self.tokens}; it must be at least 1.")
        if self.lr is not None and not 0 < self.lr < 1:
            raise InterpError(f"lr is {self.lr}; it must lie between 0 and 1.")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it is a share of the run, 0 to 1.")
        for name in ("dead_after", "save_every"):
            if getattr(self, name) < 1:
                raise InterpError(f"{name} is {getattr(self, name)}; it is a number of tokens, at least 1.")

    def resolved(self, architecture: Architecture, tokens: int | None) -> "TrainConfig":
        """The same with every default that depends on sizes or on the machine filled in."""
        return replace(
            self,
            tokens=self.tokens or tokens,
            lr=self.lr or min(2e-3 / (architecture.d_sae / 9216) ** 0.5, 1e-2),
            aux_k=self.aux_k or max(architecture.d_in // 2, 1),
            bfloat16=native_bfloat16(torch.device("cpu")) if self.bfloat16 is None else self.bfloat16,
        )

    def rate(self, done: float) -> float:
        """The learning rate's share of its peak when `done` of the run is over."""
        up = done / self.warmup if self.warmup > 0 else 1.0
        down = (1.0 - done) / self.decay if self.decay > 0 else 1.0
        return max(min(1.0, up, down), 1e-3)
