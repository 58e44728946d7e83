"""Sparse mathematics of an SAE on (rows, features, values), with its gradients, in plain PyTorch.

Axes    B batch row, D d_in, F d_sae, N active entry.

The one dense product is the encoder's, in bfloat16 with float32 accumulation where that is native; all else touches
active entries only, as segment sums (`embedding_bag`), whose cost is N * D instead of B * F * D.
Each function has an obvious dense twin in tests/test_kernels.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ROWS = 64
"""Rows scanned at a time: 64 x 9216 bfloat16 is 1.2 MB, which stays in a core's cache."""


@dataclass(frozen=True)
class Active:
    """Active entries in order of their rows; row b owns entries offsets[b] to offsets[b + 1]."""

    rows: Int[Tensor, " N"]
    features: Int[Tensor, " N"]
    values: Float[Tensor, " N"]
    offsets: Int[Tensor, " B1"]

    def padded(self) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
        """(values, indices) of shape (B, K), K the largest number active in a row; value 0 fills."""
        counts = self.offsets.diff()
        width = max(int(counts.max()) if len(counts) else 0, 1)
        place = torch.arange(len(self.rows), device=self.rows.device) - self.offsets[self.rows]
        values = self.values.new_zeros(len(counts), width)
        indices = self.features.new_zeros(len(counts), width)
        values[self.rows, place] = self.values
        indices[self.rows, place] = self.features
        return values, indices

    def dense(self, d_sae: int) -> Float[Tensor, "B F"]:
        out = self.values.new_zeros(len(self.offsets) - 1, d_sae)
        out[self.rows, self.features] = self.values
        return out


def from_flat(flat: Int[Tensor, " N"], values: Float[Tensor, " N"], batch: int, d_sae: int) -> Active:
    """Active entries from ascending positions in the flattened (B, F) matrix."""
    rows = torch.div(flat, d_sae, rounding_mode="floor")
    edges = torch.arange(batch + 1, device=rows.device)
    return Active(rows, flat - rows * d_sae, values, torch.searchsorted(rows, edges))


def product(x_BD: Tensor, W_FD: Tensor, out: Tensor | None = None) -> Float[Tensor, "B F"]:
    """x Wᵀ in the dtype of its arguments, into `out` when that fits."""
    shape = (x_BD.shape[0], W_FD.shape[0])
    if out is None or tuple(out.shape) != shape or out.dtype != x_BD.dtype:
        return x_BD @ W_FD.T
    return torch.mm(x_BD, W_FD.T, out=out)


def above(
    pre_BF: Float[Tensor, "B F"], cut_F: Float[Tensor, " F"], slack_B: Float[Tensor, " B"] | None = None
) -> Int[Tensor, " N"]:
    """Flat positions where pre exceeds the feature's cut, less the slack; ascending.

    Row blocks keep the comparison in cache, and share the largest slack of their rows. The cut is rounded down to
    pre's dtype, so nothing is lost.
    """
    batch, d_sae = pre_BF.shape
    found = []
    for start in range(0, batch, BLOCK_ROWS):
        block = pre_BF[start : start + BLOCK_ROWS]
        cut = cut_F if slack_B is None else cut_F - slack_B[start : start + BLOCK_ROWS].max()
        hits = (block > _round_down(cut, pre_BF.dtype)).view(-1).nonzero().squeeze(1)
        found.append(hits.add_(start * d_sae))
    return torch.cat(found)


def _round_down(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a coarser dtype, never above x."""
    if dtype == x.dtype:
        return x
    y = x.to(dtype)
    step = torch.nextafter(y, torch.full_like(y, -torch.inf))
    return torch.where(y.to(x.dtype) > x, step, y)


def largest(values_N: Float[Tensor, " N"], count: int) -> Tensor:
    """Mask of the `count` largest values; among equals the first are taken."""
    if count >= len(values_N):
        return torch.ones_like(values_N, dtype=torch.bool)
    edge = values_N.kthvalue(len(values_N) - count + 1).values
    mask = values_N > edge
    ties = (values_N == edge).nonzero().squeeze(1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask


def decode(active: Active, W_FD: Float[Tensor, "F D"]) -> Float[Tensor, "B D"]:
    """Sum over a row's entries of value times the feature's row of W."""
    return F.embedding_bag(
        active.features, W_FD, active.offsets, mode="sum", per_sample_weights=active.values, include_last_offset=True
    )


def dots(active: Active, g_BD: Float[Tensor, "B D"], W_FD: Float[Tensor, "F D"]) -> Float[Tensor, " N"]:
    """For each entry, g[row] · W[feature]: the gradient of `decode` in the values, and the encoder at given places."""
    if g_BD.device.type == "cpu" and len(active.rows):
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            g_BD.contiguous(), W_FD, active.features, active.offsets[:-1].contiguous(), active.rows, 0
        )
    return (g_BD[active.rows] * W_FD[active.features]).sum(-1)


@dataclass(frozen=True)
class ByFeature:
    """The entries of an `Active` in order of their features, for sums over rows."""

    order: Int[Tensor, " N"]
    rows: Int[Tensor, " N"]
    offsets: Int[Tensor, " F1"]


def by_feature(active: Active, d_sae: int) -> ByFeature:
    features, order = torch.sort(active.features.int(), stable=True)
    edges = torch.arange(d_sae + 1, device=order.device, dtype=torch.int32)
    return ByFeature(order, active.rows[order], torch.searchsorted(features, edges))


def sum_by_feature(
    entries: ByFeature, weights_N: Float[Tensor, " N"], y_BD: Float[Tensor, "B D"]
) -> Float[Tensor, "F D"]:
    """For each feature, the sum over its entries of weight times y[row]: the gradient of `decode` in W."""
    return F.embedding_bag(
        entries.rows,
        y_BD,
        entries.offsets,
        mode="sum",
        per_sample_weights=weights_N[entries.order],
        include_last_offset=True,
    )


@dataclass(frozen=True)
class Gradients:
    """Gradients of a loss through decode and encode; `b_dec` only through the encoder's input."""

    W_enc: Float[Tensor, "F D"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F D"]
    b_dec_in: Float[Tensor, " D"]


def gradients(
    active: Active,
    x_BD: Float[Tensor, "B D"],
    g_BD: Float[Tensor, "B D"],
    W_enc_FD: Float[Tensor, "F D"],
    W_dec_FD: Float[Tensor, "F D"],
) -> Gradients:
    """Gradients for out = decode(active), active values = x · W_enc + b_enc, given g = d loss / d out.

    `x_BD` is the encoder's input, b_dec taken off. Selection is constant, as in every TopK rule.
    """
    d_sae = W_dec_FD.shape[0]
    entries = by_feature(active, d_sae)
    dz_N = dots(active, g_BD, W_dec_FD)
    b_enc_F = torch.zeros(d_sae, dtype=dz_N.dtype, device=dz_N.device).index_add_(0, active.features, dz_N)
    return Gradients(
        W_enc=sum_by_feature(entries, dz_N, x_BD),
        b_enc=b_enc_F,
        W_dec=sum_by_feature(entries, active.values, g_BD),
        b_dec_in=-(b_enc_F @ W_enc_FD),
    )
