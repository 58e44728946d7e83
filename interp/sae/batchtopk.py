"""BatchTopK: the k·B largest pre-activations of a batch pass, so that rows share the budget.

Source  Bussmann, Leask and Nanda 2024, "BatchTopK Sparse Autoencoders", section 3.
Trained as itself; saved as JumpReLU with one threshold measured on held-out rows (the paper's section 3 averages
the smallest active value over training batches; a fresh measurement needs no warm-up and hits k).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import kernels
from interp.sae.kernels import Active
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class BatchTopK:
    """d_in inputs, d_sae features, on average k active a row."""

    d_in: int
    d_sae: int
    k: int

    def __post_init__(self) -> None:
        check_sizes(self.d_in, self.d_sae, self.k)

    def select(self, pre_BF: Float[Tensor, "B F"], b_enc_F: Float[Tensor, " F"], hint: Tensor) -> tuple[Active, Tensor]:
        """The active entries, and the smallest of them as the next batch's hint.

        The hint only saves work: candidates above 0.8 of the last threshold are nearly always enough; when they
        are not, everything positive is looked at.
        """
        batch, count = len(pre_BF), self.k * len(pre_BF)
        for cut in (float(hint) * 0.8, 0.0):
            flat = kernels.above(pre_BF, cut - b_enc_F)
            values = pre_BF.reshape(-1)[flat].float() + b_enc_F[flat % self.d_sae]
            if len(flat) >= count or cut <= 0.0:
                break
        mask = kernels.largest(values, count) & (values > 0)
        kept = values[mask]
        smallest = kept.min() if len(kept) else hint.new_zeros(())
        return kernels.from_flat(flat[mask], kept, batch, self.d_sae), smallest


def check_sizes(d_in: int, d_sae: int, k: int) -> None:
    """Raises InterpError naming the size that cannot be."""
    for name, value in (("d_in", d_in), ("d_sae", d_sae), ("k", k)):
        if value < 1:
            raise InterpError(f"{name} is {value}; it must be at least 1.")
    if k > d_sae:
        raise InterpError(f"k is {k}, more than the {d_sae} features; choose a smaller k or a larger d_sae.")


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
