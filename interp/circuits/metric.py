"""What a patch is judged by: a number to each prompt, from the logits of its last position.

Axes    B prompt, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models import Model
from interp.types import InterpError

Metric = Callable[[Float[Tensor, "B V"]], Float[Tensor, " B"]]
"""From the logits of the last position, a number to each prompt, that PyTorch can differentiate where gradients are asked."""


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """The logit of each prompt's target less that of its distractor; the target's alone where there is none."""

    target_B: Int[Tensor, " B"]
    distractor_B: Int[Tensor, " B"] | None = None

    def __call__(self, logits_BV: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
        if len(logits_BV) != len(self.target_B):
            raise InterpError(f"there are {len(logits_BV)} prompts and {len(self.target_B)} targets; give one to each.")
        logits_BV = logits_BV.float()
        at_B = torch.arange(len(logits_BV), device=logits_BV.device)
        target_B = logits_BV[at_B, self.target_B.to(logits_BV.device)]
        if self.distractor_B is None:
            return target_B
        return target_B - logits_BV[at_B, self.distractor_B.to(logits_BV.device)]


def logit_difference(target: Sequence[int], distractor: Sequence[int] | None = None) -> LogitDifference:
    """The metric of token ids, a target (and a distractor) to each prompt."""
    return LogitDifference(torch.tensor(target), None if distractor is None else torch.tensor(distractor))


def check_pair(model: Model, base_BT: Int[Tensor, "B T"], source_BT: Int[Tensor, "Q S"]) -> None:
    """Raises InterpError when there is no last token to judge by, or two texts are not of one length."""
    model.check_causal("the effect of a patch on the next token")
    if base_BT.shape != source_BT.shape or not base_BT.numel():
        raise InterpError(
            f"the base has {base_BT.shape[0]} prompts of {base_BT.shape[1]} tokens and the source {source_BT.shape[0]} of "
            f"{source_BT.shape[1]}; give pairs of the same length, those of one length together."
        )
