"""What a feature does to the next token in texts where it fires: ablated, and held; forward passes only.

Axes    C context, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.render import table_html, title_html, visible
from interp.statistics import bootstrap
from interp.steering.binding import BoundEdit, number
from interp.steering.controls import draw_controls, draw_noise
from interp.steering.edits import Ablate, Clamp, FeatureEdit, Named
from interp.steering.run import as_json
from interp.steering.steered import Rows, SteeredModel
from interp.types import FeatureRef, InterpError

BATCH = 16
SHOWN = 10
Figure = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of one change over all contexts; figures are (mean, low, high) with 95 % intervals over contexts."""

    kl: Figure
    """KL(edited ‖ unedited) of the next token, nats."""
    loss: Figure
    """Change of the loss at the token that follows in the text, nats; above 0 the edit makes it less likely."""
    top_changes: Figure
    """Share of contexts whose likeliest token is another one."""

    def sentence(self) -> str:
        """The figures in words."""
        kl, loss, top = self.kl, self.loss, self.top_changes
        return (
            f"KL {kl[0]:.3g} ({kl[1]:.3g} to {kl[2]:.3g}), loss {loss[0]:+.3g} ({loss[1]:+.3g} to {loss[2]:+.3g}), "
            f"another likeliest token in {top[0]:.0%} ({top[1]:.0%} to {top[2]:.0%})"
        )


@dataclass(frozen=True, kw_only=True)
class Effect(Measures):
    """What ablating or holding the feature did, beside the same amount along other directions."""

    edit: str
    controls: dict[str, Measures]
    """`random features` (of like density) and `noise`, at the row's norm: one of each for every context."""
    raised: list[tuple[str, float]]
    """Tokens with the largest mean change of log-probability."""
    lowered: list[tuple[str, float]]

    def sentences(self) -> list[str]:
        """The effect's figures, then its controls'."""
        return [
            f"{self.edit}: {self.sentence()}",
            *(f"the same along {name}: {control.sentence()}" for name, control in self.controls.items()),
        ]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Effects of a feature on the next token."""

    feature: int
    contexts: int
    activation: Figure
    """At the contexts' last position."""
    ablated: Effect
    clamped: Effect
    rows: list[dict[str, Any]]
    """A row a context: index position, activation, and what both edits and their controls do."""

    def to_json(self) -> str:
        """As strict JSON: what could not be measured is null."""
        return as_json(self)

    def _repr_html_(self) -> str:
        parts = [title_html(f"feature {self.feature}: effects on the next token in {self.contexts} contexts")]
        for effect in (self.ablated, self.clamped):
            parts += [title_html(sentence) for sentence in effect.sentences()]
            rows = [
                (visible(a), x, visible(b), y) for (a, x), (b, y) in zip(effect.raised, effect.lowered, strict=True)
            ]
            parts.append(table_html(["raises", "", "lowers", ""], rows))
        return "".join(parts)


