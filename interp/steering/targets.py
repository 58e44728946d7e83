"""The tokens that a feature makes likely, as measured; on openings of their own, for what is tried on others must be no choice of these.

Axes    P opening, A direction along which the same amount is written, V vocabulary.

1.  Each of `CHOOSING` is continued without edits by a few tokens. Then the text is read with the feature held at its largest activation, and
    with the same amount along each control.
2.  A token's rise is the change of its log-probability, mean over what comes next after the opening and after each token that continues it;
    less the mean of the controls', for what any push of that size does is not the feature's own.
3.  Those that rise most are its targets, of the tokens whose probability, the feature held, is at least 1 / V: others rise far and are never said.

Every noise gets targets of its own by the same rule: what is said of a feature that was looked at with its targets must be more than what holds of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.steering.controls import MATCHED, NOISES, draw_controls, opposite
from interp.steering.edits import Named
from interp.steering.measures import last_logprobs
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
LATER = 8
"""Tokens by which an opening is continued."""
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
    """The tokens that a feature, and each noise of its norm, makes likely; a short pass for each direction and opening.

    Raises InterpError when the feature cannot be steered, or the model continues nothing.
    """
    steered.model.check_causal("targets that are measured")
    ids = steered.tokenize(prompts)
    sampling = Sampling(max_new_tokens=min(LATER, steered.model.n_ctx - max(map(len, ids))))
    request = steered.request(ids, [[], [of.edit(of.largest)]], sampling)
    ((bound,),) = request.variants[1:]
    answers = request.generate([(p, 0, 0) for p in range(len(ids))])
    texts, last = [a + b for a, b in zip(ids, answers, strict=True)], 1 + min(map(len, answers))
    matched = of.matched[:MATCHED]
    along: list[Named | None] = [None, *draw_controls(bound, matched, NOISES, seed), opposite(bound)]
    plain_V, _ = _means(steered, texts, [[] for _ in texts], last)
    rise_AV, probability_AV = [], []
    for other in along[:-1]:  # the opposite is no control: nothing is chosen by it
        held = steered.bind_rows([[of.edit(of.largest, along=other)] for _ in texts])
        logprob_V, probability_V = _means(steered, texts, held, last)
        rise_AV.append(logprob_V - plain_V)
        probability_AV.append(probability_V)
    noises = [1 + len(matched) + n for n in range(NOISES)]
    found = Targets(along, noises, {})
    for place in (0, *noises):
        own_V = rise_AV[place] - torch.stack([rise_AV[other] for other in found.controls(place)]).mean(0)
        own_V[probability_AV[place] < 1 / len(own_V)] = -math.inf
        found.tokens[place] = own_V.topk(min(count, int(own_V.isfinite().sum()))).indices.tolist()
    return found


def _means(
    steered: SteeredModel, texts: Sequence[Sequence[int]], rows: Rows, last: int
) -> tuple[Float[Tensor, " V"], Float[Tensor, " V"]]:
    """(log-probability, probability) of every token, mean over the last positions of all texts."""
    parts = [(x_TV.mean(0), x_TV.exp().mean(0)) for _, x_TV in last_logprobs(steered, texts, rows, last)]
    logprob, probability = (torch.stack(each).mean(0).cpu() for each in zip(*parts, strict=True))
    return logprob, probability


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
