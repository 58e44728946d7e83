"""Heads of the kinds that were published: do they stand in this model, by which figures, or do they not.

    induction       on random tokens that come twice, how much a head attends to what followed the token when it came first
    previous token  on random tokens, how much it attends to the token before
    name mover      of IOI, what a head adds to the logit difference by the direct way, and how much it attends from the end of the
                    prompt to the name that is to follow

A head is called one of a kind by the bars below, which were set before any model was looked at.

Axes    L layer, H head, B row or prompt, T position, Q query position, K key position.
Source  Olsson et al. 2022, "In-context Learning and Induction Heads"; Wang et al. 2022 (name movers).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.behaviours import Pair, batches
from interp.circuits.direct import attribute_directly
from interp.circuits.points import PATTERN, attention_heads, count_layers
from interp.models import Model
from interp.render.grid import grid_html
from interp.statistics import bootstrap_means
from interp.types import InterpError

BAR = 0.3
"""Least mean attention of an induction or previous-token head, at the low end of its interval."""
SHARE, ATTENDS = 0.05, 0.2
"""Of a name mover: least share of the logit difference (its interval above 0), and least mean attention to the name, which must be
more than to the other name at both its places together."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadScores:
    """A score of each head, and what it is where nothing is to be found."""

    kind: str
    says: str
    score_LHB: Float[np.ndarray, "L H B"]
    """Mean attention, by row of random tokens."""
    control_LHB: Float[np.ndarray, "L H B"]
    """The same offset on tokens that do not repeat (induction); what attending alike to all would give (previous token)."""

    @property
    def score_LH(self) -> Float[np.ndarray, "L H"]:
        """The mean over rows."""
        return self.score_LHB.mean(2)

    def found(self) -> list[dict[str, object]]:
        """Heads whose interval lies above the bar and above the control's, the highest first."""
        return [row for row in self.table() if float(str(row["low"])) >= max(BAR, float(str(row["control_high"])))]

    def table(self) -> list[dict[str, object]]:
        """A row a head, the highest first: score, its 95 % interval over rows, the control and its upper end."""
        _, heads, rows = self.score_LHB.shape
        score, control = self.score_LHB.reshape(-1, rows), self.control_LHB.reshape(-1, rows)
        (low, high), (_, top) = bootstrap_means(score), bootstrap_means(control)
        order = np.argsort(-score.mean(1), kind="stable")
        return [
            {"head": f"{at // heads}.{at % heads}", "score": float(score[at].mean()), "low": float(low[at])}
            | {"high": float(high[at]), "control": float(control[at].mean()), "control_high": float(top[at])}
            for at in order
        ]

    def _repr_html_(self) -> str:
        layers, heads, rows = self.score_LHB.shape
        names = [f"layer {n}" for n in range(layers)], [f"head {n}" for n in range(heads)]
        many = len(self.found())
        return grid_html(*names, self.score_LH.tolist(), f"{self.kind}: {many} found; {self.says}, {rows} rows")


def induction_scores(model: Model, *, length: int = 40, rows: int = 8, seed: int = 0) -> HeadScores:
    """How much each head attends, on `rows` rows of `length` random tokens that come twice, to what followed a token before.

    Raises InterpError for fewer than 2 tokens or rows, more than the model reads, and families without `attn.hook_pattern`.
    """
    tokens_BT = _random_tokens(model, 2 * length, rows, seed)
    again_BT = torch.cat([tokens_BT[:, : length + 1], tokens_BT[:, 1 : length + 1]], 1)
    query = torch.arange(length + 1, 2 * length + 1)
    key = query - length + 1
    return HeadScores(
        kind="induction heads",
        says=f"mean attention to what followed the token before, {length} random tokens twice",
        score_LHB=_attention(model, again_BT, query, key),
        control_LHB=_attention(model, tokens_BT, query, key),
    )


def previous_token_scores(model: Model, *, length: int = 40, rows: int = 8, seed: int = 0) -> HeadScores:
    """How much each head attends, on `rows` rows of random tokens, to the token before; InterpError as `induction_scores`."""
    tokens_BT = _random_tokens(model, length, rows, seed)
    query = torch.arange(2, length + 1)  # what stands before the first is no token of the text
    score_LHB = _attention(model, tokens_BT, query, query - 1)
    return HeadScores(
        kind="previous-token heads",
        says=f"mean attention to the token before, {length} random tokens",
        score_LHB=score_LHB,
        control_LHB=np.full_like(score_LHB, float((1 / (query + 1)).mean())),
    )


def _random_tokens(model: Model, length: int, rows: int, seed: int) -> Int[Tensor, "B T"]:
    """What a text begins with, then tokens that are no special ones."""
    model.check_causal("attention to what came before")
    if length < 2 or rows < 2 or length + 1 > model.n_ctx:
        raise InterpError(
            f"{rows} rows of {length} tokens: give at least 2 of each, and at most {model.n_ctx - 1} tokens."
        )
    special = {model.frame.first, model.separator, *model.tokenizer.all_special_ids}
    usual = torch.tensor([token for token in range(model.embedded_tokens) if token not in special])
    drawn = usual[torch.randint(len(usual), (rows, length), generator=torch.Generator().manual_seed(seed))]
    return torch.cat([torch.full((rows, 1), model.frame.first), drawn], 1)


