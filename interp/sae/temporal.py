"""Temporal contrast (T-SAE): the high-level part of the code stays the same along a text, and differs between texts.

Axes    B batch row, P pair of rows, N entry, H high-level feature (the first ones).
Source  Bhalla et al. 2025, "Temporal Sparse Autoencoders", section 4. With z the high-level codes and s their cosine,
        the loss is -1/P Σ_i log softmax_j(s(z_t^i, z_t-1^j) / λ)_i and the same with the two sides exchanged: each
        position is to find its own neighbour among those of the whole batch. The paper does not say λ; its code takes
        plain products of codes instead of cosines, so that their size is a part of the loss.
Rows 2i and 2i + 1 of a batch are pair i. Only active entries have a gradient, as in the reconstruction. The cosines of all
pairs of rows cost two sums over entries of P columns each, and a (P, P) matrix.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae import kernels
from interp.sae.kernels import Active

TEMPERATURE = 1.0


def contrast(active: Active, high: int) -> tuple[float, Float[Tensor, " N"]]:
    """(loss, its gradient in the value of each entry) of the features below `high`, over a batch of pairs."""
    chosen = (active.features < high).nonzero().squeeze(1)
    rows, features, values = (x.index_select(0, chosen) for x in (active.rows, active.features, active.values))
    batch = len(active.offsets) - 1
    norm_N = values.new_zeros(batch).index_add_(0, rows, values.square()).sqrt().index_select(0, rows)
    unit_N = values / norm_N
    sides = [_side(rows, features, unit_N, which, batch // 2, high) for which in (0, 1)]
    later, _ = sides[1]
    earlier_HP, later_HP = (side.dense().T.contiguous() for side, _ in sides)
    s_PP = later.decode(later.values, earlier_HP).div_(TEMPERATURE)
    ways = [s_PP.logsumexp(dim, keepdim=True) for dim in (1, 0)]
    loss = float(sum(way.mean() for way in ways) - 2 * s_PP.diagonal().mean())
    g_PP = sum((s_PP - way).exp_() for way in ways)
    assert isinstance(g_PP, Tensor)
    g_PP.diagonal().sub_(2)
    g_PP /= len(s_PP) * TEMPERATURE
    d_N = torch.empty_like(unit_N)
    for (side, where), g, other in zip(sides, (g_PP.T.contiguous(), g_PP), (later_HP, earlier_HP), strict=True):
        d_N.index_copy_(0, where, side.dots(g, other))
    # From the gradient in unit codes to that in codes: what lies along the code itself does not count.
    along_B = values.new_zeros(batch).index_add_(0, rows, d_N * unit_N)
    d_N = (d_N - unit_N * along_B.index_select(0, rows)) / norm_N
    return loss, torch.zeros_like(active.values).index_copy_(0, chosen, d_N)


def _side(
    rows: Int[Tensor, " M"], features: Int[Tensor, " M"], unit_N: Tensor, which: int, pairs: int, high: int
) -> tuple[Active, Tensor]:
    """The entries of every pair's first (0) or second (1) row, with pairs as their rows; and which they are."""
    where = (rows % 2 == which).nonzero().squeeze(1)
    flat = rows.index_select(0, where) // 2 * high + features.index_select(0, where)
    return kernels.from_flat(flat, unit_N.index_select(0, where), pairs, high), where
