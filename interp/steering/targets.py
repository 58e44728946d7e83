"""The tokens that a feature makes likely, as measured; on openings of their own, for what is tried on others must be no choice of these.

Axes    P opening, A direction along which the same amount is written, V vocabulary.

1.  After each of `CHOOSING` the feature is held at its largest activation; then the same amount along each control.
2.  A token's part of KL(held ‖ unedited) is p' (log p' - log p): how much likelier it becomes, weighed by how likely it then is. Its mean
    over the openings, less the mean of the controls', for what any push of that size does is not the feature's own.
3.  The tokens with the largest are its targets.

Every noise gets targets of its own by the same rule: what is said of a feature that was looked at with its targets must be more than what holds of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.steering.controls import MATCHED, NOISES, draw_controls, opposite
from interp.steering.edits import Named
from interp.steering.sampling import Sampling
from interp.steering.steerable import Steerable
from interp.steering.steered import Rows, SteeredModel

CHOOSING = (
    "In my opinion,",
    "He told me that",
    "The first thing to know is",
    "After a long journey, they reached",
    "Most people agree that",
    "The old man smiled and answered",
    "The following chapter explains",
    "Last summer,",
)
"""Neutral, and none of the openings that verdicts are made on."""
TARGETS = 20
"""Tokens that a feature is said to make likely."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What was written along, and the tokens that each made likely."""

    along: list[Named | None]
    """The feature itself, the matched features, the noises, the feature's opposite."""
    noises: list[int]
    """Which of them are noise."""
    tokens: dict[int, list[int]]
    """Token ids, the likeliest first, of the feature (0) and of every noise, by its place in `along`."""

    def controls(self, place: int) -> list[int]:
        """What one of `tokens` is compared with: the matched features and noises, but for itself."""
        return [other for other in range(1, len(self.along) - 1) if other != place]


@torch.inference_mode()
def measure_targets(
    steered: SteeredModel, of: Steerable, *, prompts: Sequence[str] = CHOOSING, seed: int = 0, count: int = TARGETS
) -> Targets:
    """The tokens that a feature, and each noise of its norm, makes likely; a row for each direction and opening.

    Raises InterpError when the feature cannot be steered, or the model continues nothing.
    """
    steered.model.check_causal("targets that are measured")
    ids = steered.tokenize(prompts)
    ((bound,),) = steered.request(ids, [[of.edit(of.largest)]], Sampling(max_new_tokens=1)).variants
    matched = of.matched[:MATCHED]
    along: list[Named | None] = [None, *draw_controls(bound, matched, NOISES, seed), opposite(bound)]
    base_PV = logprobs_after(steered, ids, [[] for _ in ids])
    held = [[of.edit(of.largest, along=other)] for other in along[:-1] for _ in ids]
    held_APV = logprobs_after(steered, ids * (len(along) - 1), steered.bind_rows(held)).unflatten(0, (-1, len(ids)))
    part_AV = (held_APV.exp() * (held_APV - base_PV)).mean(1)
    noises = [1 + len(matched) + n for n in range(NOISES)]
    found = Targets(along, noises, {})
    for place in (0, *noises):
        own_V = part_AV[place] - part_AV[found.controls(place)].mean(0)
        found.tokens[place] = own_V.topk(min(count, len(own_V))).indices.tolist()
    return found


def logprobs_after(
    steered: SteeredModel, prompts: Sequence[Sequence[int]], rows: Rows, batch: int = 104
) -> Float[Tensor, "P V"]:
    """Log-probabilities of the token after each prompt under its own edits."""
    parts = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        tokens_BT, real_BT = steered.model.padded(prompts[part])
        edits = steered.compile_bound(rows[part], tokens_BT, real_BT)
        run = steered.model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, last=1)
        assert run.logits is not None
        parts.append(run.logits[:, -1].float().log_softmax(-1).cpu())
    return torch.cat(parts)
