"""Reconstruction metrics as global sums in float64: one definition, used by training and by reports.

FVU = Σ‖x - x̂‖² / Σ‖x - mean x‖² over all rows, the mean taken over the same rows.
L0 = active features a row. Dead = features that fire nowhere in the rows seen (state how many rows).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import kernels
from interp.sae.sae import SAE


@dataclass
class Reconstruction:
    """Sums that grow row by row."""

    d_sae: int
    rows: int = 0
    error: float = 0.0
    square: float = 0.0
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    fired: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.fired = torch.zeros(self.d_sae, dtype=torch.int64)

    def add(self, x_BD: Float[Tensor, "B D"], sae: SAE) -> None:
        active = sae.active(x_BD)
        x = x_BD.float()
        self.rows += len(x)
        self.error += float((x - kernels.decode(active, sae.W_dec) - sae.b_dec).double().square().sum())
        self.square += float(x.double().square().sum())
        self.total = self.total + x.double().sum(0).cpu()
        self.fired += torch.bincount(active.features, minlength=self.d_sae).cpu()

    @property
    def fvu(self) -> float:
        return self.error / max(self.square - float(self.total.square().sum()) / max(self.rows, 1), 1e-300)

    @property
    def l0(self) -> float:
        return float(self.fired.sum()) / max(self.rows, 1)

    @property
    def dead(self) -> int:
        return int((self.fired == 0).sum())


def reconstruction(sae: SAE, x_BD: Float[Tensor, "B D"], batch: int = 4096) -> Reconstruction:
    """The metrics of an SAE over rows in memory."""
    sums = Reconstruction(sae.d_sae)
    for part in x_BD.split(batch):
        sums.add(part, sae)
    return sums
