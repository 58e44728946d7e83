"""What every layer would say if the model ended there: its residual stream read by the model's own final norm and unembedding.

The residual at a hook point is put in place of the final one while the model runs, so that whatever stands behind it (norm,
unembedding, caps) is the model's own, of any family; at the last layer it says what the model says. It costs a pass a layer.

Axes    L hook point, B prompt, T position, K place in a list, V vocabulary.
Source  nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.circuits.points import RESIDUAL, each_layer, replace_all
from interp.models import Model
from interp.render import visible
from interp.render.grid import grid_html
from interp.types import InterpError


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerReadings:
    """What each layer's residual stream says at each position of each prompt."""

    hook_names: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    """The prompts' own, by prompt and position."""
    top_LBTK: Int[np.ndarray, "L B T K"]
    """Token ids, the likeliest first."""
    logprob_LBT: Float[np.ndarray, "L B T"]
    """Natural log of the probability of the target (without one: of what the model says in the end)."""
    rank_LBT: Int[np.ndarray, "L B T"]
    """How many tokens are likelier than the target; 0 where it is first."""
    vocabulary: Sequence[str]

    def first_layer(self, prompt: int = 0, position: int = -1) -> int | None:
        """The first hook point (its number) from which on the target is the likeliest at a position; None without any."""
        first = self.rank_LBT[:, prompt, position] == 0
        from_here = np.logical_and.accumulate(first[::-1])[::-1]
        return int(from_here.argmax()) if from_here.any() else None

    def at(self, position: int, prompt: int = 0) -> list[tuple[str, list[str], float]]:
        """(hook point, its likeliest tokens, probability of the target there) at a position, first layer first."""
        tops, chances = self.top_LBTK[:, prompt, position], np.exp(self.logprob_LBT[:, prompt, position])
        says = [[self.vocabulary[token] for token in top] for top in tops.tolist()]
        return list(zip(self.hook_names, says, chances.tolist(), strict=True))

    def table(self) -> list[dict[str, object]]:
        """A row a hook point, prompt and position: likeliest token, log-probability and rank of the target."""
        return [
            {"hook": self.hook_names[at], "prompt": b, "position": t, "token": self.tokens[b][t]}
            | {"says": self.vocabulary[self.top_LBTK[at, b, t, 0]]}
            | {"logprob": float(self.logprob_LBT[at, b, t]), "rank": int(self.rank_LBT[at, b, t])}
            for at, b, t in np.ndindex(*self.rank_LBT.shape)
        ]

    def _repr_html_(self) -> str:
        says = [[visible(self.vocabulary[top[0]]) for top in row] for row in self.top_LBTK[::-1, 0]]
        values = np.exp(self.logprob_LBT[::-1, 0]).tolist()
        columns = [visible(token) for token in self.tokens[0]]
        title = "what each layer says next (first prompt), shaded by the probability of the target"
        return grid_html(self.hook_names[::-1], columns, values, title, written=says)


def read_layers(
    model: Model,
    tokens_BT: Int[torch.Tensor, "B T"],
    target: Sequence[int] | None = None,
    *,
    hook_names: Sequence[str] | None = None,
    top: int = 5,
) -> LayerReadings:
    """What the residual stream says at hook points: without names, before every layer and after the last.

    `target` is a token id to each prompt, whose rank is given; without, the rank is that of the token that the model says in
    the end at each position. Raises InterpError where there is no such hook point, or one is not as wide as the final residual.
    """
    model.check_causal("what layers say next")
    final = model.last_residual
    if final is None:
        raise InterpError(f"{model.name} has no hook point for the residual stream after its last layer.")
    names = list(hook_names) if hook_names is not None else [*each_layer(model, RESIDUAL), final]
    for name in names:
        if model.width(name) != model.width(final):
            raise InterpError(f"{name} of {model.name} is not as wide as its final residual; name a residual stream.")
    if target is not None and len(target) != len(tokens_BT):
        raise InterpError(f"there are {len(tokens_BT)} prompts and {len(target)} targets; give one to each.")
    run = model.run(tokens_BT, names, logits=True)
    assert run.logits is not None
    said_BT = run.logits.argmax(-1) if target is None else torch.tensor(target)[:, None].expand(tokens_BT.shape)
    said_BT = said_BT.to(run.logits.device)
    tops, logprobs, ranks = [], [], []
    for name in names:
        logits_BTV = model.run(tokens_BT, edits=[replace_all(final, run.activations[name])], logits=True).logits
        assert logits_BTV is not None
        logits_BTV = logits_BTV.float()
        own_BT1 = logits_BTV.gather(2, said_BT[..., None])
        tops.append(logits_BTV.topk(min(top, logits_BTV.shape[-1])).indices.cpu().numpy())
        logprobs.append((own_BT1[..., 0] - logits_BTV.logsumexp(2)).cpu().numpy())
        ranks.append((logits_BTV > own_BT1).sum(2).cpu().numpy())
    vocabulary = model.vocabulary
    return LayerReadings(
        hook_names=tuple(names),
        tokens=tuple(tuple(vocabulary[token] for token in row) for row in tokens_BT.tolist()),
        top_LBTK=np.stack(tops),
        logprob_LBT=np.stack(logprobs),
        rank_LBT=np.stack(ranks),
        vocabulary=vocabulary,
    )