@torch.inference_mode()
def effects(
    steered: SteeredModel,
    feature: int | FeatureRef,
    contexts: Sequence[Sequence[int]],
    following: Sequence[int],
    positions: Sequence[int],
    strength: float,
    matched: Sequence[int] = (),
) -> Effects:
    """Ablation's and clamping's effects on the token after each context (token ids with their prefix).

    The edits act at every position of a context that counts. `following` is the token that came next in the text,
    -1 where none did. The controls write the same amounts along features `matched` in density and along noise, of which
    every context has its own. Raises InterpError when there is no context, or the feature cannot be edited.
    """
    steered.model.check_causal("effects on the next token")
    if not contexts:
        raise InterpError(f"feature {feature} fires nowhere in the index, so there is no context to try it in.")
    edits: dict[str, FeatureEdit] = {
        "ablated": Ablate(feature=feature),
        "clamped": Clamp(feature=feature, strength=strength),
    }
    bound = steered.bind(list(edits.values()))[0]
    along = _along(bound, matched, len(contexts))
    made = {
        (name, control): steered.bind_rows([[replace(edit, along=other)] for other in others])
        for name, edit in edits.items()
        for control, others in along.items()
    }
    sums: dict[str, Tensor | float] = dict.fromkeys(edits, 0.0)
    per: list[dict[str, Any]] = []
    # Contexts of like length together, so that little is padding.
    order = sorted(range(len(contexts)), key=lambda c: len(contexts[c]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        some, after = [contexts[c] for c in chosen], [following[c] for c in chosen]
        base, now = _unedited(steered, bound, some)
        rows = [{"position": int(positions[c]), "activation": float(a)} for c, a in zip(chosen, now, strict=True)]
        for (name, control), each in made.items():
            changed = _edited(steered, some, [each[c] for c in chosen])
            _add(rows, _series(name, control), base, changed, after)
            if not control:
                sums[name] = sums[name] + (changed - base).sum(0)
        per += rows
    per.sort(key=lambda row: -row["activation"])
    texts = list(steered.vocabulary())
    words = {"ablated": f"ablated to 0 (feature {feature})", "clamped": f"held at {strength:.3g} (feature {feature})"}
    ablated, clamped = (_effect(words[name], name, list(along), per, sums[name], texts) for name in edits)
    return Effects(
        feature=number(feature),
        contexts=len(contexts),
        activation=bootstrap(np.array([row["activation"] for row in per])),
        ablated=ablated,
        clamped=clamped,
        rows=per,
    )


def _unedited(
    steered: SteeredModel, bound: BoundEdit, contexts: Sequence[Sequence[int]]
) -> tuple[Float[Tensor, "C V"], Float[Tensor, " C"]]:
    """(log-probabilities of the next token, the feature's activation at the last position) of each context."""
    assert bound.feature is not None
    tokens_BT, real_BT = steered.model.padded(contexts)
    run = steered.model.run(tokens_BT, list(bound.feature.home.reads), logits=True, real_BT=real_BT, last=1)
    ends = {name: x[:, -1] for name, x in run.activations.items()}
    return _last(run.logits), steered.activation(bound.feature, ends)


def _edited(steered: SteeredModel, contexts: Sequence[Sequence[int]], rows: Rows) -> Float[Tensor, "C V"]:
    tokens_BT, real_BT = steered.model.padded(contexts)
    edits = steered.compile_bound(rows, tokens_BT, real_BT)
    return _last(steered.model.run(tokens_BT, edits=edits, logits=True, real_BT=real_BT, last=1).logits)


def _along(bound: BoundEdit, matched: Sequence[int], count: int) -> dict[str, list[Named | None]]:
    """By series, the direction that each context's edit writes along: its own row (None), then each control's."""
    along: dict[str, list[Named | None]] = {"": [None] * count}
    features = draw_controls(bound, matched, 0, 0)
    if features:
        along["random features"] = [features[c % len(features)] for c in range(count)]
    return along | {"noise": list(draw_noise(count, bound, 0))}


def _series(name: str, control: str) -> str:
    return f"{name}_{control}" if control else name


def _last(logits: Tensor | None) -> Float[Tensor, "C V"]:
    assert logits is not None
    return logits[:, -1].float().log_softmax(-1)


def _add(rows: list[dict[str, Any]], name: str, base: Tensor, after: Tensor, following: Sequence[int]) -> None:
    """Put what one edit did into the contexts' rows."""
    kl = (after.exp() * (after - base)).sum(-1).tolist()
    changed = (after.argmax(-1) != base.argmax(-1)).tolist()
    for at, (row, token) in enumerate(zip(rows, following, strict=True)):
        loss = float(base[at, token] - after[at, token]) if token >= 0 else float("nan")
        row |= {f"{name}_kl": kl[at], f"{name}_loss": loss, f"{name}_top_changes": bool(changed[at])}


def _effect(
    words: str, name: str, controls: list[str], per: list[dict[str, Any]], total: Tensor | float, texts: list[str]
) -> Effect:
    assert isinstance(total, Tensor)
    mean = total.cpu() / len(per)
    top, bottom = mean.topk(SHOWN), (-mean).topk(SHOWN)

    def figures(name: str) -> dict[str, Figure]:
        keys = ("kl", "loss", "top_changes")
        return {key: bootstrap(np.array([float(row[f"{name}_{key}"]) for row in per])) for key in keys}

    def pairs(tokens: Tensor) -> list[tuple[str, float]]:
        return [(texts[token] if token < len(texts) else f"<{token}>", float(mean[token])) for token in tokens.tolist()]

    return Effect(
        edit=words,
        **figures(name),
        controls={each: Measures(**figures(_series(name, each))) for each in controls if each},
        raised=pairs(top.indices),
        lowered=pairs(bottom.indices),
    )
