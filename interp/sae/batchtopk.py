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
from interp.sae.architecture import Inference, Moment, Outcome, Params, Traits, check_sizes, squared_error
from interp.sae.kernels import Active

SAMPLE_ROWS = 64
SLACK = 0.95
"""Candidates above this share of the last threshold are nearly always enough."""


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """d_in inputs, d_sae features, on average k active a row."""

    d_in: int
    d_sae: int
    k: int
    traits = Traits(unit_decoder=True, auxk=True)

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae, k=self.k)

    @property
    def d_out(self) -> int:
        return self.d_in

    def initial(self, p: Params, u_BD: Tensor) -> Params:
        return {**p, "W_dec": p["W_enc"].clone()}

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        active, hint = select(p, u_BD, self.k, moment)
        return squared_error(p, u_BD, t_BO, active, hint)

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], per_row=self.k)


def select(p: Params, u_BD: Float[Tensor, "B D"], k: int, moment: Moment) -> tuple[Active, Tensor]:
    """The k·B largest positive entries, and the smallest of them as the next batch's hint.

    The hint only saves work: when too little lies above it, it is estimated anew from some rows, then dropped.
    """
    rows = kernels.encoder_rows(u_BD, moment.dtype)
    matrix = kernels.encoder_matrix(p["W_enc"], p["b_enc"], moment.dtype)
    count = k * len(u_BD)
    for level in _levels(rows, matrix, k, float(moment.hint)):
        flat, values = kernels.entries_above(rows, matrix, level, k * 1.5)
        if len(flat) >= count or not level:
            break
    mask = kernels.largest(values, count)
    kept = values[mask]
    smallest = kept.min() if len(kept) else torch.zeros_like(moment.hint)
    return kernels.from_flat(flat[mask], kept, len(u_BD), len(matrix)), smallest


def _levels(rows_BC: Tensor, matrix_FC: Tensor, k: int, hint: float) -> Iterator[float]:
    """Levels to look above, each lower than what k a row are likely to exceed; the last is 0."""
    if hint > 0:
        yield hint * SLACK
    some = rows_BC[:: max(len(rows_BC) // SAMPLE_ROWS, 1)]
    pre = (some @ matrix_FC.T).view(-1)
    estimate = float(pre.topk(min(k * len(some), pre.numel())).values[-1])
    if estimate > 0:
        yield estimate * SLACK
    yield 0.0


def threshold_for(pre_BF_parts: list[Tensor], k: float) -> float:
    """The threshold above which k entries a row lie on average, over parts of (B, F) pre-activations.

    Only each part's largest 4·k·B entries are kept, which is exact unless rows differ beyond all measure.
    """
    rows = sum(len(part) for part in pre_BF_parts)
    tops = [part.reshape(-1).topk(min(part.numel(), int(4 * k * len(part)) + 1)).values for part in pre_BF_parts]
    pool = torch.cat(tops)
    count = min(round(k * rows), len(pool) - 1)
    pool = pool.topk(count + 1).values
    # Between the last value that passes and the first that does not: strictly above must hold for k·B of them.
    return max(float(pool[-1]), 0.0)
