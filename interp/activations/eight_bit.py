"""Activations in a byte a number, half the disk of bfloat16.

Row x of a shard is kept as whole numbers q from -127 to 127 and one number s: x ≈ m + c s q, with s = max |x - m| / c / 127. The mean
m and the spread c are each channel's own, over the shard's rows that are no sinks. A scale a row alone would waste most of its
steps: in a residual stream a few channels are many times as large as the others in every row (docs/scale.md has figures).
Norms are of the activations as the model gave them. A row that is not finite is none when it is read.

Axes    N position of a shard, D width at a hook point.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.mask import SINK_RATIO
from interp.types import unknown

INT8 = "int8"
STORED = ("", INT8)
"""How activations may be stored: as the model gives them, or in 8 bits."""
PARTS = (INT8, "scale", "mean", "spread")
"""What stands in a shard for a hook point: each before its name."""
STEPS = 127
AT_ONCE = 4096
"""Rows that are in float32 at once."""


def check_stored(stored: str) -> None:
    """Raises InterpError when there is no such way to store activations."""
    if stored not in STORED:
        raise unknown("way to store activations", stored, [INT8])


def row_bytes(width: int, element: int, stored: str) -> int:
    """What a row takes on disk without its norm, of numbers of so many bytes as the model gives them."""
    return width + 4 if stored == INT8 else width * element


def in_bytes(tensors: dict[str, Tensor], hooks: list[str]) -> dict[str, Tensor]:
    """A shard's tensors with those of hook points, (N, D), in 8 bits; whose norms stand beside them as `norm/` and the name."""
    made = dict(tensors)
    for hook in hooks:
        parts = _quantised(made.pop(hook), made[f"norm/{hook}"])
        made |= {f"{part}/{hook}": tensor for part, tensor in zip(PARTS, parts, strict=True)}
    return made


def read_bytes(file: Any, hook_name: str, dtype: str) -> Float[Tensor, "N D"]:
    """The activations of a hook point from an open shard in 8 bits, in the number type that they had."""
    q_ND, scale_N, mean_D, spread_D = (file.get_tensor(f"{part}/{hook_name}") for part in PARTS)
    x_ND = torch.empty(q_ND.shape, dtype=getattr(torch, dtype))
    for some in _pieces(len(q_ND)):
        x_ND[some] = (q_ND[some].float() * scale_N[some, None] * spread_D + mean_D).to(x_ND.dtype)
    return x_ND


def _quantised(x_ND: Shaped[Tensor, "N D"], norm_N: Float[Tensor, " N"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean_D, spread_D = _channels(x_ND, norm_N)
    q_ND, scale_N = torch.empty(x_ND.shape, dtype=torch.int8), torch.empty(len(x_ND))
    for some in _pieces(len(x_ND)):
        u = (x_ND[some].float() - mean_D) / spread_D
        scale_N[some] = u.abs().amax(1) / STEPS  # not finite where the row is not
        q = (u / scale_N[some, None].clamp_min(1e-30)).round().clamp(-STEPS, STEPS)
        q_ND[some] = q.nan_to_num(0.0).to(torch.int8)
    return q_ND, scale_N, mean_D, spread_D


def _channels(x_ND: Tensor, norm_N: Tensor) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and standard deviation of each channel over the rows that are no sinks; 0 and 1 where there is none."""
    width, finite_N = x_ND.shape[1], norm_N.isfinite()
    cutoff = SINK_RATIO * norm_N[finite_N].median() if finite_N.any() else norm_N.new_tensor(0.0)
    usual = (finite_N & (norm_N <= cutoff)).nonzero().squeeze(1)
    if not len(usual):
        return torch.zeros(width), torch.ones(width)

    def mean(of: Any) -> Tensor:  # in float64, so that the order of the sum hardly counts
        total = torch.zeros(width, dtype=torch.float64)
        for rows in usual.split(AT_ONCE):
            total += of(x_ND[rows].double()).sum(0)
        return total / len(usual)

    mean_D = mean(lambda x: x)
    spread_D = mean(lambda x: (x - mean_D).square()).sqrt().float()
    return mean_D.float(), torch.where(spread_D > 0, spread_D, 1.0)


def _pieces(count: int) -> list[slice]:
    return [slice(first, first + AT_ONCE) for first in range(0, count, AT_ONCE)]
