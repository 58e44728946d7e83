"""How a cross-layer transcoder is trained: its loss over all layers, by hand.

It begins as a transcoder for each layer: the first of a layer's decoders writes into the layer itself, and the others begin with profiles over the
layers above that are orthonormal cosines (the same everywhere, then from near to far, and so on). Decoders begin at 0, so a pair of
layers is joined only as far as that lowers the error.

Axes    L source layer, R rank, B batch row, D width read, O width written, F feature of one layer.
Units   Scaled: inputs and targets of each layer have a mean squared distance of D (or O) from their mean, so that every layer counts alike. The loss
        is a sum over layers and O, and a mean over B.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.sae.architecture import Architecture, Moment, Params, check_sizes
from interp.sae.batchtopk import select
from interp.sae.cross_layer import forwards, written
from interp.sae.kernels import Active
from interp.sae.options import make_architecture
from interp.types import InterpError


@dataclass(frozen=True)
class CrossLayerOutcome:
    """Loss gradients of one batch, of every parameter."""

    grads: Params
    error_LBO: Float[Tensor, "L B O"]
    fired_LF: Bool[Tensor, "L F"]
    entries: int
    """Active features of all layers in the whole batch."""


@dataclass(frozen=True, kw_only=True)
class CrossLayer:
    """`layers` layers of `d_sae` features each, on average `k` active at each layer in a row, with `rank` decoders a layer."""

    layers: int
    d_in: int
    d_out: int
    d_sae: int
    k: int
    rank: int = 1
    apart: bool = False
    """Leave `mix` as it begins, the identity: a transcoder for each layer, trained on the same rows, to compare with."""

    def __post_init__(self) -> None:
        sizes = {"d_in": self.d_in, "d_out": self.d_out, "d_sae": self.d_sae, "k": self.k}
        check_sizes(layers=self.layers, rank=self.rank, **sizes)
        if self.rank > self.layers:
            raise InterpError(
                f"rank is {self.rank}, more than the {self.layers} layers that could differ; choose a lower one."
            )
        if self.apart and self.rank > 1:
            raise InterpError(
                f"apart, a layer writes into itself only, for which one decoder is enough; rank is {self.rank}, make it 1."
            )

    @property
    def layer(self) -> Architecture:
        """What one layer would be by itself."""
        return make_architecture("transcoder", d_in=self.d_in, d_out=self.d_out, d_sae=self.d_sae, k=self.k)

    def profiles(self) -> Float[Tensor, "L R L"]:
        """The first `mix`."""
        mix = torch.zeros(self.layers, self.rank, self.layers)
        for source in range(self.layers):
            mix[source, 0, source] = 1.0
            above = self.layers - source - 1
            place = (torch.arange(above) + 0.5) * (math.pi / max(above, 1))
            for rank in range(1, min(self.rank, above + 1)):
                wave = (place * (rank - 1)).cos()
                mix[source, rank, source + 1 :] = wave / wave.norm()
        return mix

    def select(
        self, p: Params, u_LBD: Float[Tensor, "L B D"], moments: Sequence[Moment]
    ) -> tuple[list[Active], Float[Tensor, " L"]]:
        """(the k·B largest pre-activations of each layer, the smallest of these as hints for the next batch)."""
        parts = [
            select({"W_enc": W, "b_enc": b}, u, self.k, moment)
            for W, b, u, moment in zip(p["W_enc"], p["b_enc"], u_LBD, moments, strict=True)
        ]
        return [active for active, _ in parts], torch.stack([hint for _, hint in parts])

    def gradients(
        self, p: Params, by_layer: Sequence[Active], u_LBD: Float[Tensor, "L B D"], t_LBO: Float[Tensor, "L B O"]
    ) -> CrossLayerOutcome:
        """Of Σ_m ‖ŷ_m - t_m‖² / B for targets from which b_dec is already taken off, the selection of entries taken as constant."""
        count, weight = self.layers * self.rank, 2 / t_LBO.shape[1]
        mix = p["mix"].reshape(count, self.layers)
        S_LRBO = written(by_layer, p["W_dec"])
        flat = S_LRBO.view(count, -1)
        error = torch.addmm(t_LBO.reshape(self.layers, -1), mix.T, flat, beta=-1)
        d_mix = (flat @ error.T).view_as(p["mix"]).mul_(weight)
        d_mix *= 0.0 if self.apart else forwards(self.layers, mix.device)[:, None]
        torch.mm(mix * weight, error, out=flat)  # from here on S is d loss / d S
        grads = {name: torch.empty_like(p[name]) for name in ("W_enc", "b_enc", "W_dec")}
        for n, (active, u) in enumerate(zip(by_layer, u_LBD, strict=True)):
            swapped, _ = active.by_feature
            dz_N = torch.zeros_like(swapped.values)
            for r in range(self.rank):
                dz_N += swapped.dots(p["W_dec"][n, r], S_LRBO[n, r])
                grads["W_dec"][n, r] = swapped.decode(swapped.values, S_LRBO[n, r])
            grads["W_enc"][n] = swapped.decode(dz_N, u)
            grads["b_enc"][n] = torch.zeros_like(p["b_enc"][n]).index_add_(0, swapped.rows, dz_N)
        error_LBO = error.view_as(t_LBO)
        grads |= {"mix": d_mix, "b_dec": error_LBO.sum(1).mul_(weight)}
        fired_LF = torch.stack([active.by_feature[0].offsets.diff() > 0 for active in by_layer])
        return CrossLayerOutcome(grads, error_LBO, fired_LF, sum(len(active.rows) for active in by_layer))
