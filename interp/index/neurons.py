"""A layer's raw neurons as a dictionary, so that they are indexed, searched and shown by the code of features.

A neuron is dense, so of each position the KEPT largest by magnitude are kept. Each sign is a row of its own: row 2n is
neuron n where it is positive, row 2n + 1 where it is negative (its value there is the magnitude).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.kernels import Active

KEPT = 32


@dataclass(frozen=True, eq=False)
class Neurons:
    """The identity dictionary of a layer; what `build_index` needs of an SAE."""

    name: str
    hook_name: str
    outputs: Float[Tensor, "M D"]
    """What each neuron adds to the residual stream, a unit of activation (M neurons, D residual width)."""

    @property
    def d_in(self) -> int:
        return len(self.outputs)

    @property
    def d_sae(self) -> int:
        return 2 * len(self.outputs)

    @property
    def W_dec(self) -> Float[Tensor, "F D"]:
        return torch.stack([self.outputs, -self.outputs], dim=1).flatten(0, 1)

    def active(self, x_BM: Float[Tensor, "B M"]) -> Active:
        """The KEPT largest magnitudes of each row; equals by neuron."""
        x_BM = x_BM.float()
        count = min(KEPT, x_BM.shape[1])
        order = x_BM.abs().sort(dim=1, descending=True, stable=True).indices[:, :count].sort(dim=1).values
        values = x_BM.gather(1, order)
        rows = torch.arange(len(x_BM), device=x_BM.device)[:, None].expand_as(order)
        there = values != 0
        offsets = torch.cat([there.new_zeros(1, dtype=torch.int64), there.sum(1).cumsum(0)])
        features = 2 * order + (values < 0)
        return Active(rows[there], features[there], values[there].abs(), offsets, self.d_sae)


def parse_neuron(name: str) -> tuple[int, int] | None:
    """(layer, neuron) of `LAYER.NUMBER`; None for anything else."""
    layer, dot, number = name.strip().partition(".")
    return (int(layer), int(number)) if dot and layer.isdecimal() and number.isdecimal() else None