def _patterns(model: Model) -> list[str]:
    """Each layer's hook point of patterns, (B, H, T, T): not one vector a position, as what is patched must be."""
    names = [f"blocks.{layer}.{PATTERN}" for layer in range(count_layers(model))]
    for name in names:
        model.check_hook(name)
    return names


def _attention(
    model: Model, tokens_BT: Tensor, query_Q: Int[Tensor, " Q"], key_Q: Int[Tensor, " Q"]
) -> Float[np.ndarray, "L H B"]:
    """By head and row, the mean attention from each query position to its key position."""
    names, made = _patterns(model), []
    for row_1T in tokens_BT.split(1):  # a row's patterns of all layers are large
        run = model.run(row_1T, names)
        by_layer = [run.activations[name][0][:, query_Q, key_Q].float().mean(1) for name in names]
        made.append(torch.stack(by_layer))
    return torch.stack(made, 2).double().cpu().numpy()


@dataclass(frozen=True, eq=False, kw_only=True)
class NameMovers:
    """Of every head, what it does for the name that is to follow."""

    value_LHB: Float[np.ndarray, "L H B"]
    """What it adds to the logit difference by the direct way, in logits."""
    to_name_LHB: Float[np.ndarray, "L H B"]
    """Its attention from the last position to the name that is to follow."""
    to_other_LHB: Float[np.ndarray, "L H B"]
    """To the other name, at both its places together."""
    logit_B: Float[np.ndarray, " B"]
    """The logit difference."""

    def table(self) -> list[dict[str, object]]:
        """A row a head, the largest direct effect first: logits with 95 % interval over prompts, share, attention."""
        _, heads, prompts = self.value_LHB.shape
        value = self.value_LHB.reshape(-1, prompts)
        low, high = bootstrap_means(value)
        name, other = (x.reshape(-1, prompts).mean(1) for x in (self.to_name_LHB, self.to_other_LHB))
        whole = float(self.logit_B.mean())
        return [
            {"head": f"{at // heads}.{at % heads}", "logits": float(value[at].mean()), "low": float(low[at])}
            | {"high": float(high[at]), "share": float(value[at].mean()) / whole if whole else float("nan")}
            | {"to_name": float(name[at]), "to_other": float(other[at])}
            for at in np.argsort(-value.mean(1), kind="stable")
        ]

    def found(self, *, negative: bool = False) -> list[dict[str, object]]:
        """The name movers (or, `negative`, heads that attend so and speak against the name), the largest effect first."""
        sign = -1 if negative else 1
        rows = [
            {key: row[key] if key == "head" else float(str(row[key])) for key in row} for row in self.table()[::sign]
        ]
        return [row for row in rows if _moves(row, sign)]

    def _repr_html_(self) -> str:
        layers, heads, prompts = self.value_LHB.shape
        names = [f"layer {n}" for n in range(layers)], [f"head {n}" for n in range(heads)]
        title = f"name movers: {len(self.found())} found; logits added to {self.logit_B.mean():.3g}, {prompts} prompts"
        return grid_html(*names, self.value_LHB.mean(2).tolist(), title)


def _moves(row: dict[str, object], sign: int) -> bool:
    end = float(str(row["low" if sign > 0 else "high"]))
    share, name, other = (float(str(row[key])) for key in ("share", "to_name", "to_other"))
    return sign * end > 0 and sign * share >= SHARE and name >= ATTENDS and name > other


def name_mover_scores(model: Model, pairs: Sequence[Pair]) -> NameMovers:
    """The direct effect and the attention of every head on prompts of IOI (`behaviour("ioi", model).select()`).

    Raises InterpError for prompts in which the target does not stand once and the distractor twice, for no prompts, and for
    families without the hook points.
    """
    layers, heads, names = count_layers(model), attention_heads(model).count, _patterns(model)
    for pair in pairs:
        if (pair.clean_tokens.count(pair.target), pair.clean_tokens.count(pair.distractor)) != (1, 2):
            raise InterpError(
                f"{pair.clean!r} does not hold its target once and its distractor twice; give prompts of ioi."
            )
    if not pairs:
        raise InterpError("there is no prompt; give some of ioi.")
    value, name, other = (np.zeros((layers, heads, len(pairs))) for _ in range(3))
    logit_B = np.zeros(len(pairs))
    for batch in batches(pairs, 16):
        at = list(batch.at)
        found = attribute_directly(model, batch.clean_BT, batch.target, batch.distractor, by="head")
        cells = [found.parts.index(f"{n}.{head}") for n in range(layers) for head in range(heads)]
        value[..., at] = found.value_PB[cells].reshape(layers, heads, -1)
        logit_B[at] = found.logit_B
        run = model.run(batch.clean_BT, names)
        ends_LBHT = torch.stack([run.activations[each][:, :, -1].float().cpu() for each in names])
        for to, token in ((name, batch.target), (other, batch.distractor)):
            is_BT = batch.clean_BT == torch.tensor(token)[:, None]
            to[..., at] = torch.einsum("lbht,bt->lhb", ends_LBHT, is_BT.float()).numpy()
    return NameMovers(value_LHB=value, to_name_LHB=name, to_other_LHB=other, logit_B=logit_B)
