"""A lens: a linear map from a hook point to the final residual, and how its outcome is read as scores of tokens.

    logit   the map that changes nothing: as if no layer stood between the hook point and the final norm
    next    the averaged Jacobian of the final residual at the same position
    later   the averaged Jacobian of the final residual at all later positions, summed
    tuned   the least-squares map of the hook point's rows to the final residual's, at the same position

A direction d, mapped to M d, is read by the final norm's own derivative and the unembedding (`models/readout.py`): the score of
a token is how much of d moves its logit, less the mean of all tokens, up to a positive scale common to all.

Axes    P direction, D width at the hook point, O width of the final residual, V vocabulary.
Source  nostalgebraist 2020, "interpreting GPT: the logit lens". Least squares between layers: Din et al. 2023, "Jump to
        Conclusions"; by gradient descent on the logits: Belrose et al. 2023, "Eliciting Latent Predictions with the Tuned Lens".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.models import Model
from interp.types import InterpError

LOGIT, NEXT, LATER, TUNED = "logit", "next", "later", "tuned"
ROWS = 64
"""Directions that are scored together."""


@dataclass(frozen=True, eq=False)
class Lens:
    """One map, and what it was fitted on."""

    name: str
    """`logit`, `next`, `later` or `tuned`."""
    hook_name: str
    matrix_OD: Float[Tensor, "O D"] | None
    """None changes nothing."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How it was fitted: positions, agreement of halves, text, model (see `fitting`)."""

    def map(self, rows_PD: Float[Tensor, "P D"]) -> Float[Tensor, "P O"]:
        """What the directions become at the final residual, in float32."""
        rows_PD = rows_PD.float()
        return rows_PD if self.matrix_OD is None else rows_PD.to(self.matrix_OD.device) @ self.matrix_OD.T

    def scores(self, rows_PD: Float[Tensor, "P D"], readout_OV: Float[Tensor, "O V"]) -> Float[Tensor, "P V"]:
        """By direction, the score of each token; `readout_OV` is `readout` of the model, or some of its columns.

        Raises InterpError when the directions have another width than the lens reads.
        """
        width = len(readout_OV) if self.matrix_OD is None else self.matrix_OD.shape[1]
        if rows_PD.shape[1] != width:
            raise InterpError(
                f"the {self.name} lens of {self.hook_name} reads directions of width {width}, and these have "
                f"{rows_PD.shape[1]}; they are of another hook point or model."
            )
        return self.map(rows_PD).to(readout_OV.device) @ readout_OV


def logit_lens(model: Model, hook_name: str) -> Lens:
    """The lens that takes a direction as it is.

    Raises InterpError when the hook point is not as wide as the final residual.
    """
    final = last_residual(model)
    width, wide = model.width(hook_name), model.width(final)
    if width != wide:
        raise InterpError(
            f"{hook_name} of {model.name} is {width} wide and its final residual {wide}, so the logit lens cannot read it; "
            "a fitted lens can."
        )
    return Lens(LOGIT, hook_name, None)


def last_residual(model: Model) -> str:
    """The hook point of the final residual; InterpError where the model has none."""
    if model.last_residual is None:
        raise InterpError(
            f"{model.name} has no hook point for the residual stream after its last layer, which a lens needs."
        )
    return model.last_residual


def readout(model: Model) -> Float[Tensor, "O V"]:
    """What each token's logit reads from the final residual, less the mean over tokens; float32, on the CPU.

    The final norm's gain is folded in. Its scale, positive and common to all tokens, is left out: it does not order them.
    Raises InterpError when the model has no unembedding or a final norm that is not known.
    """
    unembed_VO, gain_O = model.unembedding()
    folded_OV = (unembed_VO * gain_O).T
    return (folded_OV - folded_OV.mean(1, keepdim=True)).contiguous().cpu()


@torch.inference_mode()
def top_tokens(
    lens: Lens,
    rows_PD: Float[Tensor, "P D"],
    readout_OV: Float[Tensor, "O V"],
    count: int,
    among_V: Bool[Tensor, " V"] | None = None,
) -> list[list[int]]:
    """By direction, the ids of the `count` tokens with the highest scores, of those marked in `among_V` (all, without)."""
    lists: list[list[int]] = []
    for some_PD in rows_PD.split(ROWS):
        scores_PV = lens.scores(some_PD, readout_OV)
        if among_V is not None:
            scores_PV = scores_PV.masked_fill(~among_V.to(scores_PV.device), -torch.inf)
        lists += scores_PV.topk(min(count, scores_PV.shape[1])).indices.tolist()
    return lists
