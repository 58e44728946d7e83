"""BatchTopK: the k·B largest pre-activations of a batch pass, so that rows share the budget.

Source  Bussmann, Leask and Nanda 2024, "BatchTopK Sparse Autoencoders", section 3.
Trained as itself; saved as JumpReLU with one threshold measured on held-out rows (the paper's section 3 averages
the smallest active value over training batches; a fresh measurement needs no warm-up and hits k).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import kernels
from interp.sae.architecture import (
    Inference,
    Moment,
    Outcome,
    Params,
    Traits,
    check_share,
    check_sizes,
    check_weight,
    squared_error,
    tied,
)
from interp.sae.kernels import Active
from interp.sae.shards import ONE, Shards
from interp.sae.temporal import contrast
from interp.types import InterpError

SAMPLE_ROWS = 64
SLACK = 0.95
"""Candidates above this share of the last threshold are nearly always enough."""


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """d_in inputs, d_sae features, on average k active a row."""

    d_in: int
    d_sae: int
    k: int
    anneal: float = 0.0
    """Share of the run over which the budget falls from 3 k to k (Llama Scope's; see matryoshka)."""
    temporal: float = 0.0
    """Weight of the temporal contrast (see temporal.py), times d_in as the squared error is; it needs batches of pairs."""
    high: float = 0.2
    """Share of the features, the first ones, that the contrast is of."""

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae, k=self.k)
        check_share(anneal=self.anneal)
        check_weight(temporal=self.temporal)
        if not 0 < self.high <= 1:
            raise InterpError(f"high is {self.high}; it is a share of the features, over 0 and at most 1.")

    @property
    def traits(self) -> Traits:
        return Traits(unit_decoder=True, auxk=True, measured=True, along=self.temporal > 0)

    @property
    def d_out(self) -> int:
        return self.d_in

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        return tied(p)

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        active, hint = select(p, u_BD, budget(self.k, self.anneal, moment.share), moment)
        if not self.temporal:
            return squared_error(p, u_BD, t_BO, active, hint, shards=moment.shards)
        loss, d_N = contrast(active, max(round(self.high * self.d_sae), 1))
        weight = self.temporal * t_BO.shape[1]
        return squared_error(p, u_BD, t_BO, active, hint, weight * loss, weight * d_N)

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], per_row=self.k)


def budget(k: int, anneal: float, share: float) -> float:
    """Active features a row when `share` of the run is over: 3 k at first, k from `anneal` on."""
    return k + 2 * k * max(1 - share / anneal, 0.0) if anneal else float(k)


def select(p: Params, u_BD: Float[Tensor, "B D"], k: float, moment: Moment) -> tuple[Active, Tensor]:
    """The k·B largest positive entries, and the smallest of them as the next batch's hint; of all ranks' rows and features
    together, where these are shared, and of them the entries that are here.

    The hint only saves work: when too little lies above it, it is estimated anew from some rows, then dropped.
    """
    d_sae, rows, shards = len(p["W_enc"]), kernels.encoder_rows(u_BD, moment.dtype), moment.shards
    count = min(round(k * shards.rows(len(u_BD))), shards.rows(len(u_BD)) * d_sae * shards.features)
    for level in _levels(rows, p["W_enc"], p["b_enc"], k, float(moment.hint), shards):
        flat, over = kernels.positive_entries(rows, kernels.encoder_matrix(p["W_enc"], p["b_enc"] - level, rows.dtype))
        if shards.count(len(flat)) >= count or not level:
            break
    passed = shards.largest(over, count, flat, len(u_BD), d_sae).nonzero().squeeze(1)
    kept = over.index_select(0, passed).float() + level
    smallest = shards.least(kept.min() if len(kept) else torch.zeros_like(moment.hint), len(kept) > 0)
    return kernels.from_flat(flat.index_select(0, passed), kept, len(u_BD), d_sae), smallest


def _levels(rows_BC: Tensor, W_FD: Tensor, b_F: Tensor, k: float, hint: float, shards: Shards) -> Iterator[float]:
    """Levels to look above, the same on all ranks, each lower than what k a row are likely to exceed; the last is 0."""
    if hint > 0:
        yield hint * SLACK
    some = rows_BC[:: max(len(rows_BC) // SAMPLE_ROWS, 1)]
    pre = (some @ kernels.encoder_matrix(W_FD, b_F, rows_BC.dtype).T).view(-1)
    here = min(max(round(k * len(some) / shards.features), 1), pre.numel())
    estimate = float(shards.least(pre.topk(here).values[-1]))
    if estimate > 0:
        yield estimate * SLACK
    yield 0.0


def threshold_for(
    u_BD: Float[Tensor, "B D"], W_FD: Float[Tensor, "F D"], b_F: Float[Tensor, " F"], k: int, shards: Shards = ONE
) -> float:
    """The threshold above which k float32 pre-activations a row lie on average, over these rows; at least 0.

    Where ranks share the features, they hold these rows alike.
    """
    rows, shards = kernels.encoder_rows(u_BD, torch.float32), shards.alike()
    count = min(k * len(u_BD), len(u_BD) * len(W_FD) * shards.features - 1)
    for level in _levels(rows, W_FD, b_F, k, 0.0, shards):
        _, over = kernels.positive_entries(rows, kernels.encoder_matrix(W_FD, b_F - level, torch.float32))
        if shards.count(len(over)) > count:
            # Between the last that passes and the first that must not: both are rounded.
            last, first = shards.around(over, count)
            return float((last + first) / 2) + level
    return 0.0
