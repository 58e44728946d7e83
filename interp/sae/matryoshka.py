"""Matryoshka BatchTopK: one BatchTopK code, whose every prefix of features must reconstruct on its own.

Axes    B batch row, O output, F d_sae, P prefix, N entry.
Source  Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", section 3;
        the selection is global (one top-k over all levels).
Features of the first prefix see the error of every level, those of the last only their own, so reconstruction is
cumulative and costs one decode in all.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.sae.architecture import (
    Inference,
    Moment,
    Outcome,
    Params,
    Traits,
    check_share,
    check_sizes,
    check_weight,
    tied,
)
from interp.sae.batchtopk import budget, select
from interp.sae.kernels import Active
from interp.sae.shards import ONE, Shards
from interp.sae.temporal import contrast
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Matryoshka:
    """d_in inputs, d_sae features, on average k active a row; the loss is the mean over prefixes."""

    d_in: int
    d_sae: int
    k: int
    prefixes: tuple[int, ...] = ()
    """Ascending sizes, the last d_sae; without: a sixteenth, a quarter and all."""
    anneal: float = 0.2
    """Share of the run over which the budget falls from 3 k to k: with room for more features, parents and children
    are learnt apart before merging them would save anything (benchmarks/recovery.py)."""
    temporal: float = 0.0
    """Weight of the temporal contrast of the first prefix (see temporal.py), times d_in as the squared error is; it needs
    batches of pairs. The paper has two prefixes, a fifth (or a tenth) and all."""

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae, k=self.k)
        check_share(anneal=self.anneal)
        check_weight(temporal=self.temporal)
        sizes = tuple(self.prefixes) or tuple(sorted({max(self.d_sae // 16, 1), max(self.d_sae // 4, 1), self.d_sae}))
        if sizes != tuple(sorted(set(sizes))) or sizes[0] < 1 or sizes[-1] != self.d_sae:
            raise InterpError(f"prefixes are {sizes}; they must ascend from at least 1 and end at d_sae, {self.d_sae}.")
        object.__setattr__(self, "prefixes", sizes)

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
        batch, levels, here = len(t_BO), len(self.prefixes), moment.shards.held(self.d_sae)
        split, by_level_N = by_level(active, torch.tensor(self.prefixes, device=t_BO.device) - here.start, batch)
        # In place, one level after the other: there are as many matrices of the batch's size as levels.
        g_PBO = moment.shards.sum_features(split.decode(split.values, p["W_dec"])).view(levels, batch, -1)
        g_PBO[0] -= t_BO
        for level in range(1, levels):
            g_PBO[level] += g_PBO[level - 1]
        error_BO = g_PBO[-1].clone()
        square = float(torch.linalg.vector_norm(g_PBO)) ** 2
        # A feature of level i is part of reconstructions i to the last, and gets the sum of their gradients.
        g_PBO *= 2 / (batch * levels)
        for level in reversed(range(levels - 1)):
            g_PBO[level] += g_PBO[level + 1]
        swapped, by_feature_N = split.by_feature
        dz_N = swapped.dots(p["W_dec"], g_PBO.view(levels * batch, -1))
        penalty = square / (batch * levels) - float(torch.linalg.vector_norm(error_BO)) ** 2 / batch
        if self.temporal:
            loss, d_N = contrast(active, self.prefixes[0])
            weight = self.temporal * t_BO.shape[1]
            penalty += weight * loss
            dz_N += weight * d_N.index_select(0, by_level_N.index_select(0, by_feature_N))
        b_enc_F = torch.zeros_like(p["b_enc"]).index_add_(0, swapped.rows, dz_N)
        grads = {
            "W_enc": replace(swapped, features=swapped.features % batch).decode(dz_N, u_BD),
            "b_enc": b_enc_F,
            "W_dec": swapped.decode(swapped.values, g_PBO.view(levels * batch, -1)),
        }
        return Outcome(
            grads, g_PBO[0], b_enc_F, error_BO, swapped.offsets.diff() > 0, len(active.rows), hint, penalty=penalty
        )

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], per_row=self.k)


def by_level(active: Active, prefixes: Tensor, batch: int) -> tuple[Active, Tensor]:
    """The entries in order of (level, row), as if each level had rows of its own; and that order."""
    level_N = torch.searchsorted(prefixes, active.features, right=True)
    rows, order = torch.sort((level_N * batch + active.rows).int(), stable=True)
    rows = rows.long()
    edges = torch.arange(len(prefixes) * batch + 1, device=rows.device)
    features, values = active.features.index_select(0, order), active.values.index_select(0, order)
    return Active(rows, features, values, torch.searchsorted(rows, edges), active.d_sae), order
