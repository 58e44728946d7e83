"""A threshold for each feature, set after training on rows kept apart, at the same number of active features in all.

Axes    B row, N candidate entry, F d_sae.
Let r be the residual of a row without feature f, whose decoder row has norm 1. To take an entry of value z in saves
2 z r·w_f - z² of the row's squared error, given all others. For each feature the threshold is the one that maximises the sum
of this over the entries above it, less λ an entry, with one λ for all features that makes the total k a row. Half of
the way (in logarithms) is gone, and entries are looked at anew, ROUNDS times, since features that share a direction move
together. A threshold away from the common one costs λ · PRIOR · |log of the ratio|, so that a feature with few entries
stays; without, thresholds fitted the rows they were set on and did worse on others (docs/training.md).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae.sae import SAE

ROUNDS, PRIOR = 3, 100.0
REACH = 2.0
"""No threshold is moved further from the common one than by this factor and its inverse."""
HALVINGS = 40


def feature_thresholds(sae: SAE, x_BD: Float[Tensor, "B D"], y_BO: Float[Tensor, "B O"], k: int) -> Float[Tensor, " F"]:
    """Thresholds instead of the SAE's own, which is one level in units of decoder rows of norm 1; k pass a row of x.

    `y_BO` is what the rows are to be reconstructed to.
    """
    assert sae.threshold is not None
    own_F = sae.threshold
    entries = _with(sae, own_F / REACH).active(x_BD)
    features, values = entries.features, entries.values
    ratio_N = (values / entries.at(own_F)).double()
    base_BO = _with(sae, torch.full_like(own_F, torch.inf)).reconstruct(x_BD)
    order, first_F, rank_N = _by_feature(features, ratio_N, sae.d_sae)
    logs_N, moved_F = ratio_N.log()[order], torch.zeros(sae.d_sae, dtype=torch.float64, device=sae.device)
    for _ in range(ROUNDS):
        on_N = ratio_N.log() > moved_F[features]
        kept_N = torch.where(on_N, values, 0.0)
        miss_BO = y_BO.to(sae.device, torch.float32) - base_BO - entries.decode(kept_N, sae.W_dec)
        gain_N = (2 * values * (entries.dots(miss_BO, sae.W_dec) + kept_N) - values.square()).double()
        best_F = _best(gain_N[order], logs_N, features[order], first_F, rank_N, k * len(x_BD))
        moved_F = (moved_F + best_F) / 2
        # Together they are moved so that exactly k a row pass.
        over_N = ratio_N.log() - moved_F[features]
        if len(over_N) > k * len(x_BD):
            moved_F += over_N.topk(k * len(x_BD) + 1).values[-2:].mean()
    return own_F * moved_F.exp().float()


def _with(sae: SAE, threshold_F: Tensor) -> SAE:
    return SAE(**(sae.state_dict() | {"threshold": threshold_F}), centred=sae.centred, reads=sae.reads)


def _by_feature(
    features: Int[Tensor, " N"], ratio_N: Tensor, d_sae: int
) -> tuple[Int[Tensor, " N"], Int[Tensor, " F"], Int[Tensor, " N"]]:
    """(order of entries by feature, the largest first; where each feature begins in it; each entry's place, from 1)."""
    order = torch.argsort(-ratio_N, stable=True)
    order = order[torch.argsort(features[order], stable=True)]
    count = torch.bincount(features, minlength=d_sae)
    first_F = count.cumsum(0) - count
    return order, first_F, torch.arange(1, len(order) + 1, device=order.device) - first_F[features[order]]


def _best(
    gain_N: Tensor, logs_N: Tensor, features: Tensor, first_F: Tensor, rank_N: Tensor, count: int
) -> Float[Tensor, " F"]:
    """For each feature the logarithm of the best threshold's ratio to the common one; entries are `_by_feature`.

    λ is found by halving: the larger it is, the fewer entries are taken in, in the end about `count`.
    """
    total = torch.cat([gain_N.new_zeros(1), gain_N.cumsum(0)])
    sums_N = total[1:] - total[first_F][features]
    price_N = rank_N + PRIOR * logs_N.abs()
    top_F = logs_N.new_zeros(len(first_F)).scatter_reduce_(0, features, logs_N, "amax")  # 0 where all lie below
    low, high = 0.0, float(gain_N.max().clamp_min(1e-30))
    taken_F = torch.zeros_like(first_F)
    for _ in range(HALVINGS):
        price = (low + high) / 2
        worth_N = sums_N - price * price_N
        best_F = (-price * PRIOR * top_F).scatter_reduce(0, features, worth_N, "amax")
        hit = worth_N >= best_F[features]
        taken_F = torch.zeros_like(first_F).scatter_reduce_(0, features[hit], rank_N[hit], "amax")
        low, high = (price, high) if int(taken_F.sum()) > count else (low, price)
    return _edges(logs_N, features, first_F, taken_F, top_F)


def _edges(logs_N: Tensor, features: Tensor, first_F: Tensor, taken_F: Tensor, top_F: Tensor) -> Tensor:
    """The threshold between the last entry that each feature takes in and the first that it leaves out."""
    count_F = torch.bincount(features, minlength=len(first_F))
    bottom = -torch.log(torch.tensor(REACH)).double()
    at = torch.cat([logs_N, bottom[None].to(logs_N.device)])
    last = torch.where(taken_F > 0, at[(first_F + taken_F - 1).clamp(0, len(logs_N))], top_F)
    left = torch.where(taken_F < count_F, at[(first_F + taken_F).clamp(0, len(logs_N))], bottom)
    return torch.where(taken_F > 0, (last + left) / 2, top_F).clamp(-float(-bottom), float(-bottom))
