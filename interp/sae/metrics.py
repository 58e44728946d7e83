"""Reconstruction metrics as global sums in float64: one definition, used by training and by reports.

FVU = Σ‖x - x̂‖² / Σ‖x - mean x‖² over all rows, the mean taken over the same rows.
L0 = active features a row. Dead = features that fire nowhere in the rows seen (state how many rows).
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.kernels import Active
from interp.sae.sae import SAE
from interp.sae.shards import ONE, Shards


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

    def add(
        self,
        x_BD: Float[Tensor, "B D"],
        sae: SAE,
        target_BO: Float[Tensor, "B O"] | None = None,
        shards: Shards = ONE,
    ) -> None:
        """Count rows in; `target_BO` is what a transcoder is to give (without: the rows themselves)."""
        active = sae.active(x_BD)
        y = (x_BD if target_BO is None else target_BO).to(sae.device, torch.float32)
        if shards.features == 1:
            self.count(y, sae.decode_active(active, x_BD), active)
            return
        if sae.k is not None:
            active = shards.keep_topk(active, sae.k)
        # All that is not of features, every rank adds: what is summed is the features' own part.
        own_BO = shards.sum_features(active.decode(active.values, sae.W_dec))
        self.count(y, own_BO + sae.decode_active(active.none(), x_BD), active)

    def count(self, y: Float[Tensor, "B O"], said: Float[Tensor, "B O"], active: Active) -> None:
        """Count rows in of which the reconstruction is known already, and what was active."""
        self.rows += len(y)
        self.error += float(_double(y - said).square().sum())
        self.square += float(_double(y).square().sum())
        self.total = self.total + _double(y).sum(0).cpu()
        self.fired += torch.bincount(active.features, minlength=self.d_sae).cpu()

    @property
    def fvu(self) -> float:
        """Squared error as a share of the squared distance of the targets from their mean."""
        return self.error / max(self.square - float(self.total.square().sum()) / max(self.rows, 1), 1e-300)

    @property
    def l0(self) -> float:
        """Active features a row, on average."""
        return float(self.fired.sum()) / max(self.rows, 1)

    @property
    def dead(self) -> int:
        """Features that fired on no row."""
        return int((self.fired == 0).sum())


def _double(x: Tensor) -> Tensor:
    """In float64, which Apple's GPUs have not: there, on the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def reconstruction(
    sae: SAE,
    x_BD: Float[Tensor, "B D"],
    target_BO: Float[Tensor, "B O"] | None = None,
    batch: int = 4096,
    shards: Shards = ONE,
) -> Reconstruction:
    """The metrics of an SAE over rows in memory; of the whole one where `sae` has one rank's features, and all ranks hold
    the rows alike."""
    sums = Reconstruction(sae.d_sae)
    targets = (x_BD if target_BO is None else target_BO).split(batch)
    for part, target in zip(x_BD.split(batch), targets, strict=True):
        sums.add(part, sae, target, shards)
    sums.fired = shards.gather_features(sums.fired)
    return sums


def reconstruction_by_layer(
    transcoder: CrossLayerTranscoder, x_LBD: Float[Tensor, "L B D"], y_LBO: Float[Tensor, "L B O"], batch: int = 2048
) -> list[Reconstruction]:
    """The metrics of each layer of a cross-layer transcoder over rows in memory; what is active is of the layer's own features."""
    sums = [Reconstruction(transcoder.per_layer) for _ in x_LBD]
    for x, y in zip(x_LBD.split(batch, 1), y_LBO.split(batch, 1), strict=True):
        by_layer = transcoder.active_by_layer(torch.cat(list(x), dim=1))
        for one, target, said, active in zip(
            sums, y.to(transcoder.device), transcoder.decode_layers(by_layer), by_layer, strict=True
        ):
            one.count(target, said, active)
    return sums
