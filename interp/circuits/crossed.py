"""A cross-layer transcoder in the place of every MLP: features that are read at one layer, and written into its output and every later one's.

    MLP output of layer m  =  Σ over layers l ≤ m, over active features of l  activation · decoder row (l → m)  +  b_dec of m  +  error of m

So a feature's edges to a target are the sum of what it writes at all layers below that one (`attribute`), and whoever moves a feature moves all that it
writes. Positions that do not count at a layer have none of that layer's features, and no b_dec there; what lower layers' features write is there
all the same.

Axes    B row, T token, D width of the residual stream, F feature of a layer, N some entries, R decoder, M layer.
Source  Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.frozen import Clean
from interp.circuits.graph import FEATURES
from interp.circuits.layer import Further, Kept, Layer
from interp.circuits.replacement import Read, Replacement, check_model, layers_of, mlp_layer, read_layer
from interp.models import Model
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.types import InterpError


@dataclass(frozen=True, eq=False)
class Crossed:
    """One layer of a cross-layer transcoder, in the place of its MLP."""

    transcoder: CrossLayerTranscoder
    number: int

    @property
    def over(self) -> str:
        return FEATURES

    @property
    def reads(self) -> str:
        return self.transcoder.reads[self.number].name

    @property
    def writes(self) -> str:
        return self.transcoder.writes[self.number].name

    @property
    def measures(self) -> str:
        """What it reads: a change is a feature's pre-activation's."""
        return self.reads

    @property
    def hooks(self) -> Sequence[str]:
        return self.reads, self.writes

    @cached_property
    def W_dec(self) -> Float[Tensor, "F D"]:
        """What a unit of each feature writes into this layer."""
        return self.transcoder.decoder(self.number, self.number)

    @property
    def W_skip(self) -> None:
        return None

    @property
    def further(self) -> Further:
        """How its features write into later layers."""
        return Further(self.transcoder.decoders[self.number], self.transcoder.mix[self.number])

    @torch.no_grad()
    def read(self, number: int, clean: Clean, counted_LT: Bool[Tensor, "L T"]) -> Layer:
        made = self.transcoder
        x_TD, y_TD = (clean.activations[name][0].float() for name in self.hooks)
        own = read_layer(number, made.layers[number], x_TD, y_TD, counted_LT[number])
        said_TD = torch.where(counted_LT[number][:, None], made.b_dec[number], 0.0).to(y_TD)
        for source in range(number + 1):
            x_TD = clean.activations[made.reads[source].name][0].float()
            said_TD += self._written(x_TD, source, counted_LT[source])
        return replace(own, W_dec=self.W_dec, error_TD=y_TD - said_TD, further=self.further)

    def _written(self, x_ND: Float[Tensor, "N D"], source: int, counted_N: Bool[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """What the features of a lower layer (or this one), which reads that, write into this one."""
        active = self.transcoder.layers[source].active(x_ND)
        rows_FD = self.W_dec if source == self.number else self.transcoder.decoder(source, self.number)
        return torch.where(counted_N[:, None], active.decode(active.values, rows_FD), 0.0)

    def activation(self, seen_W: Float[Tensor, " W"], feature: int) -> Float[Tensor, ""]:
        return self.transcoder.layers[self.number].encode_feature(seen_W, feature)

    def measured_rows(self, layer: Layer, entries_N: Int[Tensor, " N"]) -> Float[Tensor, "N W"]:
        return layer.read_rows(entries_N)

    def levels(self, feature_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        threshold = self.transcoder.layers[self.number].threshold
        return torch.zeros(len(feature_N)) if threshold is None else threshold[feature_N]

    def anew(
        self, read: Read, number: int, seen: Mapping[int, Float[Tensor, "B T D"]], kept: Mapping[int, Sequence[Kept]]
    ) -> Float[Tensor, "B T D"]:
        rows, tokens, width = seen[number].shape
        said = (read.layers[number].error_TD + self.transcoder.b_dec[number]).repeat(rows, 1, 1)
        for source in range(number + 1):
            counted_N = read.counted_LT[source].repeat(rows)
            said += self._written(seen[source].reshape(-1, width), source, counted_N).view(rows, tokens, -1)
            for one in kept.get(source, ()):
                both = seen[source][one.row], read.clean.activations[self.transcoder.reads[source].name][0]
                fires, fired = (self.transcoder.layers[source].encode_feature(x[one.at], one.feature) for x in both)
                row_D = read.layers[source].rows(number, torch.tensor([one.feature]))[0]
                said[one.row, one.at] -= (fires - fired) * row_D
        return said


class CrossedReplacement(Replacement):
    """A decoder with a cross-layer transcoder in the place of its MLPs; made by `replace_by_cross_layer`."""

    @property
    def about(self) -> dict[str, Any]:
        return {**super().about, "cross_layer": True}


def replace_by_cross_layer(
    model: Model, transcoder: CrossLayerTranscoder, cutoffs: Mapping[str, float] | None = None
) -> CrossedReplacement:
    """A replacement of every layer's MLP by what the features of its own and of lower layers write there.

    Raises InterpError when the model is not in float32 or no decoder, when the transcoder's hook points are not those of its MLPs, one for each layer
    in their order, and when its widths are not the model's.
    """
    check_model(model)
    pairs = zip(transcoder.reads, transcoder.writes, strict=True)
    here = [mlp_layer(model, transcoder.name, *pair) for pair in pairs]
    layers = layers_of(model)
    if here != layers:
        raise InterpError(
            f"{transcoder.name} stands for the MLPs of layers {', '.join(map(str, here))}, and {model.name} has {len(layers)} layers; a graph needs "
            "every one of them, from the first to the last."
        )
    return CrossedReplacement(model, tuple(Crossed(transcoder, number) for number in layers), dict(cutoffs or {}))
