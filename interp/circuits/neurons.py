"""A model read as its own MLP neurons, so that a graph needs no transcoders: any decoder with plain or gated MLPs has one.

A neuron's activation h is what enters the MLP's last matrix, and what it writes is h times its row of that. Like a norm's scale, what bends
is held as it was for the prompt, so that h is linear in what the MLP reads, x:

    plain, h = act(z)             h = (h / z) · z                          z = W_up x + b_up;  h / z is held (LRP's and RelP's ratio)
    gated, h = act(z) · u         h = (h / u) · u                          u = W_up x + b_up;  h / u, the gate, is held
    gated, by halves (RelP)       h = ½ (h / u) · u + ½ (h / z) · z        z = W_gate x + b_gate;  each side of the product takes half

All three are exact where nothing is moved: a neuron's edges and its constant add up to h. None is a derivative: how the held part itself
would move is what no edge says, and what checks by intervention find. With the gate held nothing says what opened it; by halves, half of an
edge does.

At each position the `per_position` neurons that write most (|h| · ‖row‖) are nodes, of whatever sign; what all others write is the layer's
error there. Positions that do not count have none, as with transcoders, and the last matrix's bias is what b_dec is there.

Axes    B row, T token, D width of the residual stream, M neuron, E entry, N some entries.
Source  Arora et al. 2026, "Language Model Circuits Are Sparse in the Neuron Basis" (arXiv 2601.22594): RelP over neurons, halves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.frozen import Clean
from interp.circuits.graph import NEURONS
from interp.circuits.layer import Kept, Layer
from interp.circuits.replacement import Read, Replacement, check_model
from interp.models import Model
from interp.models.mlp import MLP, find_mlps
from interp.types import InterpError, unknown

GATES = ("held", "half")
"""What is made of a gated MLP's gate."""
PER_POSITION = 64
"""Neurons of a layer that are nodes at a position."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """A layer's own neurons in the place of its MLP."""

    mlp: MLP
    per_position: int = PER_POSITION
    gate: str = GATES[0]

    @property
    def over(self) -> str:
        return NEURONS

    @property
    def reads(self) -> str:
        return self.mlp.reads

    @property
    def writes(self) -> str:
        return self.mlp.writes

    @property
    def measures(self) -> str:
        """Inside the MLP: what is measured is the activation itself, its gate and its bend free."""
        return self.mlp.post

    @property
    def hooks(self) -> Sequence[str]:
        return [name for name in (self.reads, self.mlp.up, self.mlp.gate, self.mlp.post, self.writes) if name]

    @property
    def W_dec(self) -> Float[Tensor, "M D"]:
        return self.mlp.W_down

    @property
    def W_skip(self) -> None:
        return None

    @torch.no_grad()
    def read(self, number: int, clean: Clean, counted_LT: Bool[Tensor, "L T"]) -> Layer:
        mlp, counted_T = self.mlp, counted_LT[number]
        up_TM, h_TM, y_TD = (clean.activations[name][0].float() for name in (mlp.up, mlp.post, mlp.writes))
        size_TM = h_TM.abs() * mlp.W_down.norm(dim=1)
        top_TK = size_TM.topk(min(self.per_position, len(mlp.W_down)), dim=1).indices.sort(1).values
        kept_TK = counted_T[:, None] & (h_TM.gather(1, top_TK) != 0)
        position, feature = kept_TK.nonzero()[:, 0], top_TK[kept_TK]
        value = h_TM[position, feature]
        up = value / up_TM[position, feature]
        reads: tuple[tuple[Tensor, Tensor], ...] = ((mlp.W_up, up),)
        constant = up * mlp.b_up[feature]
        if mlp.W_gate is not None and mlp.b_gate is not None and self.gate == "half":
            gate = value / clean.activations[mlp.gate][0].float()[position, feature]
            reads = ((mlp.W_up, up / 2), (mlp.W_gate, gate / 2))
            constant = (constant + gate * mlp.b_gate[feature]) / 2
        said_TD = torch.zeros_like(y_TD).index_add_(0, position, value[:, None] * mlp.W_down[feature])
        said_TD += torch.where(counted_T[:, None], mlp.b_down, 0.0)
        return Layer(
            number=number,
            position_E=position,
            feature_E=feature,
            value_E=value,
            reads=reads,
            constant_E=constant,
            W_dec=mlp.W_down,
            error_TD=y_TD - said_TD,
            out_TD=y_TD,
            dense_TF=h_TM,
        )

    def activation(self, seen_W: Float[Tensor, " M"], feature: int) -> Float[Tensor, ""]:
        return seen_W[feature]

    def measured_rows(self, layer: Layer, entries_N: Int[Tensor, " N"]) -> Float[Tensor, "N M"]:
        return torch.nn.functional.one_hot(layer.feature_E[entries_N], len(self.mlp.W_down)).float()

    def levels(self, feature_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """A neuron is never off."""
        return torch.full((len(feature_N),), -torch.inf)

    def anew(
        self, read: Read, number: int, seen: Mapping[int, Float[Tensor, "B T D"]], kept: Mapping[int, Sequence[Kept]]
    ) -> Float[Tensor, "B T D"]:
        """Gates and ratios held, as the graph has them; neurons that are no nodes stay as they were."""
        layer, x_BTD = read.layers[number], seen[number]
        moved_BED = (x_BTD - read.clean.activations[self.reads][0])[:, layer.position_E]
        parts = [torch.einsum("bed,ed->be", moved_BED, rows[layer.feature_E]) * scale for rows, scale in layer.reads]
        change_BE = torch.stack(parts).sum(0)
        for one in kept.get(number, ()):
            change_BE[one.row, (layer.position_E == one.at) & (layer.feature_E == one.feature)] = 0
        return layer.out_TD.repeat(len(x_BTD), 1, 1).index_add_(
            1, layer.position_E, change_BE[..., None] * layer.W_dec[layer.feature_E]
        )


def replace_by_neurons(model: Model, *, per_position: int = PER_POSITION, gate: str = "held") -> Replacement:
    """A decoder whose MLPs are read as their own neurons, the `per_position` strongest at each position.

    Raises InterpError when the model is not in float32 or no decoder, when an MLP is neither plain nor gated (a mixture of experts), and for
    another `gate` or fewer neurons than one.
    """
    check_model(model)
    if gate not in GATES:
        raise unknown("way to treat gates", gate, GATES)
    if per_position < 1:
        raise InterpError(f"a graph over neurons needs at least one a position, not {per_position}.")
    return Replacement(model, tuple(Neurons(mlp, per_position, gate) for mlp in find_mlps(model)))
