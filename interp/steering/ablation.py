"""What ablating a feature does to what the model gives for one text: of any family, also those that continue nothing.

1. The text runs as it is, and with the feature ablated wherever it fires and counts.
2. At each position the two outputs are compared: of a vocabulary's logits by the divergence of their probabilities, of vectors
   by the length of the difference in units of the vector itself.
3. The same amounts are written along features that fire about as often: how many of them change the text less.

Axes    T position, V what is given at a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.families import given
from interp.render import table_html, title_html, visible
from interp.steering.apply import own_positions
from interp.steering.binding import BoundEdit, number
from interp.steering.edits import Ablate
from interp.steering.run import as_json
from interp.steering.steered import SteeredModel
from interp.types import FeatureRef, InterpError

NATS, RELATIVE = "KL, nats", "change relative to the vector"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What became of one text without a feature."""

    feature: int
    tokens: list[str]
    activation: list[float]
    """Of the feature, by position; 0 where the position does not count."""
    unit: str
    """Of the changes: `KL, nats` of the output's probabilities, or the length of the difference in units of the vector."""
    change: list[float]
    """At each position."""
    controls: list[float]
    """The mean change when the same amounts are taken along features that fire about as often, the largest first."""

    @property
    def mean(self) -> float:
        """The mean change over positions."""
        return float(np.mean(self.change))

    @property
    def largest(self) -> float:
        """The change at the position that changes most."""
        return max(self.change)

    def sentence(self) -> str:
        """The figures in words, what could not be shown first."""
        if not any(self.activation):
            return f"feature {self.feature} fires nowhere in this text, so there is nothing to ablate."
        less = sum(control < self.mean for control in self.controls)
        at = int(np.argmax(self.change))
        most = f" on average ({self.unit}), most at {visible(self.tokens[at])!r} ({self.largest:.3g})"
        if len(self.change) > 1 and min(self.change) == self.largest:  # one output, which is no position's alone
            most = f" ({self.unit})"
        return (
            f"ablating feature {self.feature} changes the output by {self.mean:.3g}{most}; the same amounts along "
            f"{len(self.controls)} other features: {less} change it less."
        )

    def to_json(self) -> str:
        """As strict JSON."""
        return as_json(self)

    def _repr_html_(self) -> str:
        rows = [
            (visible(t), f"{a:.3g}", f"{c:.3g}")
            for t, a, c in zip(self.tokens, self.activation, self.change, strict=True)
        ]
        return title_html(self.sentence()) + table_html(["position", "activation", self.unit], rows)


@torch.inference_mode()
def ablate(
    steered: SteeredModel, feature: int | FeatureRef, tokens: Sequence[int], matched: Sequence[int] = ()
) -> Ablation:
    """What ablating the feature does to one text of token ids (see `Model.prompt`).

    Raises InterpError when the feature cannot be edited, or the text is empty.
    """
    if not tokens:
        raise InterpError("there is no text to ablate the feature in; give at least one word.")
    edit = Ablate(feature=feature)
    bound, *others = steered.bind([edit, *(replace(edit, along=_sibling(feature, other)) for other in matched)])
    tokens_1T = torch.tensor([list(tokens)], device=steered.model.device)
    media = given([tokens])
    base_TV = _outputs(steered, [], tokens_1T, media)
    changes = [_change(base_TV, _outputs(steered, [one], tokens_1T, media), steered) for one in (bound, *others)]
    vocabulary = steered.vocabulary()
    return Ablation(
        feature=number(feature),
        tokens=[vocabulary[token] for token in tokens],
        activation=_activation(steered, bound, tokens_1T, media),
        unit=NATS if steered.model.has_vocabulary else RELATIVE,
        change=changes[0].tolist(),
        controls=sorted((float(change.mean()) for change in changes[1:]), reverse=True),
    )


def _sibling(feature: int | FeatureRef, other: int) -> int | FeatureRef:
    return replace(feature, feature=other) if isinstance(feature, FeatureRef) else other


def _outputs(
    steered: SteeredModel, edits: Sequence[BoundEdit], tokens_1T: Int[Tensor, "1 T"], media: Tensor | None
) -> Float[Tensor, "T V"]:
    """What the model gives at each position."""
    made = steered.model.run(tokens_1T, edits=steered.compile_bound([list(edits)], tokens_1T), given=media).logits
    assert made is not None
    return made[0]


def _activation(
    steered: SteeredModel, bound: BoundEdit, tokens_1T: Int[Tensor, "1 T"], media: Tensor | None
) -> list[float]:
    assert bound.feature is not None
    hooks = list(bound.feature.home.reads)
    x = dict(steered.model.run(tokens_1T, hooks, given=media).activations.items())
    site = steered.model.site_at(steered.model.site(tokens_1T, given=media)[0], hooks[0])
    counted_1T = bound.sinks.mask().counted(x, own_positions(site, bound.sinks.separator))
    value_T = steered.activation(bound.feature, {name: each[0] for name, each in x.items()})
    return [float(value) for value in torch.where(counted_1T[0], value_T, 0.0)]


def _change(base_TV: Tensor, edited_TV: Tensor, steered: SteeredModel) -> np.ndarray:
    if not steered.model.has_vocabulary:
        difference_T = (edited_TV.float() - base_TV.float()).norm(dim=1)
        return np.asarray((difference_T / base_TV.float().norm(dim=1).clamp_min(1e-12)).cpu().numpy())
    before_TV, after_TV = (x.double().log_softmax(-1) for x in (base_TV, edited_TV))
    return np.asarray((before_TV.exp() * (before_TV - after_TV)).sum(-1).clamp_min(0).cpu().numpy())
