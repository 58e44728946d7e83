"""A layer's raw neurons as a dictionary, so that they are indexed, searched and shown by the code of features.

Axes    B batch row, M neurons, D residual width, F = 2 M rows.
A neuron is dense, so of each position the KEPT largest by magnitude are kept. Each sign is a row of its own: row 2n is
neuron n where it is positive, row 2n + 1 where it is negative (its value there is the magnitude).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import dictionary
from interp.sae.kernels import Active
from interp.types import Hook, check_feature

KEPT = 32


@dataclass(frozen=True, eq=False)
class Neurons:
    """The identity dictionary of a layer: a `Dictionary` that reads inside the MLP and writes what the MLP writes."""

    name: str
    layer: int
    outputs: Float[Tensor, "M D"]
    """What each neuron adds to the residual stream, a unit of activation (M neurons, D residual width)."""

    @property
    def reads(self) -> tuple[Hook, ...]:
        """Inside the layer's MLP, after its nonlinearity."""
        return (Hook(f"blocks.{self.layer}.mlp.hook_post", self.d_in),)

    @property
    def writes(self) -> tuple[Hook, ...]:
        """What the layer's MLP adds to the residual stream."""
        return (Hook(f"blocks.{self.layer}.hook_mlp_out", self.d_out),)

    @property
    def d_in(self) -> int:
        """Neurons."""
        return len(self.outputs)

    @property
    def d_out(self) -> int:
        """The residual stream's width."""
        return int(self.outputs.shape[1])

    @property
    def d_sae(self) -> int:
        """Rows: two a neuron, one for each sign."""
        return 2 * len(self.outputs)

    @property
    def W_dec(self) -> Float[Tensor, "F D"]:
        """What a unit of each row writes."""
        return torch.stack([self.outputs, -self.outputs], dim=1).flatten(0, 1)

    def direction(self, feature: int, hook: Hook | str | None = None) -> Float[Tensor, " D"]:
        """What a unit of the row writes; InterpError when there is no such row, or nothing is written at the hook point."""
        if hook is not None and str(hook) != str(self.writes[0]):
            return dictionary.direction(self, feature, hook)  # which says what is written
        row = check_feature(feature, self.d_sae, self.name)
        return self.outputs[row // 2] * (-1.0 if row % 2 else 1.0)

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
