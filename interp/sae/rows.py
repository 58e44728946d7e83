"""Decoder rows of two dictionaries side by side: who is whose partner, and what random rows come to.

Axes    F row of one dictionary, G row of another, M pair, D width.
Source  "Position: Mechanistic Interpretability Should Prioritize Feature Consistency in SAEs" (arXiv:2505.20254):
        MCC of two dictionaries, by the assignment with the largest sum of absolute cosines.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Partners:
    """Rows of two dictionaries, one to one: as many pairs as the smaller one has rows."""

    one_M: Int[np.ndarray, " M"]
    """Ascending."""
    other_M: Int[np.ndarray, " M"]
    cosine_M: Float[np.ndarray, " M"]
    """Without its sign, 0 to 1."""

    @property
    def mcc(self) -> float:
        """The mean of the cosines: 1 where one is the other in another order, with other signs and lengths."""
        return float(self.cosine_M.mean()) if len(self.cosine_M) else 0.0


def partners(one_FD: Float[Tensor, "F D"], other_GD: Float[Tensor, "G D"]) -> Partners:
    """The one-to-one pairs whose absolute cosines have the largest sum (Hungarian).

    Takes F · G · 12 bytes for a while: a gigabyte for two dictionaries of 9,216 rows.
    """
    from scipy.optimize import linear_sum_assignment

    cost_FG = (unit(one_FD.cpu().float()) @ unit(other_GD.cpu().float()).T).abs_().neg_().numpy()
    one_M, other_M = linear_sum_assignment(cost_FG)
    return Partners(one_M, other_M, -cost_FG[one_M, other_M].astype(np.float64))


def unit(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows of norm 1; rows of zeros stay so."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)


def random_rows(count: int, width: int, seed: int) -> Float[Tensor, "F D"]:
    """Rows of norm 1 in random directions, all alike probable."""
    return unit(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)))


def rows_by_chance(unit_FD: Float[Tensor, "F D"], draws: int, seed: int) -> Iterator[Float[Tensor, "F D"]]:
    """So many dictionaries of as many rows of norm 1, drawn at random with the mean and covariance of these."""
    draw = torch.Generator().manual_seed(seed)
    rows = unit_FD.double()
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    mix_DD = (vectors * values.clamp_min(0).sqrt()).T.float()
    for _ in range(draws):
        yield unit(torch.randn(len(rows), len(mix_DD), generator=draw) @ mix_DD + mean.float())
