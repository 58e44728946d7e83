"""What one prompt is at one layer of a replacement: which features are active where, what each writes, and what they leave over.

A feature of a transcoder writes into its own layer's output. One of a cross-layer transcoder writes into every later one's, too (`further`):
what it adds is then a vector for each of them, and whatever moves it moves all of these.

Axes    T token, D width of the residual stream, F feature (or neuron), E entry (an active feature at its position), N some entries, R decoder,
        M layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.types import InterpError


@dataclass(frozen=True)
class Step:
    """What is added to the residual stream for one node."""

    layer: int
    """-1 of the embedding."""
    at: int
    vector_D: Float[Tensor, " D"]
    feature: int = -1
    """A feature that stays where the step puts it, whatever lower layers now make of it; -1 where there is none."""
    further: Mapping[int, Float[Tensor, " D"]] = field(default_factory=dict)
    """By layer, what is added at the same position of later ones."""

    @property
    def vectors(self) -> dict[int, Float[Tensor, " D"]]:
        """By layer."""
        return {self.layer: self.vector_D, **self.further}

    @property
    def norm(self) -> float:
        """Of all that is added."""
        return float(torch.cat(list(self.vectors.values())).norm())

    def times(self, share: float) -> "Step":
        """The same, so many times."""
        further = {layer: share * vector_D for layer, vector_D in self.further.items()}
        return Step(self.layer, self.at, share * self.vector_D, self.feature, further)


@dataclass(frozen=True)
class Further:
    """How a layer's features write into later layers: decoders, and how much of each goes into each layer."""

    rows_RFD: Float[Tensor, "R F D"]
    mix_RM: Float[Tensor, "R M"]
    """0 for layers before the features' own."""

    def rows(self, layer: int, feature_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """What a unit of each of these writes into a layer."""
        return torch.einsum("r,rnd->nd", self.mix_RM[:, layer], self.rows_RFD[:, feature_N])


@dataclass(frozen=True)
class Layer:
    """One layer at a prompt: E active entries in order of their positions, and what they leave over."""

    number: int
    position_E: Int[Tensor, " E"]
    feature_E: Int[Tensor, " E"]
    value_E: Float[Tensor, " E"]
    reads: tuple[tuple[Float[Tensor, "F D"], Float[Tensor, " E"]], ...]
    """(a row for each feature, a number for each entry): their product, summed over these, is what an entry reads by."""
    constant_E: Float[Tensor, " E"]
    """What an entry's pre-activation has beside what it reads."""
    W_dec: Float[Tensor, "F D"]
    """What a unit of each feature writes into this layer."""
    error_TD: Float[Tensor, "T D"]
    """0 at a first position that is the same in every prompt."""
    out_TD: Float[Tensor, "T D"]
    dense_TF: Float[Tensor, "T F"] | None = None
    """The activation of every feature, where others than the entries have one (neurons)."""
    further: Further | None = None
    """None: nothing is written into later layers."""

    @property
    def into(self) -> range:
        """The layers that its features write into."""
        return range(self.number, self.number + 1 if self.further is None else self.further.mix_RM.shape[1])

    def rows(self, layer: int, feature_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """What a unit of each of these features writes into one of the layers `into`."""
        if self.further is None or layer == self.number:
            return self.W_dec[feature_N]
        return self.further.rows(layer, feature_N)

    def step(self, at: int, feature: int, amount: float) -> Step:
        """A feature put higher by so much at a position, in all that it writes."""
        one = torch.tensor([feature])
        own, *later = [amount * self.rows(layer, one)[0] for layer in self.into]
        return Step(self.number, at, own, further=dict(zip(self.into[1:], later, strict=True)))

    @property
    def written_ED(self) -> Float[Tensor, "E D"]:
        """What each entry adds to the residual stream behind this layer."""
        return self.value_E[:, None] * self.W_dec[self.feature_E]

    def read_rows(self, entries_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """The rows by which entries read: an entry's pre-activation is its row times what the MLP reads, and its constant."""
        feature_N = self.feature_E[entries_N]
        parts = [scale_E[entries_N][:, None] * rows_FD[feature_N] for rows_FD, scale_E in self.reads]
        return torch.stack(parts).sum(0)

    def find(self, position_N: Int[Tensor, " N"], feature_N: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
        """The numbers of entries. Raises InterpError for a feature that is not active there."""
        wide = len(self.W_dec)
        keys_E, order_E = (self.position_E * wide + self.feature_E).sort()
        wanted_N = position_N * wide + feature_N
        place_N = torch.searchsorted(keys_E, wanted_N).clamp_max(max(len(keys_E) - 1, 0))
        wrong_N = keys_E[place_N] != wanted_N if len(keys_E) else torch.ones_like(wanted_N, dtype=torch.bool)
        if bool(wrong_N.any()):
            at = int(wrong_N.nonzero()[0])
            raise InterpError(
                f"{int(feature_N[at])} of layer {self.number} is not active at position {int(position_N[at])} of this prompt, so nothing "
                "leads to it."
            )
        return order_E[place_N]

    def fires(self, at: int, feature: int) -> float:
        """The activation of a feature at a position, 0 where it has none."""
        if self.dense_TF is not None:
            return float(self.dense_TF[at, feature])
        return float(self.value_E[(self.position_E == at) & (self.feature_E == feature)].sum())


@dataclass(frozen=True)
class Kept:
    """A feature that stays as it was put, at a position of a row, whatever lower layers now make of it."""

    row: int
    at: int
    feature: int
