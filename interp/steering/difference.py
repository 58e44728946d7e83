"""The simple baseline of steering: the difference of the mean activations of two sets of texts.

Axes    B text, T token, D width at the hook point.
Source  Marks & Tegmark 2023, "The Geometry of Truth" (difference of means as a direction); AxBench's DiffMean.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp import mask
from interp.codes import Read, read_items
from interp.mask import Mask
from interp.models import Model
from interp.steering.edits import Direction
from interp.types import InterpError

BATCH = 16


def difference_of_means(
    model: Model,
    toward: Sequence[str],
    away: Sequence[str],
    hook_name: str,
    *,
    norm_cutoff: float | None = None,
    name: str = "contrast",
) -> Direction:
    """Mean activation over the texts of `toward` less that over `away`; a strength of 1 adds just that difference.

    Each text counts the same, whatever its length; sinks (the first position, separators, norms above `norm_cutoff`,
    by default six times the texts' median) are left out. Raises InterpError when a set is empty.
    """
    model.check_hook(hook_name)
    for label, texts in (("toward", toward), ("away", away)):
        if not texts:
            raise InterpError(f"the set of texts {label!r} is empty; a difference needs texts on both sides.")
    prompts = [[model.prompt(text) for text in texts] for texts in (toward, away)]
    if norm_cutoff is None:
        reads = (read for part in prompts for read in _read(model, part, hook_name))
        norms = [read.x[hook_name][read.place_BT > 0].norm(dim=1) for read in reads]
        norm_cutoff = mask.norm_cutoff(torch.cat(norms))
    up, down = (_mean(model, part, Mask({hook_name: norm_cutoff})) for part in prompts)
    return Direction(name=name, hook_name=hook_name, vector=tuple((up - down).tolist()), norm_cutoff=float(norm_cutoff))


def _read(model: Model, prompts: Sequence[Sequence[int]], hook_name: str) -> Iterator[Read]:
    return read_items(model, [hook_name], prompts, separator=model.separator, at_once=BATCH)


def _mean(model: Model, prompts: Sequence[Sequence[int]], counts: Mask) -> Float[Tensor, " D"]:
    """The mean over texts of their means over the positions that count, at the mask's one hook point."""
    (hook_name,) = counts.cutoffs
    means = {}
    for read in _read(model, prompts, hook_name):
        counted_BT = counts.counted(read.x, read.real_BT)
        for item, x_TD, counted_T in zip(read.item_B.tolist(), read.x[hook_name], counted_BT, strict=True):
            if bool(counted_T.any()):
                means[item] = x_TD[counted_T].mean(0)
    if not means:
        raise InterpError("no position of these texts counts: all are separators or sinks; give longer texts.")
    return torch.stack([means[item] for item in sorted(means)]).mean(0)
