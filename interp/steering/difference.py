"""The simple baseline of steering: the difference of the mean activations of two sets of texts.

Axes    B text, T token, D width at the hook point.
Source  Marks & Tegmark 2023, "The Geometry of Truth" (difference of means as a direction); AxBench's DiffMean.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models import Model
from interp.steering.edits import Direction
from interp.types import InterpError

BATCH = 16
SINK_RATIO = 6.0


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
        norms = [x.norm(dim=1) for part in prompts for x, _ in _activations(model, part, hook_name)]
        norm_cutoff = SINK_RATIO * float(torch.cat(norms).median())
    up, down = (_mean(model, part, hook_name, norm_cutoff) for part in prompts)
    return Direction(name=name, hook_name=hook_name, vector=tuple((up - down).tolist()), norm_cutoff=float(norm_cutoff))


def _activations(model: Model, prompts: Sequence[Sequence[int]], hook_name: str) -> list[tuple[Tensor, Tensor]]:
    """(activations, tokens) of each prompt, the first position left out."""
    found = []
    for start in range(0, len(prompts), BATCH):
        tokens_BT, real_BT = model.padded(prompts[start : start + BATCH])
        x_BTD = model.run(tokens_BT, [hook_name], real_BT=real_BT).activations[hook_name].float()
        for x_TD, tokens_T, real_T in zip(x_BTD, tokens_BT, real_BT, strict=True):
            found.append((x_TD[real_T][1:], tokens_T[real_T][1:]))
    return found


def _mean(model: Model, prompts: Sequence[Sequence[int]], hook_name: str, norm_cutoff: float) -> Float[Tensor, " D"]:
    means = []
    for x_TD, tokens_T in _activations(model, prompts, hook_name):
        kept = x_TD[(tokens_T != model.separator) & (x_TD.norm(dim=1) <= norm_cutoff)]
        if len(kept):
            means.append(kept.mean(0))
    if not means:
        raise InterpError("no position of these texts counts: all are separators or sinks; give longer texts.")
    return torch.stack(means).mean(0)
